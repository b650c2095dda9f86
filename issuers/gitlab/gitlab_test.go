package gitlab_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/issuers/gitlab"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldens(t *testing.T) {
	federationtest.Goldens(t, *update, "ci", func(text string) (federation.Adapter, error) {
		var s gitlab.Settings
		if err := yaml.Load([]byte(text), &s, yaml.WithKnownFields()); err != nil {
			return nil, err
		}
		return gitlab.New(s)
	})
}

func TestOnlyImmutableIDsOfWhoseCodeRunsAreAnchors(t *testing.T) {
	a, err := gitlab.New(gitlab.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for _, attribute := range a.Schema() {
		if attribute.Doc == "" {
			t.Errorf("%s has no documentation", attribute.Name)
		}
		if attribute.Anchor {
			anchors = append(anchors, attribute.Name)
		}
	}
	if got, want := strings.Join(anchors, " "), "project_id namespace_id job_project_id"; got != want {
		t.Errorf("anchors: got %s, want %s", got, want)
	}
}

// Every user of a shared platform could speak here otherwise (failures of issuers without a tenant condition).
func TestSharedIssuerWithoutTenantPinDoesNotLoad(t *testing.T) {
	for _, tc := range []struct {
		urls     []string
		settings gitlab.Settings
		ok       bool
	}{
		{[]string{"https://gitlab.com", "https://GitLab.com"}, gitlab.Settings{}, false},
		{[]string{"https://gitlab.com"}, gitlab.Settings{NamespaceIDs: []string{"4711"}}, true},
		{[]string{"https://gitlab.acme.example"}, gitlab.Settings{}, true},
	} {
		for _, url := range tc.urls {
			adapter, err := gitlab.New(tc.settings)
			if err != nil {
				t.Fatal(err)
			}
			iss := federationtest.NewNamed(t, url, jose.EdDSA)
			_, err = federation.NewTrust([]federation.Issuer{{
				TrustDomain: "prod.example", Name: "ci", URL: url, Audiences: []string{"https://sts.example"},
				Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: adapter,
			}}, nil)
			if (err == nil) != tc.ok {
				t.Errorf("%s with %+v: got error %v, want it to load: %v", url, tc.settings, err, tc.ok)
			}
		}
	}
}
