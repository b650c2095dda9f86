package federation_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

func TestIdentifyNamesWorkload(t *testing.T) {
	for _, alg := range []jose.SignatureAlgorithm{
		jose.RS256, jose.PS384, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, federation.Ed25519,
	} {
		iss := federationtest.NewNamed(t, "https://issuer.example", alg)
		raw := iss.Sign(iss.Claims(noon, "team/api", audience).With("team", "checkout"))
		w, err := identify(t, newTrust(t, entry(iss)), raw)
		if err != nil {
			t.Errorf("%s: Identify: %v", alg, err)
			continue
		}
		if got, want := w.ID(), "spiffe://prod.example/ci/team/api"; got != want {
			t.Errorf("%s: id %s, want %s", alg, got, want)
		}
		if v, _ := w.Attribute("team"); v.Any() != "checkout" {
			t.Errorf("%s: attribute team is %v, want checkout", alg, v.Any())
		}
		token := w.Token()
		if token.Issuer() != iss.URL() || token.Subject() != "team/api" || token.Algorithm() != string(alg) ||
			token.KeyID() != "key-1" || !token.IssuedAt().Equal(noon) || token.Expires().Sub(noon).Minutes() != 10 {
			t.Errorf("%s: token %+v does not say what was signed", alg, token)
		}
		if !token.Lineage().IsZero() {
			t.Errorf("%s: a platform token has lineage", alg)
		}
		if f, err := federation.FingerprintOf(raw); err != nil || f != token.Fingerprint() {
			t.Errorf("%s: FingerprintOf gives %v, %v; the token has %v", alg, f, err, token.Fingerprint())
		}
	}
}

// Attacks on the serialization: none of them reaches a key (RFC 7515 sections 3.1 and 7.1, RFC 8725).
func TestIdentifyRejectsMalformedSerialization(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	good := iss.Sign(iss.Claims(noon, "api", audience)).Reveal()
	part := strings.Split(good, ".")
	for name, raw := range map[string]string{
		"empty":                      "",
		"one part":                   part[0],
		"two parts":                  part[0] + "." + part[1],
		"four parts":                 good + "." + part[2],
		"five parts, a JWE":          good + ".AAAA.AAAA",
		"six parts":                  good + ".AAAA.AAAA.AAAA",
		"empty header":               "." + part[1] + "." + part[2],
		"empty payload":              part[0] + ".." + part[2],
		"empty signature":            part[0] + "." + part[1] + ".",
		"JSON serialization":         `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`,
		"leading space":              " " + good,
		"trailing newline":           good + "\n",
		"newline inside":             part[0] + "." + part[1][:20] + "\n" + part[1][20:] + "." + part[2],
		"carriage return inside":     part[0] + "." + part[1] + "\r." + part[2],
		"padding":                    part[0] + "=." + part[1] + "." + part[2],
		"standard alphabet":          part[0] + "." + part[1] + "." + "+/" + part[2][2:],
		"bits beyond last byte":      part[0] + "." + part[1] + "." + trailingBits(part[2]),
		"bits beyond header":         trailingBits(encode(`{"alg":"ES256","x":12}`)) + "." + part[1] + "." + part[2],
		"half a byte":                part[0] + "." + part[1] + "." + part[2] + "AAA",
		"NUL":                        part[0] + "\x00." + part[1] + "." + part[2],
		"too large":                  part[0] + "." + strings.Repeat("A", federation.MaxTokenSize) + "." + part[2],
		"huge header":                encode(`{"alg":"ES256","x":"`+strings.Repeat("x", 5000)+`"}`) + "." + part[1] + "." + part[2],
		"header is no JSON":          encode("x") + "." + part[1] + "." + part[2],
		"header is an array":         encode(`["alg"]`) + "." + part[1] + "." + part[2],
		"header is null":             encode(`null`) + "." + part[1] + "." + part[2],
		"header with trailing bytes": encode(`{"alg":"ES256"}{}`) + "." + part[1] + "." + part[2],
	} {
		w, err := identify(t, newTrust(t, entry(iss)), secret.New(raw))
		if err == nil || !w.IsZero() {
			t.Errorf("%s: identified %v, want a refusal", name, w.ID())
			continue
		}
		if r := wantRejected(t, err, federation.ErrMalformed); r.Verified {
			t.Errorf("%s: refusal says that the signature verified", name)
		}
	}
}

