package kubernetes_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGoldens signs claims as clusters issue them and compares what they name. Archives hold claims.json,
// perhaps settings.json, and identity.json or error.txt.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := contents(archive)
			var settings kubernetes.Settings
			if s := files["settings.json"]; s != "" {
				if err := json.Unmarshal([]byte(s), &settings); err != nil {
					t.Fatal(err)
				}
			}
			name, got := answer(federationtest.Identify(t, "cluster-1", kubernetes.New(settings), []byte(files["claims.json"])))
			if *update {
				rewrite(t, path, archive, name, got)
				return
			}
			if files[name] != got {
				t.Errorf("%s is\n%swant\n%s", name, got, files[name])
			}
		})
	}
}

func contents(a *txtar.Archive) map[string]string {
	out := make(map[string]string)
	for _, f := range a.Files {
		out[f.Name] = string(f.Data)
	}
	return out
}

// answer prints what came out, as it stands in goldens.
func answer(w federation.Workload, err error) (name, content string) {
	if err != nil {
		return "error.txt", err.Error() + "\n"
	}
	attributes := make(map[string]any)
	for k, v := range w.Attributes() {
		attributes[k] = v.Any()
	}
	b, err := json.MarshalIndent(map[string]any{"id": w.ID(), "attributes": attributes}, "", "  ")
	if err != nil {
		return "error.txt", err.Error()
	}
	return "identity.json", string(b) + "\n"
}

func rewrite(t *testing.T, path string, archive *txtar.Archive, name, content string) {
	t.Helper()
	kept := archive.Files[:0]
	for _, f := range archive.Files {
		if f.Name != "identity.json" && f.Name != "error.txt" {
			kept = append(kept, f)
		}
	}
	archive.Files = append(kept, txtar.File{Name: name, Data: []byte(content)})
	if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSchemaDeclaresWhatNamesSet(t *testing.T) {
	schema := kubernetes.New(kubernetes.Settings{}).Schema()
	for _, anchor := range []string{"service_account_uid", "pod_uid", "node_uid", "bound_secret_uid"} {
		if a, ok := schema.Lookup(anchor); !ok || !a.Anchor {
			t.Errorf("%s is not an anchor", anchor)
		}
	}
	for _, name := range []string{"namespace", "service_account", "pod", "node", "bound_secret"} {
		if a, ok := schema.Lookup(name); !ok || a.Anchor {
			t.Errorf("%s, a name that can be given again, is missing or an anchor", name)
		}
	}
	for _, a := range schema {
		if a.Doc == "" {
			t.Errorf("%s has no documentation", a.Name)
		}
	}
}

func TestKind(t *testing.T) {
	kind := kubernetes.Kind()
	settings := kind.Settings()
	if err := json.Unmarshal([]byte(`{"require_pod": true}`), settings); err != nil {
		t.Fatal(err)
	}
	adapter, err := kind.Build(settings)
	if err != nil || kind.Type() != "kubernetes" {
		t.Fatalf("kind %s: %v", kind.Type(), err)
	}
	_, err = federationtest.Identify(t, "c", adapter, []byte(`{"iss":"https://k8s.example","aud":["https://sts.example"],
		"sub":"system:serviceaccount:pay:worker","exp":1790000600,
		"kubernetes.io":{"namespace":"pay","serviceaccount":{"name":"worker","uid":"u"}}}`))
	if !errors.Is(err, federation.ErrNaming) {
		t.Errorf("token without pod where one is required: %v", err)
	}
}

func FuzzName(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(contents(archive)["claims.json"]))
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		var c map[string]any
		if json.Unmarshal(claims, &c) != nil || c["iss"] != "https://kubernetes.default.svc.cluster.local" {
			return
		}
		if exp, ok := c["exp"].(float64); !ok || exp < 0 || exp > 1e10 {
			return
		}
		w, err := federationtest.Identify(t, "cluster-1", kubernetes.New(kubernetes.Settings{}), claims)
		if err != nil {
			return
		}
		if id, err := federation.ParseID(w.ID()); err != nil || id.Issuer != "cluster-1" || id.TrustDomain != "prod.example" {
			t.Errorf("id %s: %v", w.ID(), err)
		}
	})
}
