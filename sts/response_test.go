package sts_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// A token response has the members of RFC 8693 section 2.2.1, and never a refresh token.
// standards 1.30, 1.31, 1.32, 1.33, 2.1, 2.2
func TestTokenResponse(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	a := d.exchange(te(d.checkout(), "scope", "read"))
	m := d.issued(a)
	for name, want := range map[string]any{"issued_token_type": accessType, "token_type": "Bearer", "scope": "read", "expires_in": 600.0} {
		if m.response[name] != want {
			t.Errorf("%s is %v, want %v", name, m.response[name], want)
		}
	}
	if m.token == "" || len(m.response) != 5 {
		t.Errorf("members %v, want the five of an access token", len(m.response))
	}
	left := time.Unix(int64(m.claims["exp"].(float64)), 0).Sub(d.clock.now()).Seconds()
	if math.Abs(left-m.response["expires_in"].(float64)) > 1 {
		t.Errorf("expires_in %v, exp is in %v s", m.response["expires_in"], left)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"} {
		if a.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, a.header.Get(name), want)
		}
	}
	if !json.Valid([]byte(a.body)) || a.body[0] != '{' {
		t.Errorf("body begins with %q, want a JSON object without byte order mark", a.body[:1])
	}
}

// What is issued never outlives the rule, the target or the subject token. // standards 1.34
func TestLifetimeIsTheShortestOfAllLimits(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	exp := func(in time.Duration) func(federationtest.Claims) { return set("exp", d.clock.now().Add(in).Unix()) }
	for _, tc := range []struct {
		name, subject, target string
		most                  float64
	}{
		{"rule", d.checkout(exp(30 * time.Minute)), "orders", 600},
		{"target's default", d.checkout(exp(30 * time.Minute)), "plain", 900},
		{"subject token", d.checkout(exp(20 * time.Second)), "orders", 20},
		{"subject token, one second", d.checkout(exp(time.Second)), "orders", 1},
	} {
		if m := d.mint(tc.subject, tc.target); m.response["expires_in"] != tc.most {
			t.Errorf("%s: expires_in %v, want %v", tc.name, m.response["expires_in"], tc.most)
		}
	}
	// Within the skew after exp a platform's token still verifies, but nothing is left to give.
	d.refused("expired within the skew", 400, "invalid_request", func() answer {
		return d.exchange(te(d.checkout(exp(-10 * time.Second))))
	})
	m := d.mint(d.checkout(exp(20*time.Second)), "orders")
	d.clock.advance(15 * time.Second)
	if child := d.mint(m.token, "billing"); child.response["expires_in"] != 5.0 {
		t.Errorf("a child of a token with 5 s left: %v s", child.response["expires_in"])
	}
}

// An exchange uses nothing up. // standards 1.35
func TestExchangeDoesNotConsumeTheSubjectToken(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout()
	first, second := d.mint(subject, "orders"), d.mint(subject, "orders")
	if first.claims["jti"] == second.claims["jti"] || first.token == second.token {
		t.Error("two exchanges yielded one token")
	}
	own := first.token
	d.mint(own, "billing")
	d.mint(own, "billing")
	if got := d.introspect(d.gateway(), own); got["active"] != true {
		t.Error("a token died of being exchanged")
	}
}

// A minted token is an RFC 9068 access token. // standards 2.11, 2.12, 2.13, 2.17
func TestMintedTokenIsAnAccessTokenOfRFC9068(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout(set("secret_claim", "must-not-travel"), set("scope", "admin"), set("client_id", "admin"), set("act", map[string]string{"sub": "x"}),
		set("sallyport", map[string]any{"family": "x", "target": "ledger"}))
	m := d.mint(subject, "orders", "scope", "read")
	var header map[string]any
	decodePart(d, m.token, 0, &header)
	if header["typ"] != "at+jwt" || header["alg"] != "ES256" {
		t.Errorf("header %v, want at+jwt signed with ES256", header)
	}
	now := float64(d.clock.now().Unix())
	want := map[string]any{
		"iss": d.issuer, "sub": "spiffe://prod.example/cluster/checkout/api", "aud": "https://orders.example/api", "client_id": "workload",
		"iat": now, "exp": now + 600, "jti": m.decision, "scope": "read",
		"sallyport": map[string]any{"depth": 1, "family": m.decision, "target": "orders", "position": "1.0"},
	}
	// What revocations can name is there as keyed digests, and says nothing to others.
	own, _ := m.claims["sallyport"].(map[string]any)
	facts, _ := own["facts"].([]any)
	if delete(own, "facts"); len(facts) != 1 {
		t.Errorf("a token of one exchange tells of %d", len(facts))
	} else if p, err := revocation.DecodePart(facts[0].(string)); err != nil || len(p.Terms) < 8 || p.At.String() != "1.0" {
		t.Errorf("what revocations can name is %v, %v", p, err)
	}
	if got := mustJSON(m.claims); got != mustJSON(want) {
		t.Errorf("claims %s,\nwant %s and no claim of the subject token", got, mustJSON(want))
	}
	if len(m.token) > 4<<10 {
		t.Errorf("the token has %d bytes", len(m.token))
	}
}

// Subject tokens may be signed with RS256, which every verifier of RFC 9068 has to know. // standards 2.11
func TestRS256SubjectToken(t *testing.T) {
	t.Parallel()
	d := deploy(t, func(w *world) {
		w.ci = federationtest.NewNamed(t, "https://ci.example", jose.RS256)
		w.issuers[1] = trusted("prod.example", "ci", w.ci)
	})
	d.mint(d.sign(d.ci, "deploy", "deploy"), "orders")
}

// Different targets have different audiences. // standards 2.14
func TestEachTargetHasItsOwnAudience(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	orders, plain := d.mint(d.checkout(), "orders"), d.mint(d.checkout(), "plain")
	if orders.claims["aud"] != "https://orders.example/api" || plain.claims["aud"] != "plain" {
		t.Errorf("audiences %v and %v", orders.claims["aud"], plain.claims["aud"])
	}
}

// The same sub in two domains, or at two issuers, is two principals, and nobody steers client_id. // standards 2.15, 2.80
func TestEqualSubjectsOfTwoDomainsStayApart(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	seen := map[any]bool{}
	for _, subject := range []string{
		d.sign(d.cluster, "same", "checkout"), d.sign(d.partner, "same", "checkout"), d.sign(d.ci, "same", "deploy"),
	} {
		m := d.mint(subject, "orders", "client_id", "spiffe://prod.example/cluster/same")
		seen[m.claims["sub"]] = true
		if m.claims["client_id"] != "workload" || strings.HasPrefix("workload", "spiffe://") {
			t.Errorf("client_id %v, want the reserved word", m.claims["client_id"])
		}
	}
	if len(seen) != 3 {
		t.Errorf("three issuers' subject is %d principals: %v", len(seen), seen)
	}
}
