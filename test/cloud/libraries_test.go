package cloud

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth/credentials"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azurecloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/azure/azuretest"
	"github.com/sallyport-sts/sallyport/brokers/gcp/gcptest"
	"github.com/sallyport-sts/sallyport/test/deployment"
)

// trust lets a fake verify assertions by the keys that a deployment publishes, as the real one does.
type trust struct{ d *deployment.Deployment }

func (t *trust) verify(j *jose.JSONWebSignature) ([]byte, error) {
	return t.verifyBy("/assertions/jwks", j)
}

func (t *trust) verifyBy(path string, j *jose.JSONWebSignature) ([]byte, error) {
	resp, err := http.Get(t.d.URL + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		return nil, err
	}
	found := keys.Key(j.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		return nil, fmt.Errorf("no key %s", j.Signatures[0].Header.KeyID)
	}
	return j.Verify(found[0].Key)
}

// Google's library obtains tokens by the executable source, of a target that hands assertions over, and gcloud's variables hold
// a token of one that does not. The fake stands for Google.
func TestGoogleLibraryTakesTheExecutableSource(t *testing.T) {
	var keys trust
	fake := gcptest.New(t, "", "sallyport:gcp-handed-over", keys.verify)
	provider := "  provider: " + gcptest.Provider + "\n"
	d := deployment.New(t, map[string]string{
		"gcp-handed-over": "target: gcp-handed-over\nbroker: gcp\nmax_lifetime: 15m\nscopes: {read: {}}\ngcp:\n  hand_over: true\n" + provider,
		"orders-storage": "target: orders-storage\nbroker: gcp\nmax_lifetime: 15m\nscopes: {read: {scopes: ['https://www.googleapis.com/auth/devstorage.read_only']}}\ngcp:\n  service_account: '" +
			gcptest.ServiceAccount + "'\n  sts: " + fake.URL + "\n  iam_credentials: " + fake.URL + "\n" + provider,
	}, 10*time.Minute, "")
	d.Serve()
	keys.d, fake.Issuer = d, d.URL+"/assertions"

	workload := d.Workload()
	exchange := fmt.Sprintf("exchange --server %s --subject-token-file %s --audience ", d.URL, workload)
	source := []byte(strings.NewReplacer("\"sallyport ", "\""+d.Bin+" ", "https://sts.example", d.URL, "/var/run/secrets/tokens/sallyport", workload,
		"https://sts.googleapis.com", fake.URL, "https://iamcredentials.googleapis.com", fake.URL).Replace(deployed(t, "gcp/external-account.json"))) // as deploy has it, with what is here
	t.Setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
	c, err := credentials.NewCredentialsFromJSON(credentials.ExternalAccount, source, &credentials.DetectOptions{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_only"}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Token(t.Context())
	if err != nil || fake.Kind(token.Value) != "impersonated" {
		t.Fatalf("the library's token is %+v, %v", token, err)
	}

	fake.Subject = "sallyport:orders-storage"
	out := d.Run(strings.Fields(exchange + "orders-storage -o env")...)
	value, _, _ := strings.Cut(strings.TrimPrefix(out, "export CLOUDSDK_AUTH_ACCESS_TOKEN='"), "'")
	if fake.Kind(value) != "impersonated" {
		t.Errorf("the variables are %s", out)
	}
	if _, err := c.Token(t.Context()); err != nil { // it keeps its token: nothing is asked again
		t.Errorf("a second time: %v", err)
	}
	// The provider now vouches for another target: the handed-over assertion, whose subject is its own target's, is refused.
	if c, err = credentials.NewCredentialsFromJSON(credentials.ExternalAccount, source, &credentials.DetectOptions{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_only"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "attribute condition") {
		t.Errorf("another target's subject: %v", err)
	}
}

// Microsoft's library obtains tokens with the assertion in a file. The fake stands for Entra.
func TestAzureLibraryTakesTheTokenFile(t *testing.T) {
	t.Parallel()
	var keys trust
	fake := azuretest.New(t, "", "sallyport:azure-handed-over", keys.verify)
	identity := "  tenant: " + azuretest.Tenant + "\n  client: " + azuretest.Client + "\n  algorithm: RS256\n"
	d := deployment.New(t, map[string]string{
		"azure-handed-over": "target: azure-handed-over\nbroker: azure\nmax_lifetime: 15m\nazure:\n  hand_over: true\n" + identity,
		"pay-vault":         "target: pay-vault\nbroker: azure\nmax_lifetime: 15m\nazure:\n  resource: " + azuretest.Resource + "\n  outlives_grant: true\n  authority: " + fake.URL + "\n  ca_file: entra.pem\n" + identity,
	}, 10*time.Minute, "  algorithms: [ES256, RS256]\n")
	d.Write("entra.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fake.Certificate.Raw})))
	d.Write("policy/p.yaml", "rules:\n  - {name: r, workloads: {trust_domain: prod.example, issuer: cluster, where: {sub: checkout}}, targets: [azure-handed-over, pay-vault], lifetime: 10m}\n") // these targets have no scopes
	d.Serve()
	keys.d, fake.Issuer = d, d.URL+"/assertions"

	file, workload := d.Dir+"/federated-token", d.Workload()
	d.Run("exchange", "--server", d.URL, "--subject-token-file", workload, "--audience", "azure-handed-over", "-o", "token", "--to", file)
	roots := x509.NewCertPool()
	roots.AddCert(fake.Certificate)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	c, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: client, Cloud: azurecloud.Configuration{ActiveDirectoryAuthorityHost: fake.URL}},
		ClientID:      azuretest.Client, TenantID: azuretest.Tenant, TokenFilePath: file, DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{azuretest.Resource + "/.default"}})
	if err != nil || token.ExpiresOn.Before(time.Now().Add(time.Hour)) {
		t.Fatalf("the library's token: %v, until %s", err, token.ExpiresOn)
	}

	fake.Subject = "sallyport:pay-vault"
	if out := d.Run("exchange", "--server", d.URL, "--subject-token-file", workload, "--audience", "pay-vault", "-o", "json"); !strings.Contains(out, "azure-access-token") {
		t.Errorf("the token of the other target is %s", out)
	}
	// Who responds to an incident is told when it really dies, not when its grant does.
	if out := d.Run("revoke", "--admin", d.Admin(), "target=pay-vault", "--reason", "a drill"); !strings.Contains(out, "dies") || !strings.Contains(out, "takes no token back") {
		t.Errorf("the receipt is %s", out)
	}
}
