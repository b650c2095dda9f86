package sts

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// AdminRoute is one operation of the admin listener: a method and a path below /admin/v1, and what whoever calls it must be
// allowed to do somewhere. Where, and to what, the handler looks at.
type AdminRoute struct {
	Method  string
	Path    string // such as /keys
	May     operator.Action
	Handler http.HandlerFunc
}

// AdminHandler returns the admin listener's handler: what routes say to an [operator.Operator] with a role for it, and
// nothing to anybody else. Every call is on record, with who made it: what changes something by its own record, all else, and
// what was refused, by one of the type admin.
func (x *Exchanger) AdminHandler(routes ...AdminRoute) http.Handler {
	r := chi.NewRouter()
	r.Use(x.recordAdmin)
	allowed := map[string]string{}
	for _, route := range routes {
		path := "/admin/v1" + route.Path
		r.Method(route.Method, path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := caller(r).May(route.May); err != nil {
				forbid(w, err)
				return
			}
			route.Handler(w, r)
		}))
		allowed[path] = route.Method
	}
	r.NotFound(notFound)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed[r.URL.Path])
		writeJSON(w, http.StatusMethodNotAllowed, "", adminError{"the method is not allowed"})
	})
	return r
}

// caller is who makes a request that has come this far.
func caller(r *http.Request) operator.Operator {
	o, _ := operator.From(r.Context())
	return o
}

// asked is what a call of the admin listener is about, for the record of one that changes nothing.
type asked struct {
	selector []string
	reason   string
}

type askedKey struct{}

// about says what a call asks for.
func about(r *http.Request, selector []string, reason string) {
	if a, ok := r.Context().Value(askedKey{}).(*asked); ok {
		a.selector, a.reason = words(selector[:min(len(selector), maxAsked)]), reason
	}
}

// forbid answers an operator who is known and may not.
func forbid(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusForbidden, "", adminError{err.Error()})
}

// recordAdmin lets nobody through who is not known, and puts calls on record that no handler put there, with what they
// were about. While the log cannot
// be written the answer is given all the same: whoever responds has to see.
func (x *Exchanger) recordAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by, ok := operator.From(r.Context())
		if !ok {
			writeJSON(w, http.StatusForbidden, "", adminError{"the admin listener cannot tell who is calling"})
			return
		}
		seen, ask := middleware.NewWrapResponseWriter(w, r.ProtoMajor), new(asked)
		next.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), askedKey{}, ask)))
		if seen.Header().Get(decisionHeader) != "" {
			return
		}
		e := x.open(Request{Remote: remote(r)})
		e.rec.Type, e.rec.Outcome = audit.TypeAdmin, ""
		e.rec.Admin = &audit.Admin{By: by.Name, Method: r.Method, Call: cut(r.URL.RequestURI(), maxReason), Status: cmp.Or(seen.Status(), http.StatusOK), Selector: ask.selector}
		e.rec.Reason = ask.reason
		_ = e.append(r.Context())
	})
}

type adminError struct {
	Error string `json:"error"`
}

// AdminStatus is the answer to GET /admin/v1/status.
type AdminStatus struct {
	Version     string           `json:"version"`
	Replica     string           `json:"replica,omitempty"` // among others, until it ends; none for a deployment of one
	Started     time.Time        `json:"started"`
	Issuer      string           `json:"issuer"`
	Config      string           `json:"config"` // hash of the set in force
	Checks      []CheckResult    `json:"checks"`
	Revocations AdminRevocations `json:"revocations"`
	Audit       AdminAudit       `json:"audit"`
	Issuers     []AdminIssuer    `json:"issuers"`
}

// AdminRevocations is where the revocation log stands.
type AdminRevocations struct {
	Position string `json:"position"` // EPOCH.N
	Live     int    `json:"live"`
}

// AdminAudit is how the audit log does.
type AdminAudit struct {
	Last     uint64 `json:"last"`     // newest record
	Signed   uint64 `json:"signed"`   // newest record under a signed head
	Unsynced uint64 `json:"unsynced"` // records
	Free     int64  `json:"free"`     // bytes of disk
}

// AdminIssuer is the state of one issuer's keys.
type AdminIssuer struct {
	Issuer  string `json:"issuer"`
	Source  string `json:"source"`
	Used    bool   `json:"used"`
	Healthy bool   `json:"healthy"`
	Keys    int    `json:"keys"`
	Age     int64  `json:"age_seconds"`
	Error   string `json:"error,omitempty"`
}

// StatusRoute answers GET /admin/v1/status with what status returns. Who may look in some trust domains sees the issuers of
// those.
func StatusRoute(status func() AdminStatus) AdminRoute {
	return AdminRoute{http.MethodGet, "/status", operator.Look, func(w http.ResponseWriter, r *http.Request) {
		out, by := status(), caller(r)
		out.Issuers = slices.DeleteFunc(out.Issuers, func(i AdminIssuer) bool {
			domain, _, _ := strings.Cut(i.Issuer, "/")
			return by.In(operator.Look, domain) != nil
		})
		writeJSON(w, http.StatusOK, "", out)
	}}
}