func TestTokenSizeIsBounded(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	sized := func(n int) secret.Value {
		claims := iss.Claims(noon, "api", audience).With("jti", "x")
		room := n - len(iss.Sign(claims.With("pad", "")).Reveal())
		return iss.Sign(claims.With("pad", strings.Repeat("p", room*3/4)))
	}
	trust := newTrust(t, entry(iss))
	if raw := sized(federation.MaxTokenSize - 8); raw.Len() < federation.MaxTokenSize-16 {
		t.Fatalf("token has %d bytes", raw.Len())
	} else if _, err := identify(t, trust, raw); err != nil {
		t.Errorf("token of %d bytes: %v", raw.Len(), err)
	}
	raw := sized(federation.MaxTokenSize + 8)
	_, err := identify(t, trust, raw)
	if wantRejected(t, err, federation.ErrMalformed); raw.Len() <= federation.MaxTokenSize {
		t.Errorf("token has %d bytes only", raw.Len())
	}
}

// What cannot be used is not recorded either: no key id of unbounded length or with control characters.
func TestRefusalHoldsNoUnfitKeyID(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	for _, kid := range []string{"a\nb", strings.Repeat("k", 257)} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, "api", audience), header("kid", kid)))
		if r := wantRejected(t, err, federation.ErrMalformed); r.KeyID != "" {
			t.Errorf("key id %q is recorded", r.KeyID)
		}
	}
	_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, "api", audience), header("kid", "unknown")))
	if r := wantRejected(t, err, federation.ErrSignature); r.KeyID != "unknown" {
		t.Errorf("key id is %q, want unknown", r.KeyID)
	}
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// trailingBits sets a bit that decodes to nothing, if the length leaves one.
func trailingBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(s)%4 == 0 {
		panic("no bits left over")
	}
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + alphabet[last|1:last|1+1]
}

// Header rules: RFC 7515 sections 4.1.2 to 4.1.11, RFC 8725 sections 3.10 and 3.11. Every token here is
// correctly signed.
func TestIdentifyRejectsHeader(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	own, _ := json.Marshal(iss.Key().Public())
	for _, tc := range []struct {
		name    string
		options []federationtest.Option
	}{
		{"crit with unknown name", []federationtest.Option{header("crit", []string{"exp2"}), header("exp2", 1)}},
		{"crit empty", []federationtest.Option{header("crit", []string{})}},
		{"crit with duplicate", []federationtest.Option{header("crit", []string{"x", "x"}), header("x", 1)}},
		{"crit with registered name", []federationtest.Option{header("crit", []string{"alg"})}},
		{"crit naming what is absent", []federationtest.Option{header("crit", []string{"b64"})}},
		{"crit not an array", []federationtest.Option{header("crit", "b64")}},
		{"crit null", []federationtest.Option{header("crit", nil)}},
		{"b64 false", []federationtest.Option{header("b64", false)}},
		{"b64 false and critical", []federationtest.Option{header("b64", false), header("crit", []string{"b64"})}},
		{"b64 true", []federationtest.Option{header("b64", true)}},
		{"jwk", []federationtest.Option{header("jwk", json.RawMessage(own))}},
		{"jku", []federationtest.Option{header("jku", "https://evil.example/jwks")}},
		{"x5u", []federationtest.Option{header("x5u", "https://evil.example/x5u")}},
		{"x5c", []federationtest.Option{header("x5c", []string{"AAAA"})}},
		{"cty JWT", []federationtest.Option{header("cty", "JWT")}},
		{"zip", []federationtest.Option{header("zip", "DEF")}},
		{"enc", []federationtest.Option{header("enc", "A128GCM")}},
		{"kid number", []federationtest.Option{header("kid", 1)}},
		{"kid null", []federationtest.Option{header("kid", nil)}},
		{"kid empty", []federationtest.Option{header("kid", "")}},
		{"kid too long", []federationtest.Option{header("kid", strings.Repeat("k", 257))}},
		{"kid with NUL", []federationtest.Option{header("kid", "key-1\x00")}},
		{"kid with newline", []federationtest.Option{header("kid", "key-1\n")}},
		{"alg absent", []federationtest.Option{federationtest.WithoutHeader("alg")}},
		{"alg number", []federationtest.Option{header("alg", 256)}},
		{"typ number", []federationtest.Option{header("typ", 1)}},
		{"typ null", []federationtest.Option{header("typ", nil)}},
		{"too deep", []federationtest.Option{header("x", json.RawMessage(strings.Repeat("[", 8)+strings.Repeat("]", 8)))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims, tc.options...))
			wantRejected(t, err, federation.ErrMalformed)
		})
	}
}

