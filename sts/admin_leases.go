package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// AdminLeases is the answer to GET /admin/v1/leases: one page, by id.
type AdminLeases struct {
	Leases []AdminLease `json:"leases"`
	Total  int          `json:"total"`          // that match, on all pages
	Next   string       `json:"next,omitempty"` // what to give as after for the next page
}

// AdminLease is one credential that lives outside, or is dying there.
type AdminLease struct {
	ID       string    `json:"id"`
	Family   string    `json:"family"`
	Target   string    `json:"target"`
	Workload string    `json:"workload"`
	Name     string    `json:"name"` // upstream
	Scopes   []string  `json:"scopes,omitempty"`
	Rule     string    `json:"rule,omitempty"`
	State    string    `json:"state"`
	Opened   time.Time `json:"opened"`
	Expires  time.Time `json:"expires"`
	Why      string    `json:"why,omitempty"`
	Tries    int       `json:"tries,omitempty"`
	Fault    string    `json:"fault,omitempty"`
	Dies     string    `json:"dies,omitempty"`
}

// Bounds of one page of leases.
const (
	pageDefault = 100
	pageMost    = 1000
)

// leaseFilters are the query parameters of GET /admin/v1/leases that must equal something of the lease.
var leaseFilters = map[string]func(*lease.Lease) string{
	"lease":   func(l *lease.Lease) string { return l.ID },
	"family":  func(l *lease.Lease) string { return l.Family },
	"target":  func(l *lease.Lease) string { return l.Target },
	"subject": func(l *lease.Lease) string { return l.Workload },
	"rule":    func(l *lease.Lease) string { return l.Rule },
	"state":   func(l *lease.Lease) string { return string(l.State) },
}

// LeasesRoute answers GET /admin/v1/leases from the ledger that each walks.
func LeasesRoute(each func(context.Context, func(lease.Lease) error) error) AdminRoute {
	return AdminRoute{http.MethodGet, "/leases", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, after := pageDefault, query.Get("after")
		for key, values := range query {
			_, known := leaseFilters[key]
			switch n, err := strconv.Atoi(values[0]); {
			case len(values) > 1:
				writeJSON(w, http.StatusBadRequest, "", adminError{fmt.Sprintf("%s is given twice", word(key))})
				return
			case key == "limit" && (err != nil || n < 1 || n > pageMost):
				writeJSON(w, http.StatusBadRequest, "", adminError{fmt.Sprintf("limit is not a number from 1 to %d", pageMost)})
				return
			case key == "limit":
				limit = n
			case key != "after" && !known:
				writeJSON(w, http.StatusBadRequest, "", adminError{fmt.Sprintf("leases are not selected by %s; choose lease, family, target, subject, rule or state", word(key))})
				return
			}
		}
		out := AdminLeases{Leases: []AdminLease{}}
		err := each(r.Context(), func(l lease.Lease) error {
			for key, of := range leaseFilters {
				if want := query.Get(key); want != "" && of(&l) != want {
					return nil
				}
			}
			out.Total++
			if l.ID > after {
				out.Leases = append(out.Leases, AdminLease{
					ID: l.ID, Family: l.Family, Target: l.Target, Workload: l.Workload, Name: l.Name, Scopes: l.Scopes, Rule: l.Rule,
					State: string(l.State), Opened: l.Opened, Expires: l.Expires, Why: l.Why, Tries: l.Tries, Fault: l.Fault, Dies: l.Dies,
				})
			}
			return nil
		})
		if err != nil {
			writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the ledger of leases cannot be read; see the server's log"})
			return
		}
		slices.SortFunc(out.Leases, func(a, b AdminLease) int { return strings.Compare(a.ID, b.ID) })
		if len(out.Leases) > limit {
			out.Leases = out.Leases[:limit]
			out.Next = out.Leases[limit-1].ID
		}
		writeJSON(w, http.StatusOK, "", out)
	}}
}

// AdminRevocation is the body of POST /admin/v1/revocations.
type AdminRevocation struct {
	Lease  string `json:"lease"`
	Reason string `json:"reason,omitempty"`
	Wait   int    `json:"wait_seconds,omitempty"` // for what lives outside to be seen dead, at most 12; default 5
}

// AdminRevoked is its answer: the revocation is in force and durable, and this became of what lives outside.
type AdminRevoked struct {
	ID       string         `json:"id"`
	Position string         `json:"position"`           // EPOCH.N
	Counts   map[string]int `json:"counts"`             // of leases, by what became of them: dead, dies, may_exist, pending
	Receipts []AdminReceipt `json:"receipts,omitempty"` // the first hundred; those that are not dead come first
}

// AdminReceipt says what became of one credential.
type AdminReceipt struct {
	Lease  string    `json:"lease"`
	Target string    `json:"target"`
	State  string    `json:"state"` // dead, dies, may_exist or pending
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// longestLife is how long anything that descends from a lease can live, whatever the lease is.
const longestLife = 2 * time.Hour

// mostWait is how long an operator can wait for receipts in one call.
const mostWait = 12 // seconds; the listener gives an answer 15

// RevocationsRoute answers POST /admin/v1/revocations: kill a lease and all that descends from it, by its id.
func (x *Exchanger) RevocationsRoute() AdminRoute {
	return AdminRoute{http.MethodPost, "/revocations", func(w http.ResponseWriter, r *http.Request) {
		var ask AdminRevocation
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&ask); err != nil || !decisionID(ask.Lease) || len(ask.Reason) > maxReason || ask.Wait < 0 || ask.Wait > mostWait {
			writeJSON(w, http.StatusBadRequest, "", adminError{`the body must be {"lease": the 26 characters of its id, "reason": at most 256 bytes, "wait_seconds": at most 12}`})
			return
		}
		by, _ := OperatorOf(r.Context())
		e := x.open(Request{})
		e.rec.Type, e.verified = audit.TypeRevocation, true
		e.by, e.rec.Reason, e.wait = by.Name, word(ask.Reason), time.Duration(ask.Wait)*time.Second
		err := x.kill(r.Context(), ask.Lease, e.now.Add(longestLife), e)
		switch {
		case err == nil:
		case errors.Is(err, lease.ErrPending), errors.Is(err, lease.ErrUnrevocable):
			_ = e.append(r.Context()) // in force; what is not dead yet is tried on
		default:
			e.refuse(r.Context(), err)
			writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the revocation is not durable everywhere it has to be, or the ledger cannot be read; try again"})
			return
		}
		writeJSON(w, http.StatusOK, e.decision, e.done(x.revocations.Position()))
	}}
}

// done is what an operator is told.
func (e *entry) done(p revocation.Position) AdminRevoked {
	out := AdminRevoked{ID: e.decision, Position: p.String(), Counts: map[string]int{}}
	for _, r := range e.receipts {
		out.Counts[r.State]++
		out.Receipts = append(out.Receipts, AdminReceipt(r))
	}
	alive := func(r AdminReceipt) int {
		if r.State == brokers.Dead.String() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out.Receipts, func(a, b AdminReceipt) int { return alive(a) - alive(b) })
	out.Receipts = out.Receipts[:min(len(out.Receipts), maxReceipts)]
	return out
}

// decisionID reports whether s has the form of a decision id.
func decisionID(s string) bool {
	return len(s) == 26 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}
