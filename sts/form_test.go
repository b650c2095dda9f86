package sts_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A token request that is not a POST is refused, whatever its query says. // standards 1.1, 2.1
func TestTokenEndpointTakesPostAlone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	query := "?" + te(d.checkout()).Encode()
	for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		a := d.refused(method, 405, "invalid_request", func() answer { return d.send(method, "/token"+query, "") })
		if a.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow is %q, want POST", method, a.header.Get("Allow"))
		}
	}
	if a := d.send("HEAD", "/token"+query, ""); a.status != 405 || a.body != "" {
		t.Errorf("HEAD: %d %q, want 405 without body", a.status, a.body)
	}
	for _, path := range []string{"/introspect", "/revoke"} { // standards 2.55, 2.61
		d.refused(path, 405, "invalid_request", func() answer { return d.send("GET", path+"?token=x", "") })
	}
}

// The body is one form in one media type. // standards 1.2
func TestFormMediaType(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for contentType, ok := range map[string]bool{
		formType:                            true,
		formType + "; charset=UTF-8":        true,
		formType + ";charset=\"utf-8\"":     true,
		"Application/X-WWW-Form-URLEncoded": true,
		formType + "; charset=iso-8859-1":   false,
		formType + "; charset":              false,
		"application/json":                  false,
		"multipart/form-data; boundary=x":   false,
		"text/plain":                        false,
		"*/*":                               false,
		"":                                  false,
	} {
		send := func() answer {
			body := te(d.checkout()).Encode()
			if strings.HasSuffix(contentType, "json") {
				body = `{"grant_type":"` + grantType + `"}`
			}
			if contentType == "" {
				return d.send("POST", "/token", body)
			}
			return d.send("POST", "/token", body, "Content-Type", contentType)
		}
		if !ok {
			d.refused("content type "+contentType, 400, "invalid_request", send)
		} else if a := send(); a.status != 200 {
			t.Errorf("content type %s: %d, want 200", contentType, a.status)
		}
	}
	d.refused("content encoding", 400, "invalid_request", func() answer {
		return d.post("/token", te(d.checkout()), "Content-Encoding", "gzip")
	})
}

// Nothing is taken from the query string. // standards 1.3
func TestParametersComeFromTheBodyAlone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout()
	for name, inBody := range map[string]url.Values{
		"subject_token": drop(te(subject), "subject_token"),
		"grant_type":    drop(te(subject), "grant_type"),
	} {
		d.refused(name+" in the query", 400, "invalid_request", func() answer {
			return d.post("/token?"+te(subject).Encode(), inBody)
		})
	}
	d.refused("audience in the query", 400, "invalid_target", func() answer {
		return d.post("/token?audience=orders", drop(te(subject), "audience"))
	})
	if m := d.issued(d.post("/token?audience=billing&scope=admin&subject_token=x", te(subject))); m.claims["aud"] != "https://orders.example/api" {
		t.Errorf("a query beside a good body: aud %v", m.claims["aud"])
	}
}

// An unknown parameter changes nothing. // standards 1.4
func TestTokenEndpointIgnoresUnknownParameters(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout()
	plain := d.mint(subject, "orders")
	more := d.issued(d.exchange(te(subject, "foo", "bar", "options", "{}", "exp", "9999999999", "sub", "admin", "client_id", "admin")))
	again := te(subject)
	again["foo"] = []string{"1", "2"} // an unknown one may even repeat
	for _, m := range []minted{more, d.issued(d.exchange(again))} {
		for _, claim := range []string{"iss", "sub", "aud", "exp", "iat", "client_id", "scope"} {
			if m.claims[claim] != plain.claims[claim] {
				t.Errorf("claim %s is %v with unknown parameters, %v without", claim, m.claims[claim], plain.claims[claim])
			}
		}
	}
}

// A parameter without value is an absent one. // standards 1.5
func TestEmptyParameterCountsAsAbsent(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	empty := te(d.checkout(), "actor_token", "", "actor_token_type", "", "scope", "", "requested_token_type", "", "resource", "", "client_secret", "")
	empty.Add("audience", "")
	if m := d.issued(d.exchange(empty)); m.response["scope"] != "read write" {
		t.Errorf("empty optional parameters: scope %v, want the rule's", m.response["scope"])
	}
	for name, code := range map[string]string{
		"subject_token": "invalid_request", "subject_token_type": "invalid_request", "grant_type": "invalid_request", "audience": "invalid_target",
	} {
		d.refused(name+" empty", 400, code, func() answer { return d.exchange(te(d.checkout(), name, "")) })
	}
}

// single lists the parameters that must not repeat.
var singles = map[string]string{
	"grant_type": grantType, "subject_token": "", "subject_token_type": jwtType, "actor_token": "x", "actor_token_type": jwtType,
	"requested_token_type": jwtType, "scope": "read", "client_id": "c", "client_secret": "s", "client_assertion": "a",
	"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
}

