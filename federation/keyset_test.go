package federation_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// inline returns a trust of an issuer whose keys are doc, and the state of the key source.
func inline(t *testing.T, doc []byte, algs ...jose.SignatureAlgorithm) (*federation.Trust, federation.KeyStatus) {
	t.Helper()
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	t.Cleanup(cache.Close)
	keys, err := cache.Source(federation.KeySpec{Issuer: "https://issuer.example", Inline: doc, Algorithms: algs})
	if err != nil {
		t.Fatalf("Source: %v", err)
	}
	return newTrust(t, federation.Issuer{
		TrustDomain: "prod.example", Name: "ci", URL: "https://issuer.example", Audiences: []string{audience},
		Algorithms: algs, Keys: keys, Adapter: bySubject{},
	}), cache.Status()[0]
}

// change returns a published key with members replaced; a nil value removes one.
func change(t *testing.T, k federationtest.Key, members map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for name, v := range members {
		if v == nil {
			delete(m, name)
			continue
		}
		m[name] = v
	}
	return m
}

func keySetOf(t *testing.T, keys ...any) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A key that must not be used is dropped, and it alone (standards 4.12, RFC 7517 sections 4 and 5).
func TestUnusableKeyIsDroppedAlone(t *testing.T) {
	good := federationtest.NewKey(t, "good", jose.ES256)
	ec := federationtest.NewKey(t, "bad", jose.ES256)
	p384 := federationtest.NewKey(t, "bad", jose.ES384)
	rsaKey := federationtest.NewKey(t, "bad", jose.RS256)
	ed := federationtest.NewKey(t, "bad", federation.Ed25519)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKey := federationtest.Key{ID: "bad", Algorithm: jose.RS256, Signer: weak}
	n := rsaKey.Signer.Public().(*rsa.PublicKey).N
	for name, bad := range map[string]any{
		"private EC":          change(t, ec, map[string]any{"d": "AAAA"}),
		"private RSA":         change(t, rsaKey, map[string]any{"p": "AAAA"}),
		"null private member": json.RawMessage(strings.Replace(string(mustJSON(t, ec.Public())), "{", `{"d":null,`, 1)),
		"symmetric":           map[string]any{"kty": "oct", "kid": "bad", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "alg": "HS256"},
		"for encryption":      change(t, ec, map[string]any{"use": "enc"}),
		"for X.509 SVIDs":     change(t, ec, map[string]any{"use": "x509-svid"}),
		"use in upper case":   change(t, ec, map[string]any{"use": "SIG"}),
		"key_ops sign":        change(t, ec, map[string]any{"key_ops": []string{"sign"}}),
		"key_ops empty":       change(t, ec, map[string]any{"key_ops": []string{}}),
		"unknown kty":         change(t, ec, map[string]any{"kty": "XYZ"}),
		"no kty":              change(t, ec, map[string]any{"kty": nil}),
		"unknown curve":       change(t, ec, map[string]any{"crv": "secp256k1"}),
		"wrong curve":         change(t, ec, map[string]any{"crv": "P-384", "alg": "ES384"}),
		"point not on curve":  change(t, ec, map[string]any{"y": change(t, good, nil)["y"]}),
		"coordinate missing":  change(t, ec, map[string]any{"x": nil}),
		"1024 bits":           weakKey.Public(),
		"16384 bits":          change(t, rsaKey, map[string]any{"n": base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 2048))}),
		"8193 bits":           change(t, rsaKey, map[string]any{"n": base64.RawURLEncoding.EncodeToString(append([]byte{1}, bytes.Repeat([]byte{0xff}, 1024)...))}),
		"modulus missing":     change(t, rsaKey, map[string]any{"n": nil}),
		"modulus no base64":   change(t, rsaKey, map[string]any{"n": "?"}),
		"exponent missing":    change(t, rsaKey, map[string]any{"e": nil}),
		"exponent no base64":  change(t, rsaKey, map[string]any{"e": "?"}),
		"exponent 2^32+1":     change(t, rsaKey, map[string]any{"e": "AQAAAAE"}),
		"exponent 2^64+65537": change(t, rsaKey, map[string]any{"e": "AQAAAAAAAQAB"}),
		"exponent 2^31+1":     change(t, rsaKey, map[string]any{"e": "gAAAAQ"}),
		"8320 bits":           change(t, rsaKey, map[string]any{"n": base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 1040))}),
		"even modulus":        change(t, rsaKey, map[string]any{"n": base64.RawURLEncoding.EncodeToString(new(big.Int).Sub(n, big.NewInt(1)).Bytes())}),
		"exponent one":        change(t, rsaKey, map[string]any{"e": "AQ"}),
		"exponent even":       change(t, rsaKey, map[string]any{"e": "AQAA"}),
		"exponent huge":       change(t, rsaKey, map[string]any{"e": "AQAAAAAB"}),
		"Ed25519 too short":   change(t, ed, map[string]any{"x": "AAAA"}),
		"Ed25519 low order":   change(t, ed, map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}),
		"X25519":              change(t, ed, map[string]any{"crv": "X25519"}),
		"alg not listed":      p384.Public(),
		"alg for encryption":  change(t, rsaKey, map[string]any{"alg": "RSA-OAEP"}),
		"alg of another type": change(t, ec, map[string]any{"alg": "RS256"}),
		"alg HS256":           change(t, ec, map[string]any{"alg": "HS256"}),
		"kid too long":        change(t, ec, map[string]any{"kid": strings.Repeat("k", 257)}),
		"kid number":          change(t, ec, map[string]any{"kid": 1}),
		"a string":            "key",
		"null":                json.RawMessage("null"),
	} {
		trust, status := inline(t, keySetOf(t, bad, good.Public()), jose.ES256, jose.RS256, federation.Ed25519)
		if status.Keys != 1 || status.Dropped != 1 {
			t.Errorf("%s: %d keys usable and %d dropped, want 1 and 1", name, status.Keys, status.Dropped)
		}
		iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
		if _, err := identify(t, trust, iss.Sign(iss.Claims(noon, "api", audience), federationtest.WithKey(good))); err != nil {
			t.Errorf("%s: the good key beside it: %v", name, err)
		}
	}
}

