package sts_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/sts"
)

// Without the token or its type there is nothing to exchange. // standards 1.11
func TestSubjectTokenAndItsTypeAreRequired(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, name := range []string{"subject_token", "subject_token_type"} {
		d.refused("no "+name, 400, "invalid_request", func() answer { return d.exchange(drop(te(d.checkout()), name)) })
	}
}

// Every registered type is handled or refused; the declared type must be true. // standards 1.12, 1.13, 1.26-1.29
func TestDeclaredSubjectTokenTypeMustBeTrue(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	platform, own := d.checkout(), d.mint(d.checkout(), "orders").token
	const saml = "PHNhbWw6QXNzZXJ0aW9uLz4"
	for _, tc := range []struct {
		name, token, typ string
		ok               bool
	}{
		{"platform token as jwt", platform, jwtType, true},
		{"platform token as id_token", platform, idTokenType, true},
		{"own token as jwt", own, jwtType, true},
		{"own token as access_token", own, accessType, true},
		{"platform token as access_token", platform, accessType, false},
		{"own token as id_token", own, idTokenType, false},
		{"own token as refresh_token", own, typePrefix + "refresh_token", false},
		{"platform token as refresh_token", platform, typePrefix + "refresh_token", false},
		{"JWT as saml1", platform, typePrefix + "saml1", false},
		{"JWT as saml2", platform, typePrefix + "saml2", false},
		{"SAML as jwt", saml, jwtType, false},
		{"SAML as saml2", saml, typePrefix + "saml2", false},
		{"opaque as jwt", "s.0123456789abcdef", jwtType, false},
		{"opaque as access_token", "s.0123456789abcdef", accessType, false},
		{"id-jag", platform, typePrefix + "id-jag", false},
		{"txn_token", platform, typePrefix + "txn_token", false},
		{"self_signed", platform, typePrefix + "self_signed", false},
		{"unsigned_json", `{"sub":"admin"}`, typePrefix + "unsigned_json", false},
		{"unknown URN", platform, "urn:example:unknown", false},
		{"no URI", platform, "jwt", false},
		{"another case", platform, strings.ToUpper(jwtType), false},
		{"blank around", platform, " " + jwtType, false},
		{"an AWS request", platform, "urn:ietf:params:aws:token-type:aws4_request", false},
	} {
		form := te(tc.token, "subject_token_type", tc.typ)
		if !tc.ok {
			d.refused(tc.name, 400, "invalid_request", func() answer { return d.exchange(form) })
		} else if a := d.exchange(form); a.status != 200 {
			t.Errorf("%s: %d %s; recorded %+v", tc.name, a.status, a.body, d.recorder.of(a.decision()))
		}
	}
}

// Actor token and type come together; each is what it says. // standards 1.14, 1.15
func TestActorTokenIsNeverIgnored(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	expired := d.checkout(set("exp", d.clock.now().Unix()-3600), set("iat", d.clock.now().Unix()-7200), without("nbf"))
	for name, pairs := range map[string][]string{
		"token without type": {"actor_token", d.checkout()},
		"type without token": {"actor_token_type", jwtType},
		"unsupported type":   {"actor_token", d.checkout(), "actor_token_type", typePrefix + "saml2"},
		"untrue type":        {"actor_token", d.checkout(), "actor_token_type", accessType},
		"an expired actor":   {"actor_token", expired, "actor_token_type", jwtType},
		"a foreign actor":    {"actor_token", d.checkout(set("iss", "https://evil.example")), "actor_token_type", jwtType},
	} {
		d.refused(name, 400, "invalid_request", func() answer { return d.exchange(te(d.checkout(), pairs...)) })
	}
}

// A resource is an absolute URI without fragment; a query is allowed. // standards 1.16
func TestResourceSyntax(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, resource := range []string{
		"/x", "orders", "//orders.example/api", "https://orders.example/api#f", "https://orders.example/api#", "::", "https://", "https:",
		"https://orders.example/\x7f", "https://[::1", "%68ttps://orders.example/api",
	} {
		a := d.refused("resource "+resource, 400, "invalid_target", func() answer {
			return d.exchange(drop(te(d.checkout(), "resource", resource), "audience"))
		})
		if rec := d.recorder.of(a.decision())[0]; rec.Reason != sts.ErrResourceSyntax.Error() {
			t.Errorf("resource %s is refused because %s: it got as far as policy", resource, rec.Reason)
		}
	}
	d.refused("unknown resource with a query", 400, "invalid_target", func() answer {
		return d.exchange(drop(te(d.checkout(), "resource", "https://orders.example/api?tenant=1"), "audience"))
	})
}

