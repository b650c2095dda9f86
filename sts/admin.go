package sts

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
)

// Operator is who called the admin listener, as the listener itself knows: by the kernel's word on a unix
// socket. It goes on record with whatever the call changes. Nothing in a request can set it, and no token
// that was minted here ever makes one: a compromised service must not authorise the response to itself.
type Operator struct {
	Name string // such as uid=0 pid=4711
}

type operatorKey struct{}

// WithOperator is for the listener alone, as the base of a connection's context.
func WithOperator(ctx context.Context, o Operator) context.Context {
	return context.WithValue(ctx, operatorKey{}, o)
}

// OperatorOf returns who called. It is false when the listener could not tell, and then nothing may be done.
func OperatorOf(ctx context.Context) (Operator, bool) {
	o, ok := ctx.Value(operatorKey{}).(Operator)
	return o, ok && o.Name != ""
}

// AdminRoute is one operation of the admin listener: a method and a path below /admin/v1.
type AdminRoute struct {
	Method  string
	Path    string // such as /keys
	Handler http.HandlerFunc
}

// AdminHandler returns the admin listener's handler: what routes say, and nothing to a caller without an
// [Operator].
func AdminHandler(routes ...AdminRoute) http.Handler {
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, ok := OperatorOf(r.Context()); !ok {
				writeJSON(w, http.StatusForbidden, "", adminError{"the admin listener cannot tell who is calling"})
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	allowed := map[string]string{}
	for _, route := range routes {
		path := "/admin/v1" + route.Path
		r.Method(route.Method, path, route.Handler)
		allowed[path] = route.Method
	}
	r.NotFound(notFound)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed[r.URL.Path])
		writeJSON(w, http.StatusMethodNotAllowed, "", adminError{"the method is not allowed"})
	})
	return r
}

type adminError struct {
	Error string `json:"error"`
}

// AdminStatus is the answer to GET /admin/v1/status.
type AdminStatus struct {
	Version     string           `json:"version"`
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

// StatusRoute answers GET /admin/v1/status with what status returns.
func StatusRoute(status func() AdminStatus) AdminRoute {
	return AdminRoute{http.MethodGet, "/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "", status())
	}}
}
