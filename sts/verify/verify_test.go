package verify_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/verify"
)

// sentinels are all errors that Verify may wrap.
var sentinels = []error{
	verify.ErrMalformed, verify.ErrType, verify.ErrIssuer, verify.ErrAlgorithm, verify.ErrSignature, verify.ErrAudience,
	verify.ErrExpired, verify.ErrNotYetValid, verify.ErrClaims, verify.ErrInactive, verify.ErrUnavailable,
}

// wantRefused checks that a token is refused for one reason and no other, without a word of the token in the error,
// and that nothing of it is handed out.
func wantRefused(t *testing.T, v *verify.Verifier, what, raw string, want error) {
	t.Helper()
	got, err := v.Verify(t.Context(), raw)
	for _, s := range sentinels {
		if errors.Is(err, s) != errors.Is(s, want) {
			t.Errorf("%s: got %v, want %v alone", what, err, want)
		}
	}
	if err == nil || !got.IsZero() || got.Subject() != "" || got.HasScope("read") {
		t.Errorf("%s: got the token %+v beside the error %v", what, got, err)
		return
	}
	for _, part := range strings.FieldsFunc(raw, func(r rune) bool { return r == '.' }) {
		if len(part) > 8 && strings.Contains(err.Error(), part) {
			t.Errorf("%s: the error holds a part of the token: %v", what, err)
		}
	}
}

func TestMintedTokenPassesAndSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	raw := d.mint(t, "checkout", "orders")
	got, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("a token that was just minted: %v", err)
	}
	claims := claimsOf(t, raw)
	if got.Subject() != "spiffe://prod.example/cluster/checkout" || got.Lease() != claims["jti"] || got.Family() != got.Lease() || got.Actors() != nil {
		t.Errorf("subject %s, lease %s, family %s, actors %v", got.Subject(), got.Lease(), got.Family(), got.Actors())
	}
	if !slices.Equal(got.Scopes(), []string{"read", "write"}) || !got.HasScope("write") || got.HasScope("rea") || got.HasScope("read write") || got.HasScope("") {
		t.Errorf("scopes %v", got.Scopes())
	}
	if !slices.Equal(got.Audiences(), []string{orders}) || float64(got.Expires().Unix()) != claims["exp"] || got.IsZero() {
		t.Errorf("audiences %v, expires %s", got.Audiences(), got.Expires())
	}
	for range 3 {
		if again, err := v.Verify(t.Context(), raw); err != nil || again.Lease() != got.Lease() || len(again.Scopes()) != 2 {
			t.Errorf("the same token again: %+v, %v", again, err)
		}
	}
	if n := d.count("/jwks"); n != 1 {
		t.Errorf("the keys were fetched %d times for one token", n)
	}
	if d.count("/introspect") != 0 {
		t.Error("the deployment was asked about a token although nobody said so")
	}
}

// What is handed out is the caller's own: changing it changes nobody's token.
func TestTokenCannotBeChangedThroughWhatItReturns(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	raw := d.acted(t, "checkout", "gateway", "orders")
	first, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	first.Scopes()[0], first.Audiences()[0], first.Actors()[0] = "admin", "x", "x"
	for name, token := range map[string]func() (verify.Token, error){
		"the same":   func() (verify.Token, error) { return first, nil },
		"once again": func() (verify.Token, error) { return v.Verify(t.Context(), raw) },
	} {
		got, err := token()
		if err != nil || got.HasScope("admin") || !slices.Equal(got.Scopes(), []string{"read"}) || got.Audiences()[0] != orders || got.Actors()[0] != gateway {
			t.Errorf("%s: %v %v %v, %v", name, got.Scopes(), got.Audiences(), got.Actors(), err)
		}
	}
}

