package sts

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sallyport-sts/sallyport/sts/audit"
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
	if stands < 0 {
		writeJSON(w, http.StatusNotFound, "", adminError{"no lock with this id stands; see: sallyport locks"})
		return
	}
	lock := list[stands]
	by, _ := OperatorOf(r.Context())
	e := x.open(Request{})
	e.rec.Type, e.verified, e.by, e.rec.Reason = audit.TypeRevocation, true, by.Name, word(r.URL.Query().Get("reason"))
	position, _, err := x.revocations.Revoke(r.Context(), revocation.Entry{Lifts: id, Decision: e.decision, At: e.now.UTC(), Until: lock.Until.Add(time.Hour), By: by.Name})
	if err != nil {
		e.refuse(r.Context(), err)
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the end of the lock is not durable everywhere it has to be; try again"})
		return
	}
	out := AdminRevoked{ID: e.decision, Action: "unlock", Selector: lock.Selector, Position: position.String(), Counts: map[string]int{}}
	e.selected(out, position, nil)
	_ = e.append(r.Context())
	writeJSON(w, http.StatusOK, e.decision, out)
}