// Only resource and audience may repeat; an equal, a different and an empty twin are refused alike, and so is
// one that is spelled with escapes. // standards 1.6, 1.7
func TestRepeatedParameterIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for name, value := range singles {
		for kind, twin := range map[string]string{"equal": value, "different": "other", "empty": ""} {
			form := te(d.checkout())
			if name != "subject_token" {
				form.Set(name, value)
			} else if kind == "equal" {
				twin = form.Get(name)
			}
			form.Add(name, twin)
			d.refused(name+" with an "+kind+" twin", 400, "invalid_request", func() answer { return d.exchange(form) })
			form[name][0], form[name][1] = form[name][1], form[name][0]
			d.refused(name+" after an "+kind+" twin", 400, "invalid_request", func() answer { return d.exchange(form) })
		}
	}
	d.refused("escaped twin", 400, "invalid_request", func() answer {
		return d.send("POST", "/token", te(d.checkout()).Encode()+"&%73cope=read&scope=write", "Content-Type", formType)
	})
	for name, path := range map[string]string{"token": "/revoke", "token_type_hint": "/revoke"} {
		d.refused(path+" "+name, 400, "invalid_request", func() answer {
			return d.send("POST", path, "token=a&"+name+"=b&"+name+"=b", "Content-Type", formType)
		})
	}
	caller := "Bearer " + d.gateway()
	d.refused("introspect token twice", 400, "invalid_request", func() answer {
		return d.send("POST", "/introspect", "token=a&token=b", "Content-Type", formType, "Authorization", caller)
	})
	twice := te(d.checkout())
	twice.Add("audience", "orders")
	twice.Add("resource", "https://orders.example/api")
	if a := d.exchange(twice); a.status != 200 {
		t.Errorf("one target named three times: %d %s, want 200", a.status, a.body)
	}
}

// A body is bounded and well-formed. // standards 1.8
func TestMalformedBodyIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	good := te(d.checkout()).Encode()
	var pairs strings.Builder
	for i := range 64 {
		fmt.Fprintf(&pairs, "&p%d=", i)
	}
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"empty", "", 400},
		{"over 64 KiB", good + "&x=" + strings.Repeat("a", 64<<10), 413},
		{"over 64 pairs", good + pairs.String(), 400},
		{"half an escape", good + "&x=%4", 400},
		{"bad escape", good + "&x=%zz", 400},
		{"NUL", good + "&x=a%00b", 400},
		{"NUL in a name", good + "&%00=a", 400},
		{"invalid UTF-8", good + "&x=%ff%fe", 400},
		{"overlong UTF-8", good + "&x=%c0%af", 400},
		{"surrogate", good + "&x=%ed%a0%80", 400},
		{"invalid UTF-8 in a name", good + "&%ff=a", 400},
		{"semicolons", strings.ReplaceAll(good, "&", ";"), 400},
	} {
		d.refused(tc.name, tc.status, "invalid_request", func() answer {
			return d.send("POST", "/token", tc.body, "Content-Type", formType)
		})
	}
	just := good + "&x=" + strings.Repeat("a", 64<<10-len(good)-3)
	if a := d.send("POST", "/token", just, "Content-Type", formType); a.status != 200 {
		t.Errorf("a body of exactly 64 KiB: %d %s", a.status, a.body)
	}
}

// The grant type decides first, with case. // standards 1.9
func TestGrantType(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.refused("absent", 400, "invalid_request", func() answer { return d.exchange(drop(te(d.checkout()), "grant_type")) })
	for _, g := range []string{
		"authorization_code", "client_credentials", "refresh_token", strings.ToUpper(grantType), grantType + " ", " " + grantType,
		"urn:ietf:params:oauth:grant-type:jwt-bearer", "token-exchange",
	} {
		d.refused(g, 400, "unsupported_grant_type", func() answer { return d.exchange(te(d.checkout(), "grant_type", g)) })
	}
}

// What the network says of us is not who we are. // standards 1.10, 2.50
func TestHostAndForwardingHeadersChangeNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	lies := []string{
		"Host", "evil.example", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "http", "X-Forwarded-For", "10.9.8.7",
		"X-Forwarded-Prefix", "/evil", "X-Original-URL", "/evil", "Forwarded", "for=10.9.8.7;host=evil.example", "X-Real-IP", "10.9.8.7",
	}
	m := d.issued(d.post("/token", te(d.checkout()), lies...))
	if m.claims["iss"] != d.issuer {
		t.Errorf("iss is %v, want %s", m.claims["iss"], d.issuer)
	}
	if rec := d.recorder.of(m.decision)[0]; rec.Remote != "127.0.0.1" {
		t.Errorf("recorded address %s, want that of the connection", rec.Remote)
	}
	evil := d.checkout(set("aud", "https://evil.example/token"))
	d.refused("aud of the lie", 400, "invalid_request", func() answer { return d.post("/token", te(evil), lies...) })
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/jwks"} {
		if plain, lied := d.send("GET", path, ""), d.send("GET", path, "", lies...); plain.body != lied.body || strings.Contains(lied.body, "evil") {
			t.Errorf("%s depends on the caller's headers: %s", path, lied.body)
		}
	}
	for _, path := range []string{"//token", "/token/", "/TOKEN", "/x/../token", "/token%2f", "/%2e%2e/token"} {
		if a := d.post(path, te(d.checkout())); a.status == http.StatusOK {
			t.Errorf("%s: a token was issued on a path that is not ours", path)
		}
	}
}
