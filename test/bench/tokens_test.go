package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestSubjectTokensAreDistinctSignedAndOfTheStatedSize(t *testing.T) {
	now := time.Now()
	s, err := newSubjects(5, now)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(s.keyJSON, &set); err != nil || len(set.Keys) != 1 || !set.Keys[0].IsPublic() {
		t.Fatalf("key set %s: %v; want one public key", s.keyJSON, err)
	}
	seen := make(map[string]bool)
	for _, token := range s.tokens {
		parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := parsed.Verify(set.Keys[0])
		if err != nil {
			t.Errorf("subject token does not verify: %v", err)
		}
		if len(payload) < 850 || len(payload) > 1000 {
			t.Errorf("claims of %d bytes, documented as about 900", len(payload))
		}
		var claims subjectClaimSet
		if err := json.Unmarshal(payload, &claims); err != nil || !claims.check(now) {
			t.Errorf("claims %s: error %v", payload, err)
		}
		if claims.Expiry-claims.NotBefore != int64(tokenLifetime/time.Second) {
			t.Errorf("lifetime %d s", claims.Expiry-claims.NotBefore)
		}
		seen[token] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d distinct tokens of 5", len(seen))
	}
	if parsed, err := jose.ParseSignedCompact(s.forged, []jose.SignatureAlgorithm{jose.RS256}); err != nil {
		t.Errorf("the forged token does not even parse: %v", err)
	} else if _, err := parsed.Verify(set.Keys[0]); err == nil {
		t.Error("the forged token verifies")
	}
}

func TestCorruptSignatureChangesOnlyTheSignature(t *testing.T) {
	const token = "aGVhZA.cGF5bG9hZA.c2lnbmF0dXJl"
	got, err := corruptSignature(token)
	if err != nil {
		t.Fatal(err)
	}
	if got == token || len(got) != len(token) || !strings.HasPrefix(got, "aGVhZA.cGF5bG9hZA.") {
		t.Errorf("got %s from %s", got, token)
	}
	for _, bad := range []string{"", "abc", "a.b.", "a.b.***"} {
		if got, err := corruptSignature(bad); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}

func TestRenderRequest(t *testing.T) {
	in := bytes.NewReader(renderRequest("127.0.0.1:8443", "a.b+/=.c"))
	br := bufio.NewReader(in)
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"grant_type":         "urn:ietf:params:oauth:grant-type:token-exchange",
		"subject_token":      "a.b+/=.c",
		"subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
		"audience":           "orders",
		"scope":              "read",
	}
	if r.Method != "POST" || r.URL.Path != "/token" || r.Host != "127.0.0.1:8443" || len(r.PostForm) != len(want) {
		t.Errorf("got %s %s for %s with %v", r.Method, r.URL.Path, r.Host, r.PostForm)
	}
	for name, v := range want {
		if got := r.PostForm[name]; len(got) != 1 || got[0] != v {
			t.Errorf("%s: got %q, want one %q", name, got, v)
		}
	}
	if rest, err := io.ReadAll(br); err != nil || len(rest) != 0 {
		t.Errorf("bytes after the body: %q, %v: Content-Length is wrong", rest, err)
	}
}

func TestTokenAlgorithm(t *testing.T) {
	if got, err := tokenAlgorithm("eyJhbGciOiJFUzI1NiJ9.e30.c2ln"); err != nil || got != "ES256" {
		t.Errorf("got %q, error %v; want ES256", got, err)
	}
	for _, bad := range []string{"opaque", "a.b", "!.b.c", "bm8.b.c"} {
		if got, err := tokenAlgorithm(bad); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}
