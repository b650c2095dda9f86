package sts

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// Check is one reason that can keep the service from issuing. It returns nil, or why, in words an operator
// can act on. Checks are called on every /readyz and must be cheap.
type Check struct {
	Name string
	Err  func() error
	// Warn marks a condition that is worth saying but does not stop the service, such as a reload that
	// was refused while the old configuration keeps running.
	Warn bool
}

// OpsHandler returns the ops listener's handler: /livez answers while the process runs; /readyz is 503 with
// the reasons while a check fails; /metrics is what metrics serves.
func OpsHandler(metrics http.Handler, checks ...Check) http.Handler {
	r := chi.NewRouter()
	r.Get("/livez", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "", map[string]bool{"live": true})
	})
	r.Get("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		var out readiness
		out.Checks, out.Ready = Run(checks)
		status := http.StatusOK
		if !out.Ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, "", out)
	})
	r.Get("/metrics", metrics.ServeHTTP)
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
	})
	return r
}

// Run calls the checks. It reports false when one failed that is not a mere warning.
func Run(checks []Check) (results []CheckResult, ready bool) {
	results, ready = make([]CheckResult, 0, len(checks)), true
	for _, c := range checks {
		res := CheckResult{Name: c.Name, OK: true}
		if err := c.Err(); err != nil {
			res.OK, res.Reason = false, err.Error()
			ready = ready && c.Warn
		}
		results = append(results, res)
	}
	return results, ready
}

type readiness struct {
	Ready  bool          `json:"ready"`
	Checks []CheckResult `json:"checks"`
}

// CheckResult is what a check said.
type CheckResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}
