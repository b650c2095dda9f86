package federation

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// FuzzParseCompact: what we accept has one spelling, and go-jose reads the same header and payload in it.
func FuzzParseCompact(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	for _, h := range []string{`{"alg":"ES256"}`, `{"alg":"ES256","kid":"k","typ":"JWT"}`, `{"alg":"none"}`, `{"alg":"ES256","crit":["x"]}`, `{"alg":"ES256","alg":"RS256"}`, `{"\u0061lg":"ES256"}`} {
		for _, p := range []string{`{"iss":"i","sub":"s","aud":["a"],"exp":1.5}`, `{}`, `[`, `{"sub":"\ud800"}`, `{"a":{"b":[{}]}}`} {
			f.Add(encode([]byte(h)) + "." + encode([]byte(p)) + ".AAAA")
		}
	}
	f.Add("..")
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := parseCompact(raw)
		if err != nil {
			return
		}
		parts := strings.Split(raw, ".")
		if encode(token.payload) != parts[1] || encode(token.signature) != parts[2] || string(token.input) != parts[0]+"."+parts[1] {
			t.Fatal("accepted a token with two spellings")
		}
		if jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(token.header.alg)}); err == nil {
			if h := jws.Signatures[0].Protected; h.Algorithm != token.header.alg || h.KeyID != token.header.kid {
				t.Fatalf("header read as %+v and as %+v", token.header, h)
			}
			if !bytes.Equal(jws.UnsafePayloadWithoutVerification(), token.payload) {
				t.Fatal("payload read in two ways")
			}
		}
		if claims, err := parseRegistered(token.payload); err == nil {
			checkRegistered(t, token.payload, &claims)
		}
	})
}

// checkRegistered compares with encoding/json, which agrees about what is unambiguous.
func checkRegistered(t *testing.T, payload []byte, c *registered) {
	t.Helper()
	var std map[string]json.RawMessage
	if err := json.Unmarshal(payload, &std); err != nil {
		t.Fatalf("accepted claims that encoding/json refuses: %v", err)
	}
	if len(std) != len(c.members) {
		t.Fatalf("%d claims, encoding/json sees %d", len(c.members), len(std))
	}
	for name, got := range map[string]string{"iss": c.iss, "sub": c.sub, "jti": c.jti} {
		var want string
		if raw, ok := std[name]; ok && (json.Unmarshal(raw, &want) != nil || want != got) {
			t.Fatalf("%s is %q, encoding/json sees %s", name, got, raw)
		}
	}
	for _, m := range c.members {
		if raw, ok := std[string(m.name)]; !ok || !bytes.Equal(bytes.TrimSpace(raw), m.value) {
			t.Fatalf("claim %q is %q, encoding/json sees %q", m.name, m.value, raw)
		}
		(Claims{payload: payload, members: c.members}).Lookup(string(m.name))
	}
}

// FuzzParseKeySet: no document makes more than 64 usable keys, or one that is weak or of no listed algorithm.
func FuzzParseKeySet(f *testing.F) {
	for _, s := range []string{
		`{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`, `{}`, `[]`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","use":"sig","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`,
	} {
		f.Add([]byte(s))
	}
	algs := []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, Ed25519, jose.EdDSA}
	f.Fuzz(func(t *testing.T, doc []byte) {
		ks, err := parseKeySet(doc, algs)
		if err != nil {
			return
		}
		if len(ks.all) > maxKeys {
			t.Fatalf("%d keys", len(ks.all))
		}
		for _, k := range ks.all {
			for _, alg := range k.algs {
				if !fits(k.key, alg) {
					t.Fatalf("key %q does not fit %s", k.id, alg)
				}
			}
			if len(k.algs) == 0 {
				t.Fatalf("key %q verifies nothing", k.id)
			}
		}
		for id, k := range ks.byID {
			if id == "" || k.id != id {
				t.Fatalf("key %q stands under %q", k.id, id)
			}
		}
	})
}

// FuzzParseID: an accepted id is what its parts spell, and its parts are valid.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"spiffe://prod.example/ci/api", "spiffe://a/b/../c", "spiffe://A/b/c", "spiffe://a/b/c?d", "spiffe://a:1/b/c", "", "spiffe:///b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s || !ValidTrustDomain(id.TrustDomain) || !ValidSegment(id.Issuer) || len(s) > MaxWorkloadID {
			t.Fatalf("%q is %+v", s, id)
		}
		for segment := range strings.SplitSeq(id.Path, "/") {
			if !ValidSegment(segment) {
				t.Fatalf("%q has segment %q", s, segment)
			}
		}
	})
}
