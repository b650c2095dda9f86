package github_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/issuers/github"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldens(t *testing.T) {
	federationtest.Goldens(t, *update, "ci", func(text string) (federation.Adapter, error) {
		var s github.Settings
		if err := yaml.Load([]byte(text), &s, yaml.WithKnownFields()); err != nil {
			return nil, err
		}
		return github.New(s)
	})
}

func TestOnlyImmutableIDsOfWhoseCodeRunsAreAnchors(t *testing.T) {
	a, err := github.New(github.Settings{})
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
	if got, want := strings.Join(anchors, " "), "repository_id repository_owner_id enterprise_id"; got != want {
		t.Errorf("anchors: got %s, want %s", got, want)
	}
}

// Every user of a shared platform could speak here otherwise (failures of issuers without a tenant condition).
func TestSharedIssuerWithoutTenantPinDoesNotLoad(t *testing.T) {
	for _, tc := range []struct {
		urls     []string
		settings github.Settings
		ok       bool
	}{
		{[]string{"https://token.actions.githubusercontent.com", "https://token.actions.githubusercontent.com/acme-inc", "https://token.actions.acme.ghe.com", "https://acme.ghe.com/_services/token"}, github.Settings{}, false},
		{[]string{"https://token.actions.githubusercontent.com"}, github.Settings{OwnerIDs: []string{"4711"}}, true},
		{[]string{"https://github.acme.example/_services/token"}, github.Settings{}, true},
	} {
		for _, url := range tc.urls {
			adapter, err := github.New(tc.settings)
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
