package docs

import (
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
)

// What deploy/kubernetes tells a cluster is what `sallyport trust kubernetes` prints for the targets that its page shows,
// with comments.
func TestSamplesForAClusterAreWhatTrustPrints(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(root, "deploy", "kubernetes")
	files := configuration(t, filepath.Join(root, "README.md"))
	maps.Copy(files, configuration(t, filepath.Join(dir, "README.md")))
	set, err := load(t, files)
	if err != nil {
		t.Fatal(err)
	}
	const ca = "CERTIFICATE-AUTHORITY-PEM\n"
	var entries []any
	var rbac string
	for _, target := range set.Targets {
		var trust kubernetesbroker.Trust
		switch s := target.Settings.(type) {
		case *jwt.Settings:
			if target.Policy.Name != "kube" {
				continue
			}
			trust = kubernetesbroker.TrustUsers(set.Server.Issuer, target.Policy.Name, jwt.Audience(target.Broker, *s), ca)
		case *kubernetesbroker.Settings:
			scopes := map[string]kubernetesbroker.Scope{}
			for name, scope := range target.Scopes {
				scopes[name] = *scope.(*kubernetesbroker.Scope)
			}
			if trust, err = kubernetesbroker.TrustBroker(set.Server.Issuer, target.Broker, *s, scopes, ca, ""); err != nil {
				t.Fatal(err)
			}
			rbac = trust.RBAC
		default:
			continue
		}
		entries = append(entries, parsed(t, trust.Authentication)["jwt"].([]any)...)
	}
	if len(entries) != 2 || rbac == "" {
		t.Fatalf("the page shows %d targets for a cluster, want one of each kind", len(entries))
	}
	sample := strings.ReplaceAll(read(t, filepath.Join(dir, "authentication-config.yaml")), "https://sts.example", set.Server.Issuer)
	if got := parsed(t, sample)["jwt"]; !reflect.DeepEqual(got, any(entries)) {
		t.Errorf("deploy/kubernetes/authentication-config.yaml says\n%v\nsallyport trust kubernetes says\n%v", got, entries)
	}
	if got := read(t, filepath.Join(dir, "broker-rbac.yaml")); got != rbac {
		t.Errorf("deploy/kubernetes/broker-rbac.yaml says\n%s\nsallyport trust kubernetes says\n%s", got, rbac)
	}
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out
}