func header(name string, value any) federationtest.Option {
	return federationtest.WithHeader(name, value)
}

// Names in a header are compared with case and stand there once; go-jose and encoding/json would disagree
// with others about these.
func TestIdentifyRejectsAmbiguousHeader(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	payload, _ := json.Marshal(iss.Claims(noon, "api", audience))
	for name, h := range map[string]string{
		"alg twice":          `{"alg":"ES256","alg":"ES256","kid":"key-1"}`,
		"alg twice, escaped": `{"alg":"ES256","\u0061lg":"ES256","kid":"key-1"}`,
		"ALG instead":        `{"ALG":"ES256","kid":"key-1"}`,
		"invalid UTF-8":      "{\"alg\":\"ES256\",\"kid\":\"key-1\",\"x\":\"\xff\"}",
		"lone surrogate":     `{"alg":"ES256","kid":"key-1","x":"\ud800"}`,
		"NaN":                `{"alg":"ES256","kid":"key-1","x":NaN}`,
		"comment":            `{"alg":"ES256"/**/,"kid":"key-1"}`,
	} {
		raw := federationtest.SignRaw(t, iss.Key(), []byte(h), payload)
		if _, err := identify(t, newTrust(t, entry(iss)), raw); !errors.Is(err, federation.ErrMalformed) {
			t.Errorf("%s: got %v, want malformed", name, err)
		}
	}
	// Unknown members are ignored (RFC 7515 section 4), x5t as Microsoft's issuers send it among them.
	raw := federationtest.SignRaw(t, iss.Key(), []byte(`{"alg":"ES256","kid":"key-1","x5t":"abc","Typ":"x"}`), payload)
	if _, err := identify(t, newTrust(t, entry(iss)), raw); err != nil {
		t.Errorf("unknown header members: %v, want them ignored", err)
	}
}

func TestIdentifyFetchesNothingThatHeadersName(t *testing.T) {
	var asked atomic.Int32
	listener := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer listener.Close()
	iss := federationtest.New(t)
	trust := newTrust(t, entry(iss))
	for _, member := range []string{"jku", "x5u"} {
		_, err := identify(t, trust, iss.Sign(iss.Claims(noon, "api", audience), header(member, listener.URL)))
		wantRejected(t, err, federation.ErrMalformed)
	}
	foreign := iss.Claims(noon, "api", audience).With("iss", listener.URL)
	_, err := identify(t, trust, iss.Sign(foreign))
	wantRejected(t, err, federation.ErrUntrustedIssuer)
	if n := asked.Load(); n != 0 {
		t.Errorf("the token's addresses were asked %d times, want never", n)
	}
}

// The algorithm comes from the issuer's list, never from the header alone (RFC 8725 sections 3.1 and 3.2).
func TestIdentifyRejectsAlgorithm(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	rsa := federationtest.NewKey(t, "key-1", jose.RS256)
	claims := iss.Claims(noon, "api", audience)
	for _, alg := range []string{"none", "None", "noNE", "NONE", "HS256", "HS384", "HS512", "RS256", "ES384", "es256", "ES256 ", "EdDSA", "Ed25519"} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims, header("alg", alg)))
		wantRejected(t, err, federation.ErrAlgorithm)
		_, err = identify(t, newTrust(t, entry(iss)), iss.Sign(claims, federationtest.WithKey(rsa), header("alg", alg)))
		wantRejected(t, err, federation.ErrAlgorithm)
	}
}

func TestIdentifyRejectsPublicKeyUsedAsSharedSecret(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.RS256)
	payload, _ := json.Marshal(iss.Claims(noon, "api", audience))
	der, err := x509.MarshalPKIXPublicKey(iss.Key().Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk, _ := json.Marshal(iss.Key().Public())
	for name, key := range map[string][]byte{
		"DER": der, "JWK": jwk, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "JWKS": iss.JWKS(),
	} {
		raw := federationtest.HMAC(t, key, []byte(`{"alg":"HS256","kid":"key-1"}`), payload)
		if _, err := identify(t, newTrust(t, entry(iss)), raw); !errors.Is(err, federation.ErrAlgorithm) {
			t.Errorf("%s as HS256 secret: got %v, want the algorithm refused", name, err)
		}
	}
}

