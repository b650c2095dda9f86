package sts

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// AdminLocks is the answer to GET /admin/v1/locks.
type AdminLocks struct {
	Locks []AdminLock `json:"locks"`
}

// AdminLock is a lock that stands.
type AdminLock struct {
	ID       string    `json:"id"`
	Selector []string  `json:"selector"`
	Since    time.Time `json:"since"`
	Expires  time.Time `json:"expires,omitzero"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// serveLocks answers GET /admin/v1/locks. Who may look in some trust domains sees the locks that name one of those.
func (x *Exchanger) serveLocks(w http.ResponseWriter, r *http.Request) {
	by, out := caller(r), x.locks()
	out.Locks = slices.DeleteFunc(out.Locks, func(l AdminLock) bool { return !mine(by, operator.Look, l.Selector) })
	writeJSON(w, http.StatusOK, "", out)
}

// mine reports whether an operator may do something to a lock: one that names a trust domain of its own.
func mine(by operator.Operator, a operator.Action, sel revocation.Selector) bool {
	domain := sel.Value(revocation.KeyTrustDomain)
	return by.Everywhere(a) || domain != "" && by.In(a, domain) == nil
}

func (x *Exchanger) locks() AdminLocks {
	out := AdminLocks{Locks: []AdminLock{}}
	now := x.now()
	for _, e := range x.revocations.Locks(now) {
		l := AdminLock{ID: e.Decision, Selector: e.Selector, Since: e.At, By: e.By, Reason: e.Why}
		if e.Until.Before(now.Add(mostTTL + 24*time.Hour)) {
			l.Expires = e.Until
		}
		out.Locks = append(out.Locks, l)
	}
	slices.SortFunc(out.Locks, func(a, b AdminLock) int { return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID)) })
	return out
}

// serveUnlock answers DELETE /admin/v1/locks/{id}: from now on the lock refuses nothing. What it killed stays dead.
func (x *Exchanger) serveUnlock(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	list := x.revocations.Locks(x.now())
	stands := slices.IndexFunc(list, func(e revocation.Entry) bool { return e.Decision == id })
	by := caller(r)
	if stands < 0 || !mine(by, operator.Unlock, list[stands].Selector) { // of one that is another's not even that it is there
		writeJSON(w, http.StatusNotFound, "", adminError{"no lock with this id stands; see: sallyport locks"})
		return
	}
	reason := r.URL.Query().Get("reason")
	about(r, list[stands].Selector, word(reason))
	if by.Remote() && reason == "" {
		writeJSON(w, http.StatusBadRequest, "", adminError{sayWhy})
		return
	}
	if x.operators().Second.Needs(operator.Unlock, nil) {
		x.propose(w, r, proposal{Unlock: id, Reason: reason})
		return
	}
	x.lift(w, r, list[stands], reason, x.revocationBy(r, by.Name))
}

// lift lifts a lock that stands.
func (x *Exchanger) lift(w http.ResponseWriter, r *http.Request, lock revocation.Entry, reason string, e *entry) {
	e.rec.Reason = word(reason)
	position, _, err := x.revocations.Revoke(r.Context(), revocation.Entry{Lifts: lock.Decision, Decision: e.decision, At: e.now.UTC(), Until: lock.Until.Add(time.Hour), By: e.by})
	out, status := AdminRevoked{ID: e.decision, Action: "unlock", Selector: lock.Selector, Position: position.String(), Counts: map[string]int{}}, http.StatusOK
	switch {
	case errors.Is(err, revocation.ErrUnshared):
		out.Local, out.Position, status = true, "", http.StatusAccepted
		out.Warnings = []string{alone}
	case err != nil:
		e.refuse(r.Context(), err)
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the lock stands: its end would not be durable; try again"})
		return
	}
	e.selected(out, position, nil)
	_ = e.append(r.Context())
	writeJSON(w, status, e.decision, out)
}
