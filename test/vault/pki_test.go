package vault

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/vault"
)

// page is the documentation of the broker.
func page(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "brokers", "vault.md"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// fenced returns the one block of a page that begins so.
func fenced(tb testing.TB, text, begin string) string {
	tb.Helper()
	_, rest, ok := strings.Cut(text, begin)
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed || strings.Contains(block, begin) {
		tb.Fatalf("docs/brokers/vault.md has no block that begins with %q", begin)
	}
	return block
}

// tlsFile is the target of the documentation that has certificates signed.
func tlsFile(tb testing.TB) string {
	return strings.Replace(fenced(tb, page(tb), "# targets/orders-tls.yaml\n"), "https://vault.internal.example:8200", "ADDRESS", 1)
}

// newPKI is a Vault whose pki engine has an authority, and an issuer that it will trust.
func newPKI(tb testing.TB) *world {
	tb.Helper()
	w := &world{vault: StartVault(tb), issuer: newIssuer(tb)}
	if err := w.vault.Root.Sys().Mount("pki", &api.MountInput{Type: "pki"}); err != nil {
		tb.Fatal(err)
	}
	return w
}

// root makes an authority in the engine at mount and returns its certificate.
func (w *world) root(tb testing.TB, mount, life string) *x509.Certificate {
	tb.Helper()
	made, err := w.vault.Root.Logical().Write(mount+"/root/generate/internal", map[string]any{"common_name": "orders root", "key_type": "ec", "key_bits": 256, "ttl": life})
	if err != nil {
		tb.Fatal(err)
	}
	return certificates(tb, made.Data["certificate"].(string))[0]
}

// asking returns the order with a certificate request.
func asking(tb testing.TB, o brokers.Order, template *x509.CertificateRequest, key crypto.Signer) brokers.Order {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatal(err)
	}
	return o.WithInput(map[string]string{"x509_csr": base64.StdEncoding.EncodeToString(der)})
}

// logins counts the tokens of logins that Vault keeps.
func (w *world) logins(tb testing.TB) int {
	tb.Helper()
	list, err := w.vault.Root.Logical().List("auth/token/accessors")
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, accessor := range list.Data["keys"].([]any) {
		if found, err := w.vault.Root.Auth().Token().LookupAccessor(accessor.(string)); err == nil && found.Data["path"] == "auth/jwt/login" {
			n++
		}
	}
	return n
}

// What Vault's pki engine signs for a role as the command prints it: the key of the workload and its id, whatever else the
// request says, for as long as the grant.
func TestPKICertificateIsForTheWorkloadAlone(t *testing.T) {
	w := newPKI(t)
	root := w.root(t, "pki", "24h")
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := url.Parse("spiffe://prod.example/platform/admin")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	greedy := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin", Organization: []string{"root"}}, DNSNames: []string{"orders.example"}, EmailAddresses: []string{"admin@orders.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{elsewhere},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: authority}},
	}
	d := w.deploy(t, tlsFile(t), "curl")
	for name, key := range map[string]crypto.Signer{"Ed25519": edwards, "RSA": numbers, "ECDSA": newECDSA(t)} {
		for _, request := range []*x509.CertificateRequest{{}, greedy} {
			o := asking(t, d.order(t, 10*time.Minute, "read"), request, key)
			cred := d.mint(t, o)
			c := certifiedBy(t, cred.Value.Reveal())
			if cred.Type != vault.CertType || cred.TokenType != brokers.NotApplicable || !cred.Expires.Equal(c.NotAfter) {
				t.Errorf("%s: the credential is %+v", name, cred)
			}
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(c.PublicKey) {
				t.Errorf("%s: it is for another key", name)
			}
			c.names(t, o.Grant().Workload().ID(), root, o.Grant().Expires())
			// The login can be ended, the certificate cannot, and the receipt says which.
			before := w.logins(t)
			r, err := d.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, cred.Data))
			if err != nil || r.State != brokers.DiesAt || !r.At.Equal(o.Grant().Expires()) || !strings.Contains(r.Reason, c.serial) {
				t.Errorf("%s: the receipt is %+v (%v), want one that names %s", name, r, err, c.serial)
			}
			if after := w.logins(t); before != after+1 {
				t.Errorf("%s: %d logins lived, and %d do after one was revoked", name, before, after)
			}
		}
	}
	kept, err := w.vault.Root.Logical().List("pki/certs")
	if err != nil || len(kept.Data["keys"].([]any)) != 1 {
		t.Errorf("Vault keeps %v (%v), want its own certificate alone", kept, err)
	}
}