func TestIdentifyAcceptsEdDSAOnlyWhereListed(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", federation.Ed25519)
	raw := iss.Sign(iss.Claims(noon, "api", audience), header("alg", "EdDSA"))
	_, err := identify(t, newTrust(t, entry(iss)), raw)
	wantRejected(t, err, federation.ErrAlgorithm)
}

func TestIdentifyRejectsSignature(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	other := federationtest.NewKey(t, "key-1", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	good := iss.Sign(claims).Reveal()
	dot := strings.LastIndexByte(good, '.')
	signature, _ := base64.RawURLEncoding.DecodeString(good[dot+1:])
	tampered := iss.Sign(claims.With("sub", "admin")).Reveal()
	flip := append([]byte(nil), signature...)
	flip[10] ^= 1
	for name, raw := range map[string]string{
		"another key under the same kid": iss.Sign(claims, federationtest.WithKey(other)).Reveal(),
		"unknown kid":                    iss.Sign(claims, header("kid", "../../etc/passwd")).Reveal(),
		"SQL in kid":                     iss.Sign(claims, header("kid", "' OR 1=1 --")).Reveal(),
		"one bit flipped":                good[:dot+1] + base64.RawURLEncoding.EncodeToString(flip),
		"one byte short":                 good[:dot+1] + base64.RawURLEncoding.EncodeToString(signature[:63]),
		"one byte long":                  good[:dot+1] + base64.RawURLEncoding.EncodeToString(append(signature, 0)),
		"all zero":                       good[:dot+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"signature of another token":     tampered[:strings.LastIndexByte(tampered, '.')+1] + good[dot+1:],
	} {
		_, err := identify(t, newTrust(t, entry(iss)), secret.New(raw))
		r := wantRejected(t, err, federation.ErrSignature)
		if r.Verified || r.TrustDomain != "prod.example" || r.Issuer != "ci" || r.Fingerprint == (federation.Fingerprint{}) {
			t.Errorf("%s: refusal %+v, want it unverified, with issuer and fingerprint", name, r)
		}
	}
}

func TestFingerprintIgnoresSignature(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	payload, _ := json.Marshal(iss.Claims(noon, "api", audience))
	h := []byte(`{"alg":"ES256","kid":"key-1"}`)
	one, err := federation.FingerprintOf(federationtest.SignRaw(t, iss.Key(), h, payload))
	if err != nil {
		t.Fatal(err)
	}
	two, err := federation.FingerprintOf(federationtest.SignRaw(t, iss.Key(), h, payload))
	if err != nil || one != two {
		t.Errorf("two signatures of one token have fingerprints %v and %v (%v), want the same", one, two, err)
	}
}

func TestTypeIsComparedAsMediaType(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	without := federationtest.WithoutHeader("typ")
	for _, tc := range []struct {
		types  []string
		option federationtest.Option
		ok     bool
	}{
		{nil, without, true},
		{nil, header("typ", "JWT"), true},
		{nil, header("typ", "jwt"), true},
		{nil, header("typ", "application/JWT"), true},
		{nil, header("typ", "Application/jwt"), true},
		{nil, header("typ", ""), false},
		{nil, header("typ", "application/x/jwt"), false},
		{nil, header("typ", "at+jwt"), false},
		{nil, header("typ", "application/at+jwt"), false},
		{nil, header("typ", "dpop+jwt"), false},
		{nil, header("typ", "wpt+jwt"), false},
		{nil, header("typ", "secevent+jwt"), false},
		{nil, header("typ", "statuslist+jwt"), false},
		{nil, header("typ", "logout+jwt"), false},
		{nil, header("typ", "token-introspection+jwt"), false},
		{nil, header("typ", "txntoken+jwt"), false},
		{nil, header("typ", "JOSE"), false},
		{[]string{"JWT", "JOSE"}, header("typ", "jose"), true},
		{[]string{"JWT", "JOSE"}, without, false},
		{[]string{"", "JOSE"}, without, true},
		{[]string{"", "JOSE"}, header("typ", "JWT"), false},
		{[]string{"application/at+jwt"}, header("typ", "AT+JWT"), true},
	} {
		e := entry(iss)
		e.Types = tc.types
		_, err := identify(t, newTrust(t, e), iss.Sign(claims, tc.option))
		if tc.ok {
			if err != nil {
				t.Errorf("types %q: %v, want it accepted", tc.types, err)
			}
			continue
		}
		if r := wantRejected(t, err, federation.ErrTokenType); !r.Verified {
			t.Errorf("types %q: refused before the signature was checked", tc.types)
		}
	}
}
