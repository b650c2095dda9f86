package docs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	githubbroker "github.com/sallyport-sts/sallyport/brokers/github"
	"github.com/sallyport-sts/sallyport/brokers/github/githubtest"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/issuers"
	"github.com/sallyport-sts/sallyport/issuers/github"
	"github.com/sallyport-sts/sallyport/issuers/gitlab"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
	"github.com/sallyport-sts/sallyport/issuers/oidc"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/rehearsal"
)

// load puts files beside the starter's server file and loads them as serve would.
func load(t *testing.T, files map[string]string) (*config.Set, error) {
	t.Helper()
	dir, kinds := laid(t, files)
	return config.Load(dir, kinds)
}

// laid writes files into a new configuration directory, in the place of what is there but for sallyport.yaml, and the secrets
// that the documentation refers to.
func laid(t *testing.T, files map[string]string) (string, config.Kinds) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sallyport")
	if _, err := config.Init(dir); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"trust", "targets", "policy"} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			t.Fatal(err)
		}
	}
	files = maps.Clone(files)
	files["secrets/orders-admin-dsn"] = "postgres://sallyport:not-shown@orders.db.internal/orders?sslmode=verify-full"
	files["secrets/redis-url"] = "redis://:not-shown@127.0.0.1:6379/0"
	files["secrets/sessions-redis-1"] = "rediss://sallyport:not-shown@redis-1.example:6379"
	files["secrets/sessions-redis-2"] = "rediss://sallyport:not-shown@redis-2.example:6379"
	files["secrets/kek.sealed"] = "vault:v1:bm90IHNob3du"
	files["secrets/vault.jwt"] = "e30.e30.not-shown"
	files["secrets/orders-mysql-dsn"] = "sallyport:not-shown@tcp(orders.db.internal:3306)/?tls=true"
	files["secrets/github-app.pem"] = githubtest.New(t).PEM
	files["tls.crt"], files["tls.key"] = certificate(t)
	files["operators-ca.crt"] = files["tls.crt"]
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is, err := issuers.NewSet(kubernetes.Kind(), github.Kind(), gitlab.Kind(), oidc.Kind())
	if err != nil {
		t.Fatal(err)
	}
	bs, err := brokers.NewSet(awsbroker.Kind(), azurebroker.Kind(), gcpbroker.Kind(), githubbroker.Kind(), jwt.Kind(), kubernetesbroker.Kind(), mysql.Kind(), postgres.Kind(), redis.Kind(), vault.Kind())
	if err != nil {
		t.Fatal(err)
	}
	return dir, config.Kinds{Issuers: is, Brokers: bs}
}

// certificate is one that signs itself, and its key, in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"sts.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestConfigurationInTheDocumentationLoads(t *testing.T) {
	t.Parallel()
	pages, cases := 0, 0
	readme := configuration(t, filepath.Join(root, "README.md"))
	for _, page := range documents(t) {
		own := configuration(t, page)
		if len(own) == 0 {
			continue
		}
		pages++
		files := maps.Clone(readme) // what other pages show is added to it
		maps.Copy(files, own)
		dir, kinds := laid(t, files)
		if _, err := config.Load(dir, kinds); err != nil {
			t.Errorf("the configuration of %s does not load:\n%v", page, err)
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "policy", "tests")); err == nil {
			cases += answered(t, page, dir, kinds)
		}
	}
	if cases < 2 {
		t.Errorf("%d cases are answered; the test looks at nothing", cases)
	}
	if pages < 2 {
		t.Errorf("%d pages show a configuration; the test looks at nothing", pages)
	}
}

// answered answers the cases of a page, which pass.
func answered(t *testing.T, page, dir string, kinds config.Kinds) int {
	t.Helper()
	set, cases, err := config.LoadCases(dir, nil, kinds)
	if err != nil {
		t.Errorf("the cases of %s do not load:\n%v", page, err)
		return 0
	}
	results, err := rehearsal.Run(t.Context(), set, cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.OK() {
			t.Errorf("%s: case %q differs in %v: %+v", page, r.Case.Name, r.Differs, r.Got)
		}
	}
	return len(results)
}

// configuration collects a page's YAML blocks whose first line names a file of ours. Any other block belongs to
// another program and must at least be YAML.
func configuration(t *testing.T, page string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, b := range blocks(t, page) {
		if b.lang != "yaml" {
			continue
		}
		first, _, _ := strings.Cut(b.text, "\n")
		if name := strings.TrimPrefix(first, "# "); strings.HasSuffix(name, ".yaml") {
			files[name] += b.text
		} else if err := yaml.Unmarshal([]byte(b.text), new(any)); err != nil {
			t.Errorf("%s:%d: %v", page, b.line, err)
		}
	}
	return files
}

func TestPodOfTheReadmeAsksForTheAudienceThatTheTrustFileAccepts(t *testing.T) {
	t.Parallel()
	text := read(t, filepath.Join(root, "README.md"))
	if n := strings.Count(text, "audience: https://sts.example/prod.example"); n != 1 {
		t.Errorf("the pod's audience stands %d times, want once", n)
	}
	if n := strings.Count(text, "audiences: [https://sts.example/prod.example]"); n != 1 {
		t.Errorf("the issuer's audience stands %d times, want once", n)
	}
}
