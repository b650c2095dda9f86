package sts_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/keys"
)

// The second issuer is another: no key of the one is in the set of the other, and a token that it signed is
// nothing here, whatever its claims say.
func TestAssertionsAreNothingHere(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	kids := func(path string) map[string]bool {
		var set struct{ Keys []struct{ Kid string } }
		if err := json.Unmarshal([]byte(d.send(http.MethodGet, path, "").body), &set); err != nil || len(set.Keys) == 0 {
			t.Fatalf("%s: %v", path, err)
		}
		out := map[string]bool{}
		for _, k := range set.Keys {
			out[k.Kid] = true
		}
		return out
	}
	second := kids("/assertions/jwks")
	for kid := range kids("/jwks") {
		if second[kid] {
			t.Errorf("key %s is in both sets", kid)
		}
	}
	if got := d.metadata(d.issuer + "/assertions" + openID)["issuer"]; got != d.issuer+brokers.AssertionsPath {
		t.Errorf("the second issuer calls itself %v", got)
	}
	good := d.mint(d.checkout(), "orders")
	for name, issuer := range map[string]string{"as itself": d.issuer + brokers.AssertionsPath, "as the first issuer": d.issuer} {
		good.claims["iss"] = issuer
		token, err := d.keys.Assertions().Sign(t.Context(), keys.Header{Type: "JWT"}, good.claims)
		if err != nil {
			t.Fatal(err)
		}
		d.keepSecret(token)
		if a := d.exchange(te(token)); a.status != http.StatusBadRequest {
			t.Errorf("%s: the exchange answers %d", name, a.status)
		}
		if a := d.ask(d.gateway(), token); a.body != `{"active":false}` {
			t.Errorf("%s: introspection answers %s", name, a.body)
		}
		_ = d.revoke(token)
		if a := d.ask(d.gateway(), good.token); a.body == `{"active":false}` {
			t.Errorf("%s: it revoked a token of the first issuer", name)
		}
	}
	if _, err := d.keys.Assertions().Sign(t.Context(), keys.Header{Type: "at+jwt"}, good.claims); err == nil {
		t.Error("the second issuer signs access tokens")
	}
}