// A common name is for servers that look at nothing else: the scope's, which the role allows.
func TestPKICommonNameIsThatOfTheScope(t *testing.T) {
	w := newPKI(t)
	root := w.root(t, "pki", "24h")
	d := w.deploy(t, strings.Replace(tlsFile(t), "pki: {", "pki: {common_name: orders_ro, ", 1), "vault")
	o := asking(t, d.order(t, 5*time.Minute, "read"), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin"}}, newECDSA(t))
	c := certifiedBy(t, d.mint(t, o).Value.Reveal())
	if c.Subject.String() != "CN=orders_ro" || len(c.URIs) != 1 || len(c.DNSNames) > 0 || c.verify(root, time.Now(), x509.ExtKeyUsageClientAuth) != nil {
		t.Errorf("it is for %s, %v and %v", c.Subject, c.URIs, c.DNSNames)
	}
}

// Who steals the token of a login gets nothing signed but clients of our trust domains by this one role.
func TestPKILoginCanDoNothingElse(t *testing.T) {
	w := newPKI(t)
	w.root(t, "pki", "24h")
	d := w.deploy(t, tlsFile(t), "vault")
	if _, err := w.vault.Root.Logical().Write("pki/roles/everything", map[string]any{"allow_any_name": true}); err != nil {
		t.Fatal(err)
	}
	jwt, err := w.issuer.Sign(t.Context(), brokers.Header{}, map[string]any{
		"iss": w.issuer.url + brokers.AssertionsPath, "sub": vault.Subject(d.policy.Name), "aud": d.settings.Audience, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"sallyport": map[string]string{"lease": "a", "family": "b", "workload": "c"},
	})
	if err != nil {
		t.Fatal(err)
	}
	scope := d.scopes["read"].(*vault.Scope)
	login, err := w.vault.Root.Logical().Write("auth/jwt/login", map[string]any{"role": scope.Role, "jwt": jwt})
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, w.vault.Address, login.Auth.ClientToken)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newECDSA(t))
	if err != nil {
		t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	_, role, _ := strings.Cut(scope.PKI.Path, "/sign/")
	for path, body := range map[string]map[string]any{
		"pki/issue/" + role:                        {"uri_sans": "spiffe://prod.example/a"},
		"pki/sign-verbatim/" + role:                {"csr": csr},
		"pki/sign-verbatim":                        {"csr": csr},
		"pki/sign/everything":                      {"csr": csr, "common_name": "x"},
		"pki/issuer/default/sign/" + role:          {"csr": csr},
		"pki/root/sign-intermediate":               {"csr": csr, "common_name": "x"},
		"pki/root/sign-self-issued":                {"certificate": csr},
		"pki/roles/" + role:                        {"allow_any_name": true},
		"pki/config/urls":                          {},
		"pki/revoke":                               {"serial_number": "00"},
		"sys/policies/acl/sallyport-" + scope.Role: {"policy": `path "*" { capabilities = ["sudo"] }`},
		"auth/token/create":                        {},
	} {
		if _, err := client.Logical().Write(path, body); err == nil || !strings.Contains(err.Error(), "Code: 403") {
			t.Errorf("%s: %v; want 403", path, err)
		}
	}
	// At its own path no parameter but ours; and whoever may send any gets no other name by this role.
	id := []string{"spiffe://prod.example/a"}
	refused := func(who *api.Client, name, code string, body map[string]any) {
		t.Helper()
		body["csr"] = csr
		if got, err := who.Logical().Write(scope.PKI.Path, body); err == nil || !strings.Contains(err.Error(), "Code: "+code) {
			t.Errorf("%s: %v, %v; want %s", name, got, err, code)
		}
	}
	refused(client, "an end of its own, which max_ttl does not bound", "403", map[string]any{"uri_sans": id, "not_after": time.Now().Add(20 * time.Hour).UTC().Format(time.RFC3339)})
	for name, body := range map[string]map[string]any{
		"another trust domain":          {"uri_sans": []string{"spiffe://other.example/cluster/admin"}},
		"a trust domain that ends so":   {"uri_sans": []string{"spiffe://evil-prod.example/a"}},
		"a trust domain that begins so": {"uri_sans": []string{"spiffe://prod.example.evil/a"}},
		"another scheme":                {"uri_sans": []string{"https://prod.example/a"}},
		"a common name":                 {"uri_sans": id, "common_name": "admin"},
	} {
		refused(client, name, "400", body)
	}
	for name, body := range map[string]map[string]any{
		"a host":                {"uri_sans": id, "alt_names": "orders.example"},
		"this machine":          {"uri_sans": id, "alt_names": "localhost"},
		"an address":            {"uri_sans": id, "ip_sans": "127.0.0.1"},
		"a mailbox":             {"uri_sans": id, "alt_names": "admin@orders.example"},
		"another kind of name":  {"uri_sans": id, "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:admin"},
		"a serial number in it": {"uri_sans": id, "serial_number": "admin"},
		"a user's id":           {"uri_sans": id, "user_ids": "admin"},
	} {
		refused(client, name, "403", maps.Clone(body))
		refused(w.vault.Root, name, "400", body)
	}
	got, err := client.Logical().Write(scope.PKI.Path, map[string]any{"csr": csr, "uri_sans": id, "ttl": "240h"})
	if err != nil {
		t.Fatal(err)
	}
	if c := certificates(t, got.Data["certificate"].(string))[0]; time.Until(c.NotAfter) > time.Hour {
		t.Errorf("it ends at %s, after the longest grant that any target has", c.NotAfter)
	}
}

