package sts_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// ask posts to /introspect with a bearer.
func (d *deployment) ask(bearer, token string, headers ...string) answer {
	return d.post("/introspect", url.Values{"token": {token}}, append([]string{"Authorization", "Bearer " + bearer}, headers...)...)
}

// introspect asks and reads the answer, which must be 200.
func (d *deployment) introspect(bearer, token string) map[string]any {
	d.t.Helper()
	a := d.ask(bearer, token)
	var out map[string]any
	if err := json.Unmarshal([]byte(a.body), &out); a.status != 200 || err != nil {
		d.t.Fatalf("introspection answered %d %s: %v", a.status, a.body, err)
	}
	return out
}

// A caller that is not authenticated gets 401 with a challenge, never active:false. // standards 2.61
func TestIntrospectionCallerMustBeAuthenticated(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	token, caller := d.mint(d.checkout(), "orders").token, d.gateway()
	dead := d.gateway()
	if a := d.post("/revoke", url.Values{"token": {dead}}); a.status != 200 {
		t.Fatalf("revoking: %d", a.status)
	}
	for name, headers := range map[string][]string{
		"none":                       nil,
		"empty":                      {"Authorization", ""},
		"no token":                   {"Authorization", "Bearer"},
		"Basic":                      {"Authorization", "Basic Y2xpZW50OnNlY3JldA=="},
		"garbage":                    {"Authorization", "Bearer garbage"},
		"a platform's token":         {"Authorization", "Bearer " + d.sign(d.cluster, "gateway/one", "gateway")},
		"a token for another target": {"Authorization", "Bearer " + token},
		"a revoked token":            {"Authorization", "Bearer " + dead},
		"two blanks":                 {"Authorization", "Bearer  " + caller},
		"two headers":                {"Authorization", "Bearer " + caller, "Authorization", "Bearer " + caller},
		"a bad signature":            {"Authorization", "Bearer " + caller[:len(caller)-8] + "AAAAAAAA"},
	} {
		code, challenge := "invalid_token", `Bearer realm="sallyport", error="invalid_token"`
		if name == "none" || name == "empty" || name == "Basic" { // RFC 6750 section 3.1: nothing was presented, nothing is wrong with it
			code, challenge = "invalid_client", `Bearer realm="sallyport"`
		}
		a := d.refused(name, 401, code, func() answer { return d.post("/introspect", url.Values{"token": {token}}, headers...) })
		if got := a.header.Get("WWW-Authenticate"); got != challenge {
			t.Errorf("%s: challenge %s, want %s", name, got, challenge)
		}
	}
	for name, body := range map[string]string{"bearer in the body": "token=x&access_token=" + caller, "bearer in the query": "token=x"} {
		d.refused(name, 401, "invalid_client", func() answer {
			return d.send(http.MethodPost, "/introspect?access_token="+caller, body, "Content-Type", formType)
		})
	}
	d.clock.advance(16 * time.Minute)
	d.refused("an expired token", 401, "invalid_token", func() answer { return d.ask(caller, token) })
}

// The form has one token. // standards 2.61
func TestIntrospectionForm(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	bearer := "Bearer " + d.gateway()
	for body, status := range map[string]int{"": 400, "token=": 400, "token_type_hint=access_token": 400} {
		d.refused("body "+body, status, "invalid_request", func() answer {
			return d.send(http.MethodPost, "/introspect", body, "Content-Type", formType, "Authorization", bearer)
		})
	}
	d.refused("JSON", 400, "invalid_request", func() answer {
		return d.send(http.MethodPost, "/introspect", `{"token":"x"}`, "Content-Type", "application/json", "Authorization", bearer)
	})
	d.refused("token in the query", 400, "invalid_request", func() answer {
		return d.send(http.MethodPost, "/introspect?token=x", "", "Content-Type", formType, "Authorization", bearer)
	})
}

