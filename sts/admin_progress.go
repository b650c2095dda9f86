package sts

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// serveProgress answers GET /admin/v1/revocations/{id}?position=EPOCH.N&selector=KEY=VALUE...: how far a revocation has come since it
// was answered. What it matches and was dying before, for another reason, is not dead either, and is counted by the selector.
func (x *Exchanger) serveProgress(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	p, err := revocation.ParsePosition(r.URL.Query().Get("position"))
	if err != nil || !decisionID(id) {
		writeJSON(w, http.StatusBadRequest, "", adminError{"ask for /revocations/ID?position=EPOCH.N, as the revocation was answered"})
		return
	}
	by := caller(r)
	mine := func(l lease.Lease) bool { return l.Why == id }
	if terms := r.URL.Query()["selector"]; len(terms) > 0 {
		sel, err := revocation.ParseSelector(terms)
		if err != nil {
			writeJSON(w, http.StatusBadRequest, "", adminError{err.Error()})
			return
		}
		h := x.revocations.Hasher()
		mine = func(l lease.Lease) bool {
			return l.Why == id || l.State == lease.Dying && FactsOf(h, l).Matches(h, sel)
		}
	}
	out := AdminRevoked{ID: id, Action: "revoke", Position: p.String(), Counts: map[string]int{}}
	list, err := x.revocations.Replicas(r.Context())
	for _, one := range list {
		out.Applied = append(out.Applied, AdminApplied{Replica: one.Name, Applied: !p.After(one.At), Serves: one.Serves, Silent: one.Silent.Seconds()})
	}
	if err == nil && x.leases != nil {
		err = x.leases.Store.Each(r.Context(), func(l lease.Lease) error {
			if !mine(l) || !by.Sees(operator.Look, x.of(l)) {
				return nil
			}
			rec := AdminReceipt{Lease: l.ID, Target: l.Target, Workload: l.Workload, State: lease.Pending, Reason: l.Fault}
			if l.Dies != "" {
				state, reason, _ := strings.Cut(l.Dies, ": ")
				rec.State, rec.Reason = state, reason
				if state != brokers.Stays.String() {
					rec.At = l.Due
				}
			}
			out.Counts[rec.State]++
			if len(out.Receipts) < maxReceipts {
				out.Receipts = append(out.Receipts, rec)
			}
			return nil
		})
	}
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the ledger of leases or the shared store cannot be read; see the server's log"})
		return
	}
	writeJSON(w, http.StatusOK, "", out)
}