// A target can be named by audience, by resource, or by both; two targets are refused whole.
// standards 1.17, 1.18, 2.9
func TestOneTargetPerExchange(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	const resource = "https://orders.example/api"
	for name, form := range map[string]url.Values{
		"audience": te(d.checkout()),
		"resource": drop(te(d.checkout(), "resource", resource), "audience"),
		"both":     te(d.checkout(), "resource", resource),
	} {
		if m := d.issued(d.exchange(form)); m.claims["aud"] != resource {
			t.Errorf("%s: aud %v, want %s", name, m.claims["aud"], resource)
		}
	}
	for name, targets := range map[string][]string{
		"two allowed": {"orders", "plain"}, "allowed and forbidden": {"orders", "ledger"}, "allowed and unknown": {"orders", "nowhere"},
		"unknown and allowed": {"nowhere", "orders"}, "list in one value": {"orders plain"}, "comma": {"orders,plain"},
	} {
		form := te(d.checkout())
		form["audience"] = targets
		d.refused(name, 400, "invalid_target", func() answer { return d.exchange(form) })
	}
	d.refused("audience and resource of two", 400, "invalid_target", func() answer {
		return d.exchange(te(d.checkout(), "audience", "plain", "resource", resource))
	})
}

// Names are compared byte for byte. // standards 1.19, 2.10
func TestTargetIsComparedExactly(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, name := range []string{"Orders", "ORDERS", "orders/", " orders", "orders ", "orders\n", "ordеrs", "order", "orders1", "*", "spiffe://prod.example/orders"} {
		d.refused("audience "+name, 400, "invalid_target", func() answer { return d.exchange(te(d.checkout(), "audience", name)) })
	}
	for _, uri := range []string{
		"https://orders.example/api/", "https://orders.example/API", "https://ORDERS.example/api", "https://orders.example:443/api",
		"https://orders.example/%61pi", "https://orders.example/api/tenant2", "https://orders.example/", "http://orders.example/api",
	} {
		d.refused("resource "+uri, 400, "invalid_target", func() answer {
			return d.exchange(drop(te(d.checkout(), "resource", uri), "audience"))
		})
	}
}

// Without a target there is no token: never one without aud. // standards 1.20
func TestRequestWithoutTargetIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.refused("no target", 400, "invalid_target", func() answer { return d.exchange(drop(te(d.checkout()), "audience")) })
}

// Scope words have their characters, single blanks and case; a scope that no one rule covers is refused, never
// narrowed. // standards 1.21, 1.22
func TestScope(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, scope := range []string{
		`"a"`, `a\b`, "a  b", " a", "a ", "a\tb", "a\nb", "réad", "a\x7fb", "Read", "READ", "admin", "read admin", "unknown", "read unknown", "read,write",
	} {
		d.refused("scope "+scope, 400, "invalid_scope", func() answer { return d.exchange(te(d.checkout(), "scope", scope)) })
	}
	stranger := d.sign(d.cluster, "gateway/one", "gateway") // no rule lets it reach orders
	d.refused("scope of another target", 400, "invalid_target", func() answer { return d.exchange(te(stranger, "scope", "read")) })
	d.refused("malformed scope", 400, "invalid_scope", func() answer { return d.exchange(te(stranger, "scope", "read  write")) })
	for asked, granted := range map[string]any{"": "read write", "read": "read", "write": "write", "write read": "write read", "read write": "read write"} {
		m := d.mint(d.checkout(), "orders", "scope", asked)
		if m.response["scope"] != granted || m.claims["scope"] != granted { // standards 1.23, 2.13
			t.Errorf("asked %q: answer says %v, token %v, want %v", asked, m.response["scope"], m.claims["scope"], granted)
		}
	}
	if m := d.mint(d.checkout(), "plain"); m.response["scope"] != nil || m.claims["scope"] != nil {
		t.Errorf("a target without scopes: answer says %v, token %v", m.response["scope"], m.claims["scope"])
	}
}

// A scope asked twice is granted once: what a caller repeats must not grow the token. // standards 2.17
func TestRepeatedScopeWordIsGrantedOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	m := d.mint(d.checkout(), "orders", "scope", strings.TrimSuffix(strings.Repeat("read ", 10_000), " "))
	if m.response["scope"] != "read" || m.claims["scope"] != "read" {
		t.Errorf("read, asked 10,000 times, is granted as %d bytes in the answer", len(m.response["scope"].(string)))
	}
	if len(m.token) > 4<<10 {
		t.Errorf("the token has %d bytes", len(m.token))
	}
}

// The requested type is what comes back, or the request is refused. // standards 1.24, 1.25
func TestRequestedTokenType(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for asked, issued := range map[string]string{"": accessType, accessType: accessType, jwtType: jwtType} {
		if m := d.mint(d.checkout(), "orders", "requested_token_type", asked); m.response["issued_token_type"] != issued {
			t.Errorf("asked %q: issued %v, want %s", asked, m.response["issued_token_type"], issued)
		}
	}
	for _, asked := range []string{
		typePrefix + "refresh_token", typePrefix + "id_token", typePrefix + "saml1", typePrefix + "saml2", typePrefix + "id-jag",
		typePrefix + "txn_token", typePrefix + "unsigned_json", "urn:example:unknown", "access_token", strings.ToUpper(accessType),
	} {
		d.refused("requested "+asked, 400, "invalid_request", func() answer {
			return d.exchange(te(d.checkout(), "requested_token_type", asked))
		})
	}
}
