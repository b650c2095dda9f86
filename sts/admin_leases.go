package sts

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/operator"
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
	Stays    string    `json:"stays,omitempty"`
}

// Bounds of one page of leases.
const (
	pageDefault = 100
	pageMost    = 1000
)

// LeasesRoute answers GET /admin/v1/leases from the ledger that each walks: limit, after, state, target and
// rule are of the lease itself; every other query parameter is a term of a selector, which what it descends from may match as well.
func LeasesRoute(each func(context.Context, func(lease.Lease) error) error, h revocation.Hasher) AdminRoute {
	return AdminRoute{http.MethodGet, "/leases", operator.Look, func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, after := pageDefault, query.Get("after")
		var terms []string
		for key, values := range query {
			switch n, err := strconv.Atoi(values[0]); {
			case key == "limit" && (err != nil || n < 1 || n > pageMost):
				writeJSON(w, http.StatusBadRequest, "", adminError{fmt.Sprintf("limit is not a number from 1 to %d", pageMost)})
				return
			case key == "limit":
				limit = n
			case key == "state" && values[0] != "" && !slices.Contains([]lease.State{lease.Minting, lease.Live, lease.Dying}, lease.State(values[0])):
				writeJSON(w, http.StatusBadRequest, "", adminError{"state is none of minting, live and dying"})
				return
			case key != "after" && key != "state" && key != "target" && key != "rule":
				for _, v := range values {
					terms = append(terms, key+"="+v)
				}
			}
		}
		var sel revocation.Selector
		if len(terms) > 0 {
			var err error
			if sel, err = revocation.ParseSelector(terms); err != nil {
				writeJSON(w, http.StatusBadRequest, "", adminError{err.Error()})
				return
			}
		}
		sel, err := caller(r).Confine(operator.Look, sel)
		if err != nil {
			forbid(w, err)
			return
		}
		out := AdminLeases{Leases: []AdminLease{}}
		err = each(r.Context(), func(l lease.Lease) error {
			for key, of := range map[string]string{"state": string(l.State), "target": l.Target, "rule": l.Rule} {
				if want := query.Get(key); want != "" && want != of {
					return nil
				}
			}
			if len(sel) > 0 && !FactsOf(h, l).Matches(h, sel) {
				return nil
			}
			out.Total++
			if l.ID > after {
				out.Leases = append(out.Leases, AdminLease{
					ID: l.ID, Family: l.Family, Target: l.Target, Workload: l.Workload, Name: l.Name, Scopes: l.Scopes, Rule: l.Rule,
					State: string(l.State), Opened: l.Opened, Expires: l.Expires, Why: l.Why, Tries: l.Tries, Fault: l.Fault, Dies: l.Dies, Stays: l.Stays,
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

// decisionID reports whether s has the form of a decision id.
func decisionID(s string) bool {
	return len(s) == 26 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}
