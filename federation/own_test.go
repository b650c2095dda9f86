package federation_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const ownURL = "https://sts.example"

// deployment is a trust with one platform issuer and our own keys.
func deployment(t *testing.T) (trust *federation.Trust, own, platform *federationtest.Issuer) {
	t.Helper()
	own = federationtest.NewNamed(t, ownURL, jose.ES256)
	platform = federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	trust, err := federation.NewTrust([]federation.Issuer{entry(platform)},
		&federation.Own{URL: own.URL(), Keys: own.KeySet(), Algorithms: own.Algorithms()})
	if err != nil {
		t.Fatal(err)
	}
	return trust, own, platform
}

func ownClaims(own *federationtest.Issuer) federationtest.Claims {
	return own.Claims(noon, "spiffe://prod.example/ci/team/api", "orders").
		With("jti", "lease-2").With("scope", "read write").With("client_id", "workload").
		With("sallyport", map[string]any{"family": "lease-0", "ancestors": []string{"lease-0", "lease-1"}, "position": "1.42", "target": "orders"})
}

func signOwn(own *federationtest.Issuer, c federationtest.Claims) secret.Value {
	return own.Sign(c, header("typ", "at+jwt"))
}

func TestOwnTokenCarriesItsLineage(t *testing.T) {
	trust, own, _ := deployment(t)
	raw := signOwn(own, ownClaims(own))
	w, err := identify(t, trust, raw)
	if err != nil {
		t.Fatal(err)
	}
	if w.ID() != "spiffe://prod.example/ci/team/api" || w.TrustDomain() != "prod.example" || w.Issuer() != "ci" || len(w.Attributes()) != 0 {
		t.Errorf("workload %s of %s/%s with %v, want the sub taken apart and no attributes", w.ID(), w.TrustDomain(), w.Issuer(), w.Attributes())
	}
	want := federation.Lineage{
		Lease: "lease-2", Family: "lease-0", Ancestors: []string{"lease-0", "lease-1"}, Depth: 3,
		Target: "orders", Scopes: []string{"read", "write"}, Position: "1.42",
	}
	if got := w.Token().Lineage(); !reflect.DeepEqual(got, want) {
		t.Errorf("lineage %+v, want %+v", got, want)
	}
	again, claims, err := trust.VerifyOwn(t.Context(), raw, noon)
	if err != nil || !reflect.DeepEqual(again.Token(), w.Token()) {
		t.Errorf("VerifyOwn: %+v, %v; want what Identify says", again, err)
	}
	if client, _ := claims.Lookup("client_id"); client != "workload" {
		t.Errorf("VerifyOwn's client_id is %v, want workload", client)
	}
}

func TestOwnTokenIsRejected(t *testing.T) {
	trust, own, platform := deployment(t)
	good := ownClaims(own)
	for _, tc := range []struct {
		name string
		raw  secret.Value
		want error
	}{
		{"typ JWT", own.Sign(good), federation.ErrTokenType},
		{"typ absent", own.Sign(good, federationtest.WithoutHeader("typ")), federation.ErrTokenType},
		{"signed by a platform", own.Sign(good, federationtest.WithKey(platform.Key()), header("typ", "at+jwt")), federation.ErrSignature},
		{"sub of an issuer no longer trusted", signOwn(own, good.With("sub", "spiffe://prod.example/gone/api")), federation.ErrNaming},
		{"sub of a domain no longer trusted", signOwn(own, good.With("sub", "spiffe://gone.example/ci/api")), federation.ErrNaming},
		{"sub without path", signOwn(own, good.With("sub", "spiffe://prod.example/ci")), federation.ErrNaming},
		{"sub no id", signOwn(own, good.With("sub", "api")), federation.ErrNaming},
		{"sub with upper-case scheme", signOwn(own, good.With("sub", "SPIFFE://prod.example/ci/api")), federation.ErrNaming},
		{"sub escaping", signOwn(own, good.With("sub", "spiffe://prod.example/ci/../x")), federation.ErrNaming},
		{"no jti", signOwn(own, good.Without("jti")), federation.ErrClaims},
		{"no lineage", signOwn(own, good.Without("sallyport")), federation.ErrClaims},
		{"lineage null", signOwn(own, good.With("sallyport", nil)), federation.ErrClaims},
		{"lineage mistyped", signOwn(own, good.With("sallyport", "x")), federation.ErrClaims},
		{"no family", signOwn(own, good.With("sallyport", map[string]any{"target": "orders"})), federation.ErrClaims},
		{"scope mistyped", signOwn(own, good.With("scope", []string{"read"})), federation.ErrClaims},
		{"expired", signOwn(own, good.With("exp", noon.Unix())), federation.ErrExpired},
		{"two days long", signOwn(own, good.With("exp", noon.Add(48*time.Hour).Unix())), federation.ErrLifetime},
		{"no aud", signOwn(own, good.Without("aud")), federation.ErrClaims},
	} {
		_, err := identify(t, trust, tc.raw)
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
			continue
		}
		wantRejected(t, err, tc.want)
	}
}

// A deployment that was not told of its own tokens does not accept them.
func TestOwnTokenIsUntrustedWithoutOwn(t *testing.T) {
	_, own, platform := deployment(t)
	_, err := identify(t, newTrust(t, entry(platform)), signOwn(own, ownClaims(own)))
	wantRejected(t, err, federation.ErrUntrustedIssuer)
}

func TestVerifyOwnRejectsPlatformToken(t *testing.T) {
	trust, _, platform := deployment(t)
	_, claims, err := trust.VerifyOwn(t.Context(), platform.Sign(platform.Claims(noon, "api", audience)), noon)
	wantRejected(t, err, federation.ErrUntrustedIssuer)
	if !claims.IsZero() {
		t.Error("claims came with a refusal")
	}
}

// Our own tokens get no grace after exp, so no replica calls a token active that another calls dead.
func TestOwnTokenHasNoSkewAfterExpiry(t *testing.T) {
	trust, own, _ := deployment(t)
	raw := signOwn(own, ownClaims(own))
	exp := noon.Add(10 * time.Minute)
	if _, err := trust.Identify(t.Context(), raw, exp.Add(-time.Second)); err != nil {
		t.Errorf("a second before exp: %v", err)
	}
	_, err := trust.Identify(t.Context(), raw, exp)
	wantRejected(t, err, federation.ErrExpired)
}
