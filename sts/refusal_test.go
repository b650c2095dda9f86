package sts_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Anything wrong with the subject token is invalid_request, never invalid_grant. // standards 1.36
func TestBadSubjectTokenIsInvalidRequest(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	revoked := d.mint(d.checkout(), "orders").token
	if a := d.post("/revoke", map[string][]string{"token": {revoked}}); a.status != 200 {
		t.Fatalf("revoking: %d", a.status)
	}
	good := d.checkout()
	for name, token := range map[string]string{
		"bad signature":  good[:len(good)-8] + "AAAAAAAA",
		"expired":        d.checkout(set("exp", d.clock.now().Unix()-60), set("iat", d.clock.now().Unix()-600), without("nbf")),
		"unknown issuer": d.checkout(set("iss", "https://nobody.example")),
		"wrong audience": d.checkout(set("aud", "https://other.example")),
		"revoked":        revoked,
		"not a token":    "garbage",
	} {
		d.refused(name, 400, "invalid_request", func() answer { return d.exchange(te(token)) })
	}
}

// Client credentials are refused as such: none are configured, and none may look as if they were checked. The
// challenge is of the caller's scheme. // standards 1.38, 2.5, 2.6
func TestClientCredentialsAreRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for scheme, credentials := range map[string]string{"Basic": "Basic Y2xpZW50OnNlY3JldA==", "Bearer": "bearer abc", "DPoP": "DPoP abc", "Negotiate": "Negotiate abc"} {
		a := d.refused(scheme, 401, "invalid_client", func() answer { return d.post("/token", te(d.checkout()), "Authorization", credentials) })
		want := scheme
		if scheme == "Negotiate" {
			want = "Basic" // no such scheme here
		}
		if got, _, _ := strings.Cut(a.header.Get("WWW-Authenticate"), " "); got != want {
			t.Errorf("%s: challenge %q, want %s", scheme, a.header.Get("WWW-Authenticate"), want)
		}
	}
	for name, pairs := range map[string][]string{
		"secret":           {"client_id", "c", "client_secret", "s"},
		"assertion":        {"client_assertion", "a", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"assertion alone":  {"client_assertion", "a"},
		"assertion type":   {"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"an SVID as proof": {"client_assertion", d.checkout(), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"},
	} {
		a := d.refused(name, 401, "invalid_client", func() answer { return d.exchange(te(d.checkout(), pairs...)) })
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: challenge %q", name, a.header.Get("WWW-Authenticate"))
		}
	}
	d.refused("an empty and a filled header", 401, "invalid_client", func() answer {
		return d.post("/token", te(d.checkout()), "Authorization", "", "Authorization", "Basic Y2xpZW50OnNlY3JldA==")
	})
	if a := d.exchange(te(d.checkout(), "client_id", "anything")); a.status != 200 {
		t.Errorf("a client_id without credentials: %d, want 200", a.status)
	}
}

// What a part of ours does not know now is said to be worth a retry, and nothing is issued. // standards 1.40
func TestUnavailableIssuerKeysAreWorthARetry(t *testing.T) {
	t.Parallel()
	remote := federationtest.New(t)
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	t.Cleanup(cache.Close)
	source, err := cache.Source(remote.KeySpec())
	if err != nil {
		t.Fatal(err)
	}
	d := deploy(t, func(w *world) {
		w.cluster = remote
		w.issuers[0] = trusted("prod.example", "cluster", remote)
		w.issuers[0].Keys = source
	})
	remote.SetDown(true)
	a := d.refused("keys down", 503, "temporarily_unavailable", func() answer { return d.exchange(te(d.checkout())) })
	if strings.Contains(a.body, federationtest.SecretBody) || strings.Contains(d.recorder.text(), federationtest.SecretBody) {
		t.Error("an issuer's answer is repeated")
	}
	if m := d.issued(d.exchange(te(d.sign(d.ci, "deploy", "deploy")))); m.token == "" {
		t.Error("another issuer suffers")
	}
	e := d.mint(d.sign(d.partner, "p", "checkout"), "orders")
	d.log.(*memory).setFail(revocation.ErrUnavailable)
	d.wantRefusal("revocation log down", d.post("/revoke", map[string][]string{"token": {e.token}}), 503, "temporarily_unavailable") // standards 2.59
}

// Nothing a caller sends comes back in an error, and no error has a character outside RFC 6749 section 5.2.
// standards 2.3, 2.4
func TestErrorsRepeatNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	const evil = "mark\"\\\r\nX-Evil: 1\u2603\U0001F600<script>"
	for _, name := range []string{"grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope", "audience", "resource", "actor_token", "client_secret"} {
		a := d.exchange(te(d.checkout(), name, evil))
		var body struct {
			Description string `json:"error_description"`
		}
		if err := json.Unmarshal([]byte(a.body), &body); a.status < 400 || err != nil {
			t.Errorf("%s: %d: %v", name, a.status, err)
		}
		for _, c := range body.Description {
			if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
				t.Errorf("%s: description has %q", name, c)
			}
		}
		if strings.Contains(a.body, "mark") || a.header.Get("X-Evil") != "" {
			t.Errorf("%s: what was sent comes back", name)
		}
	}
	if strings.Contains(d.recorder.text(), `\r`) {
		t.Error("a record keeps control characters of a caller")
	}
}

// A caller who pastes the token into the wrong parameter does not get it logged whole. // standards 4.29
func TestTokenInTheWrongParameterIsNotRecorded(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, name := range []string{"audience", "resource", "requested_token_type", "subject_token_type", "scope"} {
		if a := d.exchange(te(d.checkout(), name, d.checkout())); a.status != 400 { // the deployment's end looks for it
			t.Errorf("%s: %d", name, a.status)
		}
	}
}

// A panic is a 500 with a decision id that stands in the log, and not a word of its cause. // standards 2.1
func TestPanicIsAnAnswerWithoutItsCause(t *testing.T) {
	t.Parallel()
	d := deploy(t, func(w *world) { w.ownKeys = panicking{} })
	own := d.mint(d.checkout(), "orders").token
	for path, headers := range map[string][]string{"/revoke": nil, "/introspect": {"Authorization", "Bearer " + own}} {
		a := d.post(path, map[string][]string{"token": {own}}, headers...)
		d.wantRefusal(path, a, 500, "server_error")
		if !strings.Contains(d.logs.String(), a.decision()) {
			t.Errorf("%s: decision %s of a panic is not in the log", path, a.decision())
		}
	}
	a := d.exchange(te(own))
	d.wantRefusal("/token", a, 500, "server_error")
	if strings.Contains(d.logs.String()+a.body, panicText) {
		t.Error("the panic's value is repeated; it may hold anything")
	}
}

const panicText = "panic value that must not leak"

type panicking struct{}

func (panicking) VerifySignature(context.Context, *jose.JSONWebSignature) ([]byte, error) {
	panic(panicText)
}