func TestTokenNamesWhoActsForTheSubject(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	raw := d.acted(t, "checkout", "gateway", "orders")
	got, err := v.Verify(t.Context(), raw)
	if err != nil || got.Subject() != "spiffe://prod.example/cluster/checkout" || !slices.Equal(got.Actors(), []string{gateway}) {
		t.Errorf("subject %s, actors %v, %v", got.Subject(), got.Actors(), err)
	}
	claims := claimsOf(t, raw)
	claims["act"] = map[string]any{"iss": d.issuer, "sub": "spiffe://prod.example/cluster/b", "act": map[string]any{"iss": d.issuer, "sub": "spiffe://prod.example/cluster/a"}}
	got, err = v.Verify(t.Context(), d.sign(t, "at+jwt", claims))
	if want := []string{"spiffe://prod.example/cluster/b", "spiffe://prod.example/cluster/a"}; err != nil || !slices.Equal(got.Actors(), want) {
		t.Errorf("actors %v, %v; want the current one first: %v", got.Actors(), err, want)
	}
	for name, act := range map[string]any{
		"another issuer's word":         map[string]any{"iss": "https://other.example", "sub": gateway},
		"nobody's word":                 map[string]any{"sub": gateway},
		"no name":                       map[string]any{"iss": d.issuer},
		"another's word further inside": map[string]any{"iss": d.issuer, "sub": gateway, "act": map[string]any{"iss": "https://other.example", "sub": "a"}},
		"a string":                      gateway,
	} {
		claims["act"] = act
		wantRefused(t, v, "an actor by "+name, d.sign(t, "at+jwt", claims), verify.ErrClaims)
	}
}

// RFC 9068 section 2.2: each required claim left out of a token that the deployment's own key signed. // standards 2.12
func TestVerifierRefusesTokenWithoutARequiredClaim(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	good := claimsOf(t, d.mint(t, "checkout", "orders"))
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "sallyport"} {
		claims := maps.Clone(good)
		delete(claims, name)
		wantRefused(t, v, "without "+name, d.sign(t, "at+jwt", claims), verify.ErrClaims)
	}
	for name, value := range map[string]any{
		"scope": []string{"read"}, "client_id": "", "jti": 7, "iat": "yesterday", "exp": "tomorrow", "sub": "", "aud": []string{}, "sallyport": map[string]any{"family": ""},
		"cnf": map[string]any{"jkt": "a-thumbprint"},
	} {
		claims := maps.Clone(good)
		claims[name] = value
		wantRefused(t, v, name+" as it may not be", d.sign(t, "at+jwt", claims), verify.ErrClaims)
	}
	if _, err := v.Verify(t.Context(), d.sign(t, "at+jwt", good)); err != nil {
		t.Errorf("the claims as they were: %v", err)
	}
}

func TestVerifierRefusesTokenForAnotherAudience(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	wantRefused(t, v, "a token for billing", d.mint(t, "checkout", "billing"), verify.ErrAudience)
	claims := claimsOf(t, d.mint(t, "checkout", "orders"))
	for _, aud := range []any{strings.TrimSuffix(orders, "/"), strings.ToUpper(orders), orders + "x", []string{"orders", "billing"}} {
		claims["aud"] = aud
		wantRefused(t, v, "a token for something like orders", d.sign(t, "at+jwt", claims), verify.ErrAudience)
	}
	claims["aud"] = []string{"billing", orders} // RFC 9068 section 4: it contains ours
	if got, err := v.Verify(t.Context(), d.sign(t, "at+jwt", claims)); err != nil || len(got.Audiences()) != 2 {
		t.Errorf("a token for two audiences, ours among them: %v, %v", got.Audiences(), err)
	}
}

func TestVerifierRefusesTokenOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	other := deploy(t)
	v := newVerifier(t, d.config())
	wantRefused(t, v, "another deployment's token", other.mint(t, "checkout", "orders"), verify.ErrIssuer)
	claims := claimsOf(t, d.mint(t, "checkout", "orders"))
	for _, iss := range []string{d.issuer + "/", strings.ToUpper(d.issuer), d.issuer + "/.", "https://other.example"} {
		claims["iss"] = iss
		wantRefused(t, v, "iss "+iss, d.sign(t, "at+jwt", claims), verify.ErrIssuer)
	}
	claims["iss"] = d.issuer
	wantRefused(t, v, "another deployment's key", other.sign(t, "at+jwt", claims), verify.ErrSignature)
	identity, err := d.identity("checkout")
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, v, "the platform's token", identity, verify.ErrIssuer)
	if n := other.count("/jwks") + other.count("/.well-known/openid-configuration"); n != 0 {
		t.Errorf("the other issuer was asked %d times", n)
	}
}

// The second issuer signs for those whom Sallyport itself calls. Nothing it signs is a token for a resource server.
func TestVerifierRefusesAssertionsOfTheSecondIssuer(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	claims := claimsOf(t, d.mint(t, "checkout", "orders"))
	for issuer, want := range map[string]error{d.issuer + brokers.AssertionsPath: verify.ErrIssuer, d.issuer: verify.ErrSignature} {
		claims["iss"] = issuer
		token, err := d.keys.Assertions().Sign(t.Context(), keys.Header{Type: "JWT"}, claims)
		if err != nil {
			t.Fatal(err)
		}
		wantRefused(t, v, "an assertion that says it is of "+issuer, token, want)
	}
}

// RFC 9068 section 4: typ keeps access tokens apart from everything else that is signed. // standards 2.16, 2.23
func TestVerifierRefusesTokenOfAnotherType(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	wantRefused(t, v, "typ JWT", d.sign(t, "JWT", claimsOf(t, d.mint(t, "checkout", "orders"))), verify.ErrType)
	c := d.config()
	c.Audience = "legacy"
	wantRefused(t, newVerifier(t, c), "a token of a target with typ JWT", d.mint(t, "checkout", "legacy"), verify.ErrType)

	iss, v := standIn(t, jose.ES256)
	claims := tokenClaims(iss)
	for _, typ := range []any{"JWT", "at", "jwt+at", "x/at+jwt", "application/at+jwt; v=1", "dpop+jwt", "logout+jwt", ""} {
		wantRefused(t, v, "another typ", iss.Sign(claims, federationtest.WithHeader("typ", typ)).Reveal(), verify.ErrType)
	}
	wantRefused(t, v, "no typ", iss.Sign(claims, federationtest.WithoutHeader("typ")).Reveal(), verify.ErrType)
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"} {
		if _, err := v.Verify(t.Context(), iss.Sign(claims, federationtest.WithHeader("typ", typ)).Reveal()); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
}

// standIn is an issuer whose private keys the test has, for tokens that no Sallyport signs, and a verifier for it.
func standIn(t *testing.T, alg jose.SignatureAlgorithm, more ...func(*verify.Config)) (*federationtest.Issuer, *verify.Verifier) {
	t.Helper()
	iss := federationtest.NewAlgorithm(t, alg)
	c := verify.Config{Issuer: iss.URL(), Audience: orders, Algorithms: []string{string(alg)}}
	for _, m := range more {
		m(&c)
	}
	return iss, newVerifier(t, c)
}

// tokenClaims are those of a good token.
func tokenClaims(iss *federationtest.Issuer) federationtest.Claims {
	return iss.Claims(time.Now(), "spiffe://prod.example/cluster/checkout", orders).
		With("client_id", brokers.ClientID).With("scope", "read").With("sallyport", map[string]any{"family": "a-family"})
}

var atJWT = federationtest.WithHeader("typ", "at+jwt")

