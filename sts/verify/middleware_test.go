package verify_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sallyport-sts/sallyport/sts/verify"
)

// shop is a resource server with one open and two protected routes, on a router of others.
type shop struct {
	handler http.Handler
	entered int     // requests that reached a handler
	token   string  // subject that the last one saw
	why     []error // what the hook was told
}

func newShop(t *testing.T, c verify.Config) *shop {
	t.Helper()
	s := &shop{}
	c.Refused = func(_ *http.Request, why error) { s.why = append(s.why, why) }
	v := newVerifier(t, c)
	enter := func(_ http.ResponseWriter, r *http.Request) {
		s.entered++
		t, ok := verify.FromContext(r.Context())
		if s.token = t.Subject(); ok != (s.token != "") {
			s.token = "a token that is none"
		}
	}
	r := chi.NewRouter()
	r.Get("/open", enter)
	r.Group(func(r chi.Router) {
		r.Use(v.Middleware)
		r.Get("/any", enter)
		r.With(v.RequireScope("read")).Get("/read", enter)
		r.With(v.RequireScope("read"), v.RequireScope("admin")).Get("/admin", enter)
	})
	r.With(v.RequireScope("read")).Get("/forgotten", enter) // without the middleware
	s.handler = r
	return s
}

// do sends a request; headers are values of Authorization.
func (s *shop) do(path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for _, h := range headers {
		r.Header.Add("Authorization", h)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func TestMiddlewareHandsTheTokenOn(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := newShop(t, d.config())
	raw := d.mint(t, "checkout", "orders", "scope", "read")
	for _, path := range []string{"/any", "/read", "/read?page=2&q=access_token", "/read?x=%zz"} {
		for _, header := range []string{"Bearer " + raw, "bearer " + raw, "BEARER " + raw} {
			s.token = ""
			if w := s.do(path, header); w.Code != http.StatusOK || s.token != "spiffe://prod.example/cluster/checkout" {
				t.Errorf("%s: %d, and the handler saw %q; the hook was told %v", path, w.Code, s.token, s.why)
			}
		}
	}
	if w := s.do("/open"); w.Code != http.StatusOK || s.token != "" {
		t.Errorf("without the middleware: %d, and the handler saw %q", w.Code, s.token)
	}
	if len(s.why) != 0 {
		t.Errorf("the hook was told of %v", s.why)
	}
}

const (
	challenge      = `Bearer realm="sallyport"`
	invalidToken   = challenge + `, error="invalid_token", error_description="The token was refused."`
	invalidRequest = challenge + `, error="invalid_request", error_description="One bearer token in one Authorization header is required."`
	noScope        = challenge + `, error="insufficient_scope", error_description="The token does not have the scope.", scope=`
)

// wantAnswer checks a refusal whole, and that no handler was reached.
func (s *shop) wantAnswer(t *testing.T, what string, status int, header, body string, why error, send func() *httptest.ResponseRecorder) {
	t.Helper()
	s.entered, s.why = 0, nil
	w := send()
	if w.Code != status || w.Header().Get("WWW-Authenticate") != header || strings.TrimSpace(w.Body.String()) != body {
		t.Errorf("%s: got %d %s %s, want %d %s %s", what, w.Code, w.Header().Get("WWW-Authenticate"), w.Body, status, header, body)
	}
	if w.Header().Get("Cache-Control") != "no-store" || (w.Header().Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("%s: headers %v", what, w.Header())
	}
	if s.entered != 0 || len(s.why) != 1 || !errors.Is(s.why[0], why) {
		t.Errorf("%s: %d handlers were reached, the hook was told %v, want %v", what, s.entered, s.why, why)
	}
}

// RFC 6750 sections 2 and 3: one token, in one place, or none. // standards 2.16
func TestMiddlewareTakesOneTokenFromOneHeader(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := newShop(t, d.config())
	raw := d.mint(t, "checkout", "orders")
	good := "Bearer " + raw
	none, bad, once := "A bearer token is required.", "The token was refused.", "One bearer token in one Authorization header is required."
	for _, tc := range []struct {
		what, path   string
		headers      []string
		status       int
		header, body string
		why          error
	}{
		{"no header", "/any", nil, 401, challenge, none, verify.ErrNoToken},
		{"an empty header", "/any", []string{""}, 401, challenge, none, verify.ErrNoToken},
		{"Basic", "/any", []string{"Basic " + raw}, 401, challenge, none, verify.ErrNoToken},
		{"the token without a scheme", "/any", []string{raw}, 401, challenge, none, verify.ErrNoToken},
		{"a scheme that begins so", "/any", []string{"Bearerx " + raw}, 401, challenge, none, verify.ErrNoToken},
		{"the scheme alone", "/any", []string{"Bearer"}, 400, invalidRequest, once, verify.ErrRequest},
		{"the scheme and a blank", "/any", []string{"Bearer "}, 400, invalidRequest, once, verify.ErrRequest},
		{"the header twice", "/any", []string{good, good}, 400, invalidRequest, once, verify.ErrRequest},
		{"Basic and Bearer", "/any", []string{"Basic eDp5", good}, 400, invalidRequest, once, verify.ErrRequest},
		{"two in one header", "/any", []string{good + ", " + good}, 401, invalidToken, bad, verify.ErrMalformed},
		{"two blanks", "/any", []string{"Bearer  " + raw}, 401, invalidToken, bad, verify.ErrMalformed},
		{"in the query", "/any?access_token=" + raw, nil, 400, invalidRequest, once, verify.ErrRequest},
		{"in the query too", "/any?a=b&access_token=" + raw, []string{good}, 400, invalidRequest, once, verify.ErrRequest},
		{"in the query, empty", "/any?access_token", []string{good}, 400, invalidRequest, once, verify.ErrRequest},
		{"in the query, escaped", "/any?access%5Ftoken=x", []string{good}, 400, invalidRequest, once, verify.ErrRequest},
		{"in the query, behind a semicolon", "/any?a;access_token=x", []string{good}, 400, invalidRequest, once, verify.ErrRequest},
		{"in the query, after what is none", "/any?%zz&access_token=x", []string{good}, 400, invalidRequest, once, verify.ErrRequest},
		{"another audience's", "/any", []string{"Bearer " + d.mint(t, "checkout", "billing")}, 401, invalidToken, bad, verify.ErrAudience},
		{"junk", "/any", []string{"Bearer junk"}, 401, invalidToken, bad, verify.ErrMalformed},
		{"junk where a scope is needed", "/read", []string{"Bearer junk"}, 401, invalidToken, bad, verify.ErrMalformed},
		{"no middleware", "/forgotten", []string{good}, 401, challenge, none, verify.ErrNoToken},
	} {
		s.wantAnswer(t, tc.what, tc.status, tc.header, tc.body, tc.why, func() *httptest.ResponseRecorder { return s.do(tc.path, tc.headers...) })
	}
	d.clock.advance(d.lifetime(t, raw) + verify.DefaultSkew)
	s.wantAnswer(t, "an expired token", 401, invalidToken, bad, verify.ErrExpired, func() *httptest.ResponseRecorder { return s.do("/any", good) })
}

func TestScopeThatWasNotGrantedIsForbidden(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := newShop(t, d.config())
	body := "The token does not have the scope."
	write := "Bearer " + d.mint(t, "checkout", "orders", "scope", "write")
	s.wantAnswer(t, "write where read is needed", 403, noScope+`"read"`, body, verify.ErrScope, func() *httptest.ResponseRecorder { return s.do("/read", write) })
	read := "Bearer " + d.mint(t, "checkout", "orders")
	s.wantAnswer(t, "read and write where admin is needed too", 403, noScope+`"admin"`, body, verify.ErrScope, func() *httptest.ResponseRecorder { return s.do("/admin", read) })
	claims := claimsOf(t, d.mint(t, "checkout", "orders"))
	for _, scope := range []string{"", "READ", "reader", "read:all", "re ad"} {
		claims["scope"] = scope
		raw := d.sign(t, "at+jwt", claims)
		s.wantAnswer(t, "scope "+scope, 403, noScope+`"read"`, body, verify.ErrScope, func() *httptest.ResponseRecorder { return s.do("/read", "Bearer "+raw) })
	}
	v := newVerifier(t, d.config())
	for _, scope := range []string{"", "read write", `a"b`, `a\b`, "a\nb", "é"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("RequireScope(%q) makes a handler that nobody can reach", scope)
				}
			}()
			v.RequireScope(scope)
		}()
	}
}