// Settings of the engine that would make more of a certificate, or nothing, are found; nothing is handed out, and the login
// does not stay.
func TestPKIRoleThatIsSetOtherwiseSignsNothingForUs(t *testing.T) {
	w := newPKI(t)
	w.root(t, "pki", "24h")
	d := w.deploy(t, tlsFile(t), "vault")
	scope := d.scopes["read"].(*vault.Scope)
	mount, role, _ := strings.Cut(scope.PKI.Path, "/sign/")
	printed, err := w.vault.Root.Logical().Read(mount + "/roles/" + role)
	if err != nil {
		t.Fatal(err)
	}
	greedy := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"orders.example"}}
	mint := func() error {
		_, err := d.broker(t).Mint(t.Context(), asking(t, d.order(t, 5*time.Minute, "read"), greedy, newECDSA(t)))
		return err
	}
	set := func(body map[string]any) {
		t.Helper()
		if _, err := w.vault.Root.Logical().Write(mount+"/roles/"+role, body); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		change map[string]any
		says   string
	}{
		"the common name of the request": {map[string]any{"use_csr_common_name": true, "allow_any_name": true}, "use_csr_common_name=false"},
		"the names of the request":       {map[string]any{"use_csr_sans": true, "allow_any_name": true}, "use_csr_sans be false"},
		"no id":                          {map[string]any{"allowed_uri_sans": []string{"spiffe://other.example/*"}}, "Vault answers 400"},
		"a common name that is required": {map[string]any{"require_cn": true}, "Vault answers 400"},
		"another kind of key":            {map[string]any{"key_type": "rsa"}, "Vault answers 400"},
		"an end of its own":              {map[string]any{"not_after": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}, "Vault answers 400"},
	} {
		changed := maps.Clone(printed.Data)
		maps.Copy(changed, tc.change)
		set(changed)
		if err := mint(); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
	}
	set(printed.Data)
	if err := mint(); err != nil {
		t.Errorf("as it was printed: %v", err)
	}
	// An authority that ends before the grant.
	if _, err := w.vault.Root.Logical().Delete("pki/root"); err != nil {
		t.Fatal(err)
	}
	w.root(t, "pki", "2m")
	if err := mint(); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("an authority that ends before the grant: %v", err)
	}
	if n := w.logins(t); n != 1 {
		t.Errorf("%d logins live, want that of the one certificate", n)
	}
}