// The public key is no shared secret, none is no signature, and a key verifies by its own algorithm alone
// (RFC 8725 sections 2.1 and 3.1). // standards 2.18, 2.19, 2.20
func TestVerifierIsNotConfusedAboutAlgorithms(t *testing.T) {
	t.Parallel()
	iss, v := standIn(t, jose.RS256, func(c *verify.Config) { c.Algorithms = []string{"RS256", "PS256", "ES256"} })
	claims := tokenClaims(iss)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), iss.Sign(claims, atJWT).Reveal()); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	der, err := x509.MarshalPKIXPublicKey(iss.Key().Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(iss.Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "JWK": jwk, "JWKS": iss.JWKS(), "nothing": nil,
	} {
		raw := federationtest.HMAC(t, key, []byte(`{"alg":"HS256","typ":"at+jwt","kid":"key-1"}`), payload).Reveal()
		wantRefused(t, v, "HS256 with the public key as "+name, raw, verify.ErrAlgorithm)
	}
	for _, alg := range []string{"none", "None", "NONE", "rs256", "RS256 ", "HS256", "ES384"} {
		wantRefused(t, v, "alg "+alg, iss.Sign(claims, atJWT, federationtest.WithHeader("alg", alg)).Reveal(), verify.ErrAlgorithm)
	}
	good := iss.Sign(claims, atJWT, federationtest.WithHeader("alg", "none")).Reveal()
	wantRefused(t, v, "none without a signature", good[:strings.LastIndexByte(good, '.')+1], verify.ErrMalformed)
	pss := iss.Key()
	pss.Algorithm = jose.PS256
	wantRefused(t, v, "PS256 by a key that is bound to RS256", iss.Sign(claims, atJWT, federationtest.WithKey(pss)).Reveal(), verify.ErrAlgorithm)
	ec := federationtest.NewKey(t, "key-1", jose.ES256)
	wantRefused(t, v, "ES256 by a key of one's own under the name of an RSA key", iss.Sign(claims, atJWT, federationtest.WithKey(ec)).Reveal(), verify.ErrAlgorithm)
	_, narrow := standIn(t, jose.RS256)
	wantRefused(t, narrow, "an algorithm that is not listed", iss.Sign(claims, atJWT, federationtest.WithKey(pss)).Reveal(), verify.ErrIssuer)

	d := deploy(t, jose.RS256)
	c := d.config()
	c.Audience, c.Algorithms = "billing", []string{"ES256"}
	wantRefused(t, newVerifier(t, c), "the deployment's RS256, where ES256 alone is listed", d.mint(t, "checkout", "billing"), verify.ErrAlgorithm)
	c.Algorithms = []string{"RS256"}
	if _, err := newVerifier(t, c).Verify(t.Context(), d.mint(t, "checkout", "billing")); err != nil {
		t.Errorf("the deployment's RS256: %v", err)
	}
}