// A scope of one target is no scope of another, though it be the same word.
func TestScopeOfAnotherAudienceOpensNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := newShop(t, d.config())
	c := d.config()
	c.Audience = "billing"
	billing := newVerifier(t, c)
	claims := claimsOf(t, d.mint(t, "checkout", "billing"))
	claims["scope"] = "read"
	raw := d.sign(t, "at+jwt", claims)
	s.handler = billing.Middleware(s.handler)
	s.wantAnswer(t, "a token for billing where orders needs a scope", 401, challenge, "A bearer token is required.", verify.ErrNoToken,
		func() *httptest.ResponseRecorder { return s.do("/forgotten", "Bearer "+raw) })
	s.wantAnswer(t, "a token for billing where orders verifies", 401, invalidToken, "The token was refused.", verify.ErrAudience,
		func() *httptest.ResponseRecorder { return s.do("/read", "Bearer "+raw) })
}

// Nobody is let in, and nobody is told that the token is bad, when nobody can say.
func TestOutageIsAnsweredWith503(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	good := "Bearer " + d.mint(t, "checkout", "orders")
	text := "The token cannot be checked now. Try again."
	s := newShop(t, d.asking(t, 0))
	d.down("/jwks")
	s.wantAnswer(t, "no keys", 503, "", text, verify.ErrUnavailable, func() *httptest.ResponseRecorder { return s.do("/read", good) })
	d.clock.advance(floor)
	d.down("/introspect")
	s.wantAnswer(t, "no introspection", 503, "", text, verify.ErrUnavailable, func() *httptest.ResponseRecorder { return s.do("/read", good) })
	d.down("")
	if w := s.do("/read", good); w.Code != http.StatusOK {
		t.Errorf("after the outage: %d, %v", w.Code, s.why)
	}
	d.revoke(t, strings.TrimPrefix(good, "Bearer "))
	s.wantAnswer(t, "a revoked token", 401, invalidToken, "The token was refused.", verify.ErrInactive, func() *httptest.ResponseRecorder { return s.do("/read", good) })
}