// An active answer says what the token says; all checks are done now. // standards 2.63, 2.65
func TestIntrospectionOfALivingToken(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	m, caller := d.mint(d.checkout(), "orders", "scope", "read"), d.gateway()
	got := d.introspect(caller, m.token)
	want := map[string]any{
		"active": true, "iss": d.issuer, "sub": m.claims["sub"], "aud": []any{m.claims["aud"]}, "exp": m.claims["exp"], "iat": m.claims["iat"],
		"jti": m.decision, "client_id": "workload", "scope": "read", "token_type": "Bearer", "sallyport_family": m.decision,
	}
	if mustJSON(got) != mustJSON(want) {
		t.Errorf("introspection %s, want %s", mustJSON(got), mustJSON(want))
	}
	if a := d.ask(caller, m.token, "Accept", "application/json"); a.header.Get("Cache-Control") != "no-store" || a.header.Get("Expires")+a.header.Get("ETag") != "" {
		t.Errorf("headers %v, want no-store and no other word on caches", a.header)
	}
	if a := d.post("/introspect", url.Values{"token": {m.token}, "token_type_hint": {"refresh_token"}}, "Authorization", "bearer "+caller); a.body != mustCompact(got, a.body) {
		t.Errorf("a wrong hint, or the scheme in lower case, changes the answer: %s", a.body)
	}
	if m := d.mint(d.sign(d.cluster, "gateway/two", "gateway"), "introspection"); d.introspect(m.token, caller)["active"] != false {
		t.Error("a token for introspection itself is shown, though no resource server is listed")
	}
}

// mustCompact returns body if it says the same as v, else what v says.
func mustCompact(v any, body string) string {
	var other any
	if json.Unmarshal([]byte(body), &other) == nil && mustJSON(other) == mustJSON(v) {
		return body
	}
	return mustJSON(v)
}

// Unknown, expired, revoked, foreign, not ours to see: one answer, byte for byte, and nothing else. // standards 2.62
func TestInactiveTokenTellsNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	short := d.mint(d.checkout(set("exp", d.clock.now().Add(20*time.Second).Unix())), "orders").token
	revoked := d.mint(d.checkout(), "orders")
	child := d.mint(revoked.token, "billing")
	grandchild := d.mint(child.token, "archive")
	if a := d.post("/revoke", url.Values{"token": {revoked.token}}); a.status != 200 {
		t.Fatal("revoking failed")
	}
	alive := d.mint(d.checkout(), "orders").token
	d.clock.advance(time.Minute)
	caller := d.gateway()
	for name, token := range map[string]string{
		"unknown":            "opaque-0123456789",
		"malformed":          "a.b.c",
		"expired":            short,
		"revoked":            revoked.token,
		"parent revoked":     grandchild.token,
		"a platform's":       d.checkout(),
		"of another server":  d.mint(d.mint(d.checkout(), "orders").token, "billing").token,
		"of no server":       d.mint(d.checkout(), "plain").token,
		"bad signature":      alive[:len(alive)-8] + "AAAAAAAA",
		"issuer not trusted": d.checkout(set("iss", "https://nobody.example")),
		"forged as ours":     d.checkout(set("iss", d.issuer)),
	} {
		if a := d.ask(caller, token); a.status != 200 || a.body != `{"active":false}` || len(a.header) != 5 {
			t.Errorf("%s: %d %s %v, want 200 {\"active\":false} and the five usual headers", name, a.status, a.body, a.header)
		}
	}
	if d.introspect(caller, alive)["active"] != true {
		t.Error("a living token is inactive: the test shows nothing")
	}
	if n := d.recorder.count(audit.Withdrawn); n != 0 {
		t.Errorf("%d withdrawn", n)
	}
}

// A resource server that the reload took off the list sees nothing any more.
func TestIntrospectionFollowsAReload(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	token, caller := d.mint(d.checkout(), "orders").token, d.gateway()
	if d.introspect(caller, token)["active"] != true {
		t.Fatal("inactive before the reload")
	}
	d.world.policy.Targets[0].ResourceServers = nil
	d.exchanger.Swap(d.build(d.world, "config-2"))
	if d.introspect(caller, token)["active"] != false {
		t.Error("active for a server that is not listed any more")
	}
}
