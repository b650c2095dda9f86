package verify

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// contextKey is where the middleware leaves what it found.
type contextKey struct{}

// verified is a token, and who says so.
type verified struct {
	token Token
	by    *Verifier
}

// FromContext returns the token that [Verifier.Middleware] verified for this request, and whether there is one. Behind
// several it is that of the innermost.
func FromContext(ctx context.Context) (Token, bool) {
	found, ok := ctx.Value(contextKey{}).(verified)
	return found.token, ok
}

// Middleware lets only requests through whose token verifies; handlers find it by [FromContext]. The token is taken
// from one Authorization header with the scheme Bearer (RFC 6750 section 2.1), from nowhere else: a request with two
// such headers, or with access_token in its query, is refused whatever else it has.
//
// Refusals are those of RFC 6750 section 3, with constant texts: 400 invalid_request, 401 without an error code when
// no token was presented, 401 invalid_token. When nobody can say whether the token is good, it is 503 with Retry-After.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := bearer(r)
		if err != nil {
			v.refuse(w, r, err, "")
			return
		}
		t, err := v.Verify(r.Context(), raw)
		if err != nil {
			v.refuse(w, r, err, "")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, verified{t, v})))
	})
}

// RequireScope lets only requests through whose token has the scope; others get 403 insufficient_scope. It stands
// behind [Verifier.Middleware] of the same verifier: without that every request is refused, since a word of another
// audience means something else. It panics when scope is no scope-token (RFC 6749 section 3.3), which no token could
// have: that is a mistake in the program, to be seen when it starts.
func (v *Verifier) RequireScope(scope string) func(http.Handler) http.Handler {
	if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		panic("verify: RequireScope takes one scope, without blanks, quotes and backslashes")
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			found, _ := r.Context().Value(contextKey{}).(verified)
			switch {
			case found.by != v:
				v.refuse(w, r, ErrNoToken, "")
			case !found.token.HasScope(scope):
				v.refuse(w, r, ErrScope, scope)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// bearer finds the one token that a request presents.
func bearer(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) > 1 || tokenInQuery(r.URL.RawQuery):
		return "", ErrRequest
	case len(headers) == 0:
		return "", ErrNoToken
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return "", ErrNoToken
	case token == "":
		return "", ErrRequest
	}
	return token, nil
}

// tokenInQuery finds access_token, also in queries that net/url would not read: whoever puts a token into a URL has
// given it to every log on the way.
func tokenInQuery(raw string) bool {
	for pair := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && name == "access_token" {
			return true
		}
	}
	return false
}

// answer is what the wire says. Texts have no quotes and name no reason: a thief learns nothing from trying.
type answer struct {
	err        error
	status     int
	code, text string
}

// answersTo is the table from error to answer; what is not in it is a bad token.
var answersTo = []answer{
	{ErrUnavailable, http.StatusServiceUnavailable, "", "The token cannot be checked now. Try again."},
	{ErrNoToken, http.StatusUnauthorized, "", "A bearer token is required."}, // RFC 6750 section 3.1: no error code
	{ErrRequest, http.StatusBadRequest, "invalid_request", "One bearer token in one Authorization header is required."},
	{ErrScope, http.StatusForbidden, "insufficient_scope", "The token does not have the scope."},
}

var badToken = answer{nil, http.StatusUnauthorized, "invalid_token", "The token was refused."}

func answerTo(err error) answer {
	for _, a := range answersTo {
		if errors.Is(err, a.err) {
			return a
		}
	}
	return badToken
}

func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, err error, scope string) {
	v.refused(r, err)
	a, h := answerTo(err), w.Header()
	h.Set("Cache-Control", "no-store")
	if a.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	} else {
		h.Set("WWW-Authenticate", a.challenge(scope))
	}
	http.Error(w, a.text, a.status)
}

// challenge is RFC 6750 section 3.
func (a answer) challenge(scope string) string {
	c := `Bearer realm="sallyport"`
	if a.code != "" {
		c += `, error="` + a.code + `", error_description="` + a.text + `"`
	}
	if scope != "" {
		c += `, scope="` + scope + `"`
	}
	return c
}
