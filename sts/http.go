package sts

import (
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Handler returns the workload listener's handler: the protocol endpoints of design section 5 below the
// issuer's path. log is for operators; it sees no token and no claim.
func (x *Exchanger) Handler(p Published, log zerolog.Logger) (http.Handler, error) {
	u, err := url.Parse(p.Issuer)
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(u.Path, "/")
	tokens := newPublisher(p)
	r := chi.NewRouter()
	r.Use(x.recovered(log))
	routes := map[string]http.Handler{
		base + "/token":                                  x.limited(x.only(http.MethodPost, x.fresh(p.Tokens, x.serveToken))),
		base + "/introspect":                             x.limited(x.only(http.MethodPost, x.serveIntrospect)),
		base + "/revoke":                                 x.limited(x.only(http.MethodPost, x.serveRevoke)),
		base + "/revocations":                            x.limited(x.only(http.MethodGet, x.serveFeed)),
		base + "/status/{list}":                          x.limited(x.only(http.MethodGet, x.serveStatus)),
		base + "/jwks":                                   tokens.serve(keysOf),
		base + "/.well-known/openid-configuration":       tokens.serve(openIDOf), // appended: OIDC Discovery section 4
		"/.well-known/oauth-authorization-server" + base: tokens.serve(serverOf), // inserted: RFC 8414 section 3
	}
	if p.Assertions != nil {
		second, below := newAssertionsPublisher(p), base+brokers.AssertionsPath
		routes[below+"/jwks"] = second.serve(keysOf)
		routes[below+"/.well-known/openid-configuration"] = second.serve(openIDOf)
		routes[below+"/.well-known/oauth-authorization-server"] = second.serve(serverOf)
		routes["/.well-known/oauth-authorization-server"+below] = second.serve(serverOf)
	}
	for path, h := range routes {
		r.Handle(path, h)
	}
	r.NotFound(notFound)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) { // a method that chi has never heard of
		if h, ok := routes[r.URL.Path]; ok {
			h.ServeHTTP(w, r)
			return
		}
		notFound(w, r)
	})
	return r, nil
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	noStore(w.Header())
	http.Error(w, "not found", http.StatusNotFound)
}

// only lets one method through; HEAD is not GET here, and a query string never is a request.
func (x *Exchanger) only(method string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			x.open(Request{Remote: remote(r)}).refuse(r.Context(), ErrMethod).write(w)
			return
		}
		next(w, r)
	}
}

func (x *Exchanger) serveToken(w http.ResponseWriter, r *http.Request) {
	credentials := r.Header.Values("Authorization")
	in := Request{Remote: remote(r), Authorization: strings.Join(credentials, "") != ""}
	in.Form, in.Err = readForm(w, r)
	out, err := x.Exchange(r.Context(), in)
	if err != nil {
		refusal := asRefusal(err)
		if refusal.answer.challenge != "" {
			refusal.answer.challenge = challengeOf(credentials)
		}
		refusal.write(w)
		return
	}
	writeJSON(w, http.StatusOK, out.Decision, out.Body)
}

// challengeOf is for the scheme that the caller tried (RFC 6749 section 5.2), Basic if that is unknown.
func challengeOf(credentials []string) string {
	for _, c := range credentials {
		tried, _, _ := strings.Cut(c, " ")
		for _, scheme := range []string{"Bearer", "DPoP"} {
			if strings.EqualFold(tried, scheme) {
				return scheme + ` realm="sallyport"`
			}
		}
	}
	return answerClient.challenge
}

// asRefusal: Exchange returns nothing else; anything else would be a fault of ours, and says so.
func asRefusal(err error) *Refusal {
	if r, ok := err.(*Refusal); ok { //nolint:errorlint // never wrapped: the wire gets the refusal itself
		return r
	}
	return &Refusal{answer: answerServerError}
}

// recovered turns a panic into a 500 without a word of it on the wire, nor in the log, which gets the path and
// the decision id that the caller was told.
func (x *Exchanger) recovered(log zerolog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if v := recover(); v != nil {
					if v == http.ErrAbortHandler {
						panic(v)
					}
					refusal := &Refusal{answer: answerServerError}
					if p, ok := v.(*panicked); ok { // an exchange: its record has this id
						refusal.Decision = p.decision
					} else {
						refusal.Decision = x.newID()
					}
					log.Error().Str("path", r.URL.Path).Str("decision", refusal.Decision).Bytes("stack", debug.Stack()).Msg("a handler panicked")
					refusal.write(w)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}