// No answer and no error says anything of a token.
func TestTokenIsNowhereInAnswersAndErrors(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	s := newShop(t, d.config())
	raw := d.mint(t, "checkout", "orders")
	other := d.mint(t, "checkout", "billing")
	claims := claimsOf(t, raw)
	claims["aud"], claims["iss"] = raw, raw // a token that quotes another
	quoting := d.sign(t, "at+jwt", claims)
	claims["iss"], claims["aud"], claims["sub"] = d.issuer, orders, raw
	naming := d.sign(t, "at+jwt", claims)
	for what, token := range map[string]string{"another audience's": other, "one that quotes": quoting, "one that is named so": naming, "a part": raw[:100]} {
		w := s.do("/any", "Bearer "+token)
		said, err := json.Marshal([]any{w.Header(), w.Body.String(), s.why[len(s.why)-1].Error()})
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range append(strings.Split(token, "."), strings.Split(raw, ".")...) {
			if w.Code != http.StatusUnauthorized || strings.Contains(string(said), secret[:min(len(secret), 24)]) {
				t.Errorf("%s: %d %s", what, w.Code, said)
			}
		}
	}
}

// lifetime is how long a token has from now.
func (d *deployment) lifetime(t testing.TB, token string) time.Duration {
	t.Helper()
	exp, _ := claimsOf(t, token)["exp"].(float64)
	return time.Unix(int64(exp), 0).Sub(d.clock.now())
}
