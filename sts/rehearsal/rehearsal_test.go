package rehearsal_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/issuers"
	"github.com/sallyport-sts/sallyport/issuers/oidc"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/rehearsal"
)

// run answers cases against the starter configuration.
func run(t *testing.T, cases string) []rehearsal.Result {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "conf")
	if _, err := config.Init(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "policy", "tests", "orders.yaml")
	if err := os.WriteFile(file, []byte(cases), 0o600); err != nil {
		t.Fatal(err)
	}
	is, err := issuers.NewSet(oidc.Kind())
	if err != nil {
		t.Fatal(err)
	}
	bs, err := brokers.NewSet(jwt.Kind())
	if err != nil {
		t.Fatal(err)
	}
	set, list, err := config.LoadCases(dir, nil, config.Kinds{Issuers: is, Brokers: bs})
	if err != nil {
		t.Fatal(err)
	}
	results, err := rehearsal.Run(context.Background(), set, list)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// A case passes only when everything it says of the answer is true.
func TestEveryPartOfAnExpectationCounts(t *testing.T) {
	t.Parallel()
	for expect, want := range map[string][]string{
		"{allow: checkout-reads-orders, scopes: [read], lifetime: 10m}": nil,
		"{allow: orders-introspects}":                                   {"allow"},
		"{allow: checkout-reads-orders, scopes: [read, write]}":         {"scopes"},
		"{allow: checkout-reads-orders, lifetime: 9m}":                  {"lifetime"},
		"{refuse: invalid_target}":                                      {"allow", "refuse"},
	} {
		got := run(t, `cases:
  - name: checkout
    subject: {issuer: local.example/laptop, claims: {sub: checkout, team: shop}}
    request: {audience: orders}
    expect: `+expect+"\n")
		if len(got) != 1 || !slices.Equal(got[0].Differs, want) || got[0].OK() != (want == nil) {
			t.Errorf("%s: results are %+v, want a difference in %v", expect, got, want)
		}
	}
}

// What the platform would never sign, door one refuses here as it would in an exchange.
func TestDoorOneIsPartOfACase(t *testing.T) {
	t.Parallel()
	for _, claims := range []string{
		`{sub: checkout, team: shop, aud: "https://elsewhere.example"}`,
		`{sub: checkout, team: shop, iss: "https://elsewhere.example"}`,
		`{sub: checkout, team: [shop]}`,
		`{sub: checkout, team: 7}`,
		`{team: shop}`,
		`{sub: checkout, team: shop, exp: 1}`,
		`{sub: checkout, team: shop, exp: null}`,
		`{sub: checkout, team: shop, exp: 9999999999}`,
	} {
		got := run(t, `cases:
  - name: checkout
    subject: {issuer: local.example/laptop, claims: `+claims+`}
    request: {audience: orders}
    expect: {refuse: invalid_request}
`)
		if len(got) != 1 || !got[0].OK() {
			t.Errorf("%s: results are %+v, want invalid_request", claims, got)
		}
	}
}