// A kid is a name to look up among published keys, and a header brings no keys. // standards 2.24, 2.25, 2.26
func TestVerifierTakesNoKeyFromTheHeader(t *testing.T) {
	t.Parallel()
	iss, v := standIn(t, jose.ES256)
	claims := tokenClaims(iss)
	mine := federationtest.NewKey(t, "mine", jose.ES256)
	public := mine.Public()
	asked := make(chan string, 8)
	away := listener(t, asked)
	for name, options := range map[string][]federationtest.Option{
		"jwk":  {federationtest.WithKey(mine), federationtest.WithHeader("jwk", public)},
		"jku":  {federationtest.WithKey(mine), federationtest.WithHeader("jku", away)},
		"x5u":  {federationtest.WithKey(mine), federationtest.WithHeader("x5u", away)},
		"x5c":  {federationtest.WithKey(mine), federationtest.WithHeader("x5c", []string{"AAAA"})},
		"crit": {federationtest.WithHeader("crit", []string{"exp"})},
	} {
		wantRefused(t, v, name, iss.Sign(claims, append(options, atJWT)...).Reveal(), verify.ErrMalformed)
	}
	for _, kid := range []string{"key-2", "../../dev/null", "' OR 1=1 --", away, "KEY-1"} {
		wantRefused(t, v, "kid "+kid, iss.Sign(claims, atJWT, federationtest.WithHeader("kid", kid)).Reveal(), verify.ErrSignature)
	}
	for _, kid := range []any{7, nil, []string{"key-1"}, "", strings.Repeat("k", 300), "key-1\x00"} {
		wantRefused(t, v, "a kid that is none", iss.Sign(claims, atJWT, federationtest.WithHeader("kid", kid)).Reveal(), verify.ErrMalformed)
	}
	wantRefused(t, v, "another key under a published kid", iss.Sign(claims, atJWT, federationtest.WithKey(federationtest.NewKey(t, "key-1", jose.ES256))).Reveal(), verify.ErrSignature)
	select {
	case path := <-asked:
		t.Errorf("a header made the verifier ask for %s", path)
	default:
	}
	d := deploy(t)
	good := d.mint(t, "checkout", "orders")
	dv := newVerifier(t, d.config())
	first := good[:strings.LastIndexByte(good, '.')]
	wantRefused(t, dv, "the signature of another token", first+d.mint(t, "checkout", "orders")[strings.LastIndexByte(good, '.'):], verify.ErrSignature)
	for name, raw := range map[string]string{"empty": "", "two parts": first, "a blank": good + " ", "five parts": good + ".a.b", "huge": strings.Repeat("a", 17<<10) + ".a.a"} {
		wantRefused(t, dv, name, raw, verify.ErrMalformed)
	}
}

// listener says who asks it.
func listener(t *testing.T, asked chan<- string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		w.WriteHeader(http.StatusNotFound)
	})
}

// The verifier's clock may be wrong by the skew, in either direction, and not by a second more. // standards 2.32
func TestVerifierHoldsTokensToTheirTimes(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, time.Second, 2 * time.Minute} {
		d := deploy(t)
		c := d.config()
		c.Skew = skew
		v := newVerifier(t, c)
		allowed := skew
		if skew == 0 {
			allowed = verify.DefaultSkew
		}
		raw := d.mint(t, "checkout", "orders")
		got, err := v.Verify(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		d.clock.nanos.Store(got.Expires().Add(allowed - 1).UnixNano())
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Errorf("skew %s, the last instant: %v", skew, err)
		}
		d.clock.advance(1)
		wantRefused(t, v, "an expired token that was good a moment ago", raw, verify.ErrExpired)
		wantRefused(t, newVerifier(t, c), "an expired token", raw, verify.ErrExpired)

		claims := claimsOf(t, d.mint(t, "checkout", "orders"))
		now := d.clock.now().Truncate(time.Second).Unix()
		for _, name := range []string{"nbf", "iat"} {
			early := maps.Clone(claims)
			early["exp"] = now + 600
			early[name] = now + int64(allowed/time.Second) + 2
			wantRefused(t, v, name+" in the future", d.sign(t, "at+jwt", early), verify.ErrNotYetValid)
			early[name] = now + int64(allowed/time.Second) - 1
			if _, err := v.Verify(t.Context(), d.sign(t, "at+jwt", early)); err != nil {
				t.Errorf("%s within the skew %s: %v", name, skew, err)
			}
		}
	}
}