// 4,096 and 8,192 bits are fine; go-jose alone would stop at 4,096.
func TestLargeKeysAreUsable(t *testing.T) {
	k := federationtest.NewKey(t, "large", jose.RS256)
	for _, bits := range []int{2048, 4096, 8192} {
		n := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, bits/8))
		if _, status := inline(t, keySetOf(t, change(t, k, map[string]any{"n": n})), jose.RS256); status.Keys != 1 {
			t.Errorf("an RSA key of %d bits is not usable", bits)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDocumentThatIsNoKeySetIsRefused(t *testing.T) {
	good := mustJSON(t, federationtest.NewKey(t, "good", jose.ES256).Public())
	for name, doc := range map[string]string{
		"empty": "", "HTML": "<html>", "null": "null", "array": "[]", "no keys": "{}", "keys null": `{"keys":null}`, "keys object": `{"keys":{}}`,
		"keys twice": `{"keys":[],"keys":[` + string(good) + `]}`, "KEYS": `{"KEYS":[` + string(good) + `]}`,
		"65 keys":       `{"keys":[` + strings.Repeat(string(good)+",", 64) + string(good) + `]}`,
		"too deep":      `{"keys":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`,
		"only unusable": `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		"trailing":      `{"keys":[` + string(good) + `]}x`,
	} {
		cache := federation.NewKeyCache(time.Now, zerolog.Nop())
		if _, err := cache.Source(federation.KeySpec{Inline: []byte(doc), Algorithms: []jose.SignatureAlgorithm{jose.ES256}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// One key, one algorithm (RFC 8725bis section 3.1, standards 2.19).
func TestKeyIsBoundToOneAlgorithm(t *testing.T) {
	rs := federationtest.NewKey(t, "rsa", jose.RS256)
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	all := []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA, federation.Ed25519}
	sign := func(k federationtest.Key, alg jose.SignatureAlgorithm) error {
		signed := k
		signed.Algorithm = alg
		return func() error {
			trust, _ := inline(t, keySetOf(t, change(t, k, nil)), all...)
			_, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(signed)))
			return err
		}()
	}
	wantRejected(t, sign(rs, jose.PS256), federation.ErrAlgorithm)
	if err := sign(rs, jose.RS256); err != nil {
		t.Errorf("RS256 with its key: %v", err)
	}
	pss := rs
	pss.Algorithm = jose.PS256
	wantRejected(t, sign(pss, jose.RS256), federation.ErrAlgorithm)

	// Without alg in the JWK the configured order decides.
	bare := keySetOf(t, change(t, rs, map[string]any{"alg": nil}))
	trust, _ := inline(t, bare, jose.PS256, jose.RS256)
	_, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(rs)))
	wantRejected(t, err, federation.ErrAlgorithm)
	if _, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(pss))); err != nil {
		t.Errorf("PS256, listed first, with a key without alg: %v", err)
	}

	// EdDSA and Ed25519 are two names of one algorithm.
	ed := federationtest.NewKey(t, "ed", federation.Ed25519)
	if err := sign(ed, jose.EdDSA); err != nil {
		t.Errorf("EdDSA with a key that says Ed25519: %v", err)
	}
}

func TestDuplicateKeyIDMakesBothUnusable(t *testing.T) {
	one, two := federationtest.NewKey(t, "same", jose.ES256), federationtest.NewKey(t, "same", jose.ES256)
	good := federationtest.NewKey(t, "good", jose.ES256)
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	trust, _ := inline(t, keySetOf(t, one.Public(), two.Public(), good.Public(), one.Public()), jose.ES256)
	for _, k := range []federationtest.Key{one, two} {
		_, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(k)))
		wantRejected(t, err, federation.ErrSignature)
	}
	if _, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(good))); err != nil {
		t.Errorf("the other key: %v", err)
	}
	// The very same key twice is no contradiction.
	trust, status := inline(t, keySetOf(t, one.Public(), one.Public()), jose.ES256)
	if _, err := identify(t, trust, iss.Sign(claims, federationtest.WithKey(one))); err != nil || status.Keys != 1 {
		t.Errorf("a key that is there twice: %v", err)
	}
}

// Without kid exactly one key must fit (standards 2.26).
func TestTokenWithoutKeyIDNeedsTheOnlyKey(t *testing.T) {
	one, two := federationtest.NewKey(t, "one", jose.ES256), federationtest.NewKey(t, "two", jose.ES256)
	other := federationtest.NewKey(t, "other", federation.Ed25519)
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	raw := iss.Sign(iss.Claims(noon, "api", audience), federationtest.WithKey(one), federationtest.WithoutHeader("kid"))
	algs := []jose.SignatureAlgorithm{jose.ES256, federation.Ed25519}

	trust, _ := inline(t, keySetOf(t, one.Public(), other.Public()), algs...)
	if _, err := identify(t, trust, raw); err != nil {
		t.Errorf("one key fits: %v", err)
	}
	trust, _ = inline(t, keySetOf(t, change(t, one, map[string]any{"kid": nil})), algs...)
	if _, err := identify(t, trust, raw); err != nil {
		t.Errorf("one key without kid: %v", err)
	}
	_, err := identify(t, trust, iss.Sign(iss.Claims(noon, "api", audience), federationtest.WithKey(one)))
	wantRejected(t, err, federation.ErrSignature) // kid "one" names no key
	trust, _ = inline(t, keySetOf(t, one.Public(), two.Public()), algs...)
	for _, k := range []federationtest.Key{one, two} { // whichever is tried, it would fit one of them
		ambiguous := iss.Sign(iss.Claims(noon, "api", audience), federationtest.WithKey(k), federationtest.WithoutHeader("kid"))
		_, err = identify(t, trust, ambiguous)
		wantRejected(t, err, federation.ErrSignature)
	}
	noID := map[string]any{"kid": nil}
	trust, status := inline(t, keySetOf(t, change(t, one, noID), change(t, two, noID)), algs...)
	_, err = identify(t, trust, raw)
	wantRejected(t, err, federation.ErrSignature)
	if status.Keys != 2 {
		t.Errorf("%d keys without kid, want 2", status.Keys)
	}
}

func TestKeySpecNeedsExactlyOneSource(t *testing.T) {
	key := mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{federationtest.NewKey(t, "k", jose.ES256).Public()}})
	algs := []jose.SignatureAlgorithm{jose.ES256}
	for i, spec := range []federation.KeySpec{
		{Algorithms: algs},
		{Algorithms: algs, Discovery: true, Issuer: "https://a.example", JWKSURL: "https://a.example/k"},
		{Algorithms: algs, JWKSFile: "x", Inline: key},
		{Inline: key},
		{Algorithms: algs, Discovery: true, Issuer: "http://a.example"},
		{Algorithms: algs, Discovery: true, Issuer: "file:///etc/passwd"},
		{Algorithms: algs, JWKSURL: "https://user:pass@a.example/k"},
		{Algorithms: algs, JWKSURL: "https:///k"},
		{Algorithms: algs, JWKSURL: "k"},
	} {
		if _, err := federation.NewKeyCache(time.Now, zerolog.Nop()).Source(spec); err == nil {
			t.Errorf("spec %d: accepted", i)
		}
	}
}

func TestEqualSpecsShareASource(t *testing.T) {
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	defer cache.Close()
	spec := federation.KeySpec{Issuer: "https://a.example", Discovery: true, Algorithms: []jose.SignatureAlgorithm{jose.ES256}}
	one, err := cache.Source(spec)
	if err != nil {
		t.Fatal(err)
	}
	if two, _ := cache.Source(spec); two != one {
		t.Error("an equal spec has another source")
	}
	spec.Network.AllowPrivate = true
	if three, _ := cache.Source(spec); three == one {
		t.Error("a spec with another network has the same source")
	}
	cache.Retain([]federation.KeySpec{spec})
	if n := len(cache.Status()); n != 1 {
		t.Errorf("%d sources after Retain of one, want 1", n)
	}
	cache.Close()
	if _, err := cache.Source(spec); err == nil {
		t.Error("a closed cache opens sources")
	}
}

func TestEndedInlineSourceVerifiesNothing(t *testing.T) {
	iss := federationtest.New(t)
	r := newRemoteSpec(t, iss, federation.KeySpec{Issuer: iss.URL(), Inline: iss.JWKS(), Algorithms: iss.Algorithms()})
	r.mustIdentify("before")
	r.cache.Retain(nil)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
}
