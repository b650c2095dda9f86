package kubernetes_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGoldens signs claims as clusters issue them and compares what they name.
func TestGoldens(t *testing.T) {
	federationtest.Goldens(t, *update, "cluster-1", func(settings string) (federation.Adapter, error) {
		var s kubernetes.Settings
		if err := yaml.Load([]byte(cmp.Or(settings, "{}")), &s, yaml.WithKnownFields()); err != nil {
			return nil, err
		}
		return kubernetes.New(s), nil
	})
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
	for _, claims := range federationtest.GoldenClaims(f) {
		f.Add(claims)
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