// A verifier that could be made for anything would check nothing.
func TestConfigThatWouldBeUnsafeMakesNoVerifier(t *testing.T) {
	t.Parallel()
	good := verify.Config{Issuer: "https://sts.example", Audience: orders, Algorithms: []string{"ES256"}}
	if _, err := verify.New(good); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		want   string
		change func(*verify.Config)
	}{
		{"issuer is not a URL", func(c *verify.Config) { c.Issuer = "" }},
		{"issuer is not https", func(c *verify.Config) { c.Issuer = "http://sts.example" }},
		{"issuer is not https", func(c *verify.Config) { c.Issuer = "http://127.0.0.1.sts.example" }},
		{"issuer is not https", func(c *verify.Config) { c.Issuer = "ftp://localhost" }},
		{"issuer ends in a slash", func(c *verify.Config) { c.Issuer = "https://sts.example/" }},
		{"issuer has a query", func(c *verify.Config) { c.Issuer = "https://sts.example?a=b" }},
		{"address has user information", func(c *verify.Config) { c.Issuer = "https://a:b@sts.example" }},
		{"audience has an empty", func(c *verify.Config) { c.Audience = "" }},
		{"no algorithms are listed", func(c *verify.Config) { c.Algorithms = nil }},
		{"algorithms lists none", func(c *verify.Config) { c.Algorithms = []string{"none"} }},
		{"algorithms lists HS256", func(c *verify.Config) { c.Algorithms = []string{"ES256", "HS256"} }},
		{"skew is 2m0.000000001s", func(c *verify.Config) { c.Skew = verify.MaxSkew + 1 }},
		{"skew is -1ns", func(c *verify.Config) { c.Skew = -1 }},
		{"reading certificate authorities", func(c *verify.Config) { c.CAFile = filepath.Join(t.TempDir(), "missing.pem") }},
		{"introspection has no Bearer", func(c *verify.Config) { c.Introspect = &verify.Introspection{} }},
		{"answers is 1m0.000000001s, allowed are 0 to", func(c *verify.Config) {
			c.Introspect = verify.Introspect(nobody)
			c.Introspect.MaxAge = time.Minute + 1
		}},
		{"answers is -1ns", func(c *verify.Config) { c.Introspect = verify.Introspect(nobody); c.Introspect.MaxAge = -1 }},
	} {
		c := good
		tc.change(&c)
		if v, err := verify.New(c); err == nil || v != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want an error with: %s", err, tc.want)
		}
	}
	for _, issuer := range []string{"http://127.0.0.1:8443", "http://localhost:8443/sts", "http://[::1]"} {
		c := good
		c.Issuer = issuer
		if _, err := verify.New(c); err != nil {
			t.Errorf("%s: %v", issuer, err)
		}
	}
}

// Keys and answers come over TLS from whoever has the right certificate.
func TestIssuerProvesItselfByItsCertificate(t *testing.T) {
	t.Parallel()
	d, err := start(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.Close)
	raw := d.mint(t, "checkout", "orders")
	c := d.asking(t, 0)
	if _, err := newVerifier(t, c).Verify(t.Context(), raw); err != nil {
		t.Errorf("with the certificate authority: %v", err)
	}
	c.CAFile = ""
	_, err = newVerifier(t, c).Verify(t.Context(), raw)
	if !errors.Is(err, verify.ErrUnavailable) || !strings.HasSuffix(err.Error(), "server certificate does not verify") {
		t.Errorf("without: %v", err)
	}
}

// A private address is not dialled, unless configuration says so.
func TestPrivateIssuerIsNotAskedUnlessAllowed(t *testing.T) {
	t.Parallel()
	iss := federationtest.NewNamed(t, "https://10.255.255.1", jose.ES256)
	v := newVerifier(t, verify.Config{Issuer: iss.URL(), Audience: orders, Algorithms: []string{"ES256"}})
	_, err := v.Verify(t.Context(), iss.Sign(tokenClaims(iss), atJWT).Reveal())
	if !errors.Is(err, verify.ErrUnavailable) || !strings.HasSuffix(err.Error(), "address is not public") {
		t.Errorf("got %v, want the address refused", err)
	}
}

// Whatever door one refuses for has a name here.
func TestEveryRefusalOfDoorOneHasAReason(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../../federation/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\t(Err\w+) += errors\.New`).FindAllStringSubmatch(string(source), -1)
	if len(names) < 10 {
		t.Fatalf("%d errors were found; the test looks at nothing", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(table), "{federation."+name[1]+", Err") {
			t.Errorf("federation.%s has no row", name[1])
		}
	}
	_ = federation.ErrMalformed // the file that was read is of this package
}
