package sts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// AdminRevocation is the body of POST /admin/v1/revocations.
type AdminRevocation struct {
	Selector []string  `json:"selector"`              // KEY=VALUE, all of which hold of one exchange
	Lock     bool      `json:"lock,omitempty"`        // it stands: what it matches is refused from now on as well
	TTL      int64     `json:"ttl_seconds,omitempty"` // of a lock; 0: until it is lifted
	Before   time.Time `json:"before,omitzero"`       // only what was decided before this moment, which is past; not of a lock
	DryRun   bool      `json:"dry_run,omitempty"`     // nothing is done: the answer says what would die
	Drill    bool      `json:"drill,omitempty"`       // a dry run, and a revocation that matches nothing, to see it reach every replica
	Reason   string    `json:"reason,omitempty"`
	Ticket   string    `json:"ticket,omitempty"`
	Count    bool      `json:"count,omitempty"`        // say which tokens it killed, as far as this replica's log tells within a second
	Wait     int       `json:"wait_seconds,omitempty"` // for replicas, and for what lives outside to be seen dead, at most 10; default 5

	confined string // to this trust domain, by the roles of whoever asked
}

// AdminRevoked is its answer: the revocation is in force and durable, and this became of what it matches.
type AdminRevoked struct {
	ID       string         `json:"id,omitempty"` // none for a dry run
	Action   string         `json:"action"`       // revoke, lock, unlock or drill
	Selector []string       `json:"selector,omitempty"`
	Before   time.Time      `json:"before,omitzero"`    // only what was decided before this
	Position string         `json:"position,omitempty"` // EPOCH.N
	Expires  time.Time      `json:"expires,omitzero"`   // of a lock
	Applied  []AdminApplied `json:"applied,omitempty"`  // on replicas
	Counts   map[string]int `json:"counts"`             // of leases outside, by what became of them: dead, dies, may_exist, stays, pending; live in a dry run
	Receipts []AdminReceipt `json:"receipts,omitempty"` // the first hundred; those that are not dead come first
	Tokens   *AdminTokens   `json:"tokens,omitempty"`   // minted here, as far as this replica's log tells: living in a dry run, else those that it killed
	Warnings []string       `json:"warnings,omitempty"` // names in the selector that the configuration in force does not have, and the like
	Proposal string         `json:"proposal,omitempty"` // nothing is done yet: another person has to approve this
	Confined string         `json:"confined,omitempty"` // to this trust domain, that of whoever asked: what is named and is of another lives on

	// What is true of an answer that is accepted (202) and not whole. The warnings say more.
	Local      bool `json:"local,omitempty"`      // in force and durable on this replica alone: the shared store is not there; the others have it as soon as it is
	Incomplete bool `json:"incomplete,omitempty"` // in force, and not all that was asked for: a lock that only killed, or leases that nobody could look up
}

// AdminApplied says whether a replica has applied a revocation.
type AdminApplied struct {
	Replica string  `json:"replica"`
	Applied bool    `json:"applied"`
	Serves  bool    `json:"serves"`       // false for one that has been silent for so long that it answers nothing
	Millis  float64 `json:"ms,omitempty"` // after the revocation was durable
	Silent  float64 `json:"silent_seconds,omitempty"`
}

// AdminReceipt says what became of one credential.
type AdminReceipt struct {
	Lease    string    `json:"lease"`
	Target   string    `json:"target"`
	Workload string    `json:"workload,omitempty"`
	State    string    `json:"state"` // dead, dies, may_exist, stays or pending; in a dry run that of the lease
	At       time.Time `json:"at,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// Bounds of what operators ask.
const (
	longestLife = 2 * time.Hour              // of anything that descends from a lease, whatever the lease is
	keptFor     = 31 * 24 * time.Hour        // how long one is kept: a platform's token that does not say when it was issued may live for as long as it likes
	mostTTL     = 366 * 24 * time.Hour       // of a lock
	forever     = 100 * 365 * 24 * time.Hour // of one that has none
	countWait   = time.Second                // for the log to say what was killed
	mostWait    = 10                         // seconds that an operator can wait in one call: with what is done besides, an answer takes 13, and the listener gives it 15
	settleAgain = 2 * time.Second            // after which what was in flight when replicas had not heard yet is looked for once more
)

// RevocationRoutes answer what revokes and locks, and lists and lifts locks. scan walks over the records of this replica's
// log that are not older than from.
func (x *Exchanger) RevocationRoutes(scan func(from time.Time, do func(audit.Record) error) error) []AdminRoute {
	return []AdminRoute{
		{http.MethodPost, "/revocations", operator.Look, func(w http.ResponseWriter, r *http.Request) { x.serveAdminRevoke(w, r, scan) }}, // more than look unless it is a dry run
		{http.MethodGet, "/revocations/{id}", operator.Look, x.serveProgress},
		{http.MethodGet, "/locks", operator.Look, x.serveLocks},
		{http.MethodDelete, "/locks/{id}", operator.Unlock, x.serveUnlock},
		{http.MethodPost, "/approvals", operator.Look, func(w http.ResponseWriter, r *http.Request) { x.serveApproval(w, r, scan) }}, // and what is approved
	}
}

// scan walks over the records of this replica's log that are not older than from.
type scan = func(from time.Time, do func(audit.Record) error) error

const revocationForm = `the body must be {"selector": ["KEY=VALUE", ...], "lock": true or false, "ttl_seconds": of a lock, "before": a moment that is past, "dry_run": or "drill": true or false, "reason": and "ticket": at most 256 bytes, "count": true or false, "wait_seconds": at most 10}`

func (x *Exchanger) serveAdminRevoke(w http.ResponseWriter, r *http.Request, scan scan) {
	var ask AdminRevocation
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil || len(ask.Reason) > maxReason || len(ask.Ticket) > maxReason || ask.Wait < 0 || ask.Wait > mostWait ||
		ask.TTL < 0 || ask.Drill && ask.DryRun || time.Duration(ask.TTL) > mostTTL/time.Second || ask.TTL > 0 && !ask.Lock {
		writeJSON(w, http.StatusBadRequest, "", adminError{revocationForm})
		return
	}
	about(r, ask.Selector, because(ask))
	sel, err := revocation.ParseSelector(ask.Selector)
	if err == nil && sel.Value(revocation.KeyLease) != "" && (ask.Lock || !decisionID(sel.Value(revocation.KeyLease))) {
		err = fmt.Errorf("%w: lease takes the 26 characters of an id, and cannot be locked: nothing is ever exchanged as an old lease again", revocation.ErrSelector)
	}
	if err == nil && !ask.Before.IsZero() {
		err = x.pastMoment(sel, ask)
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, "", adminError{err.Error()})
		return
	}
	by, action := caller(r), operator.Revoke
	if ask.DryRun {
		action = operator.Look
	}
	asked := sel
	if sel, err = by.Confine(action, sel); err != nil {
		forbid(w, err)
		return
	}
	about(r, sel, because(ask))
	if !slices.Equal(asked, sel) {
		ask.confined = sel.Value(revocation.KeyTrustDomain)
	}
	if by.Remote() && ask.Reason == "" && !ask.DryRun {
		writeJSON(w, http.StatusBadRequest, "", adminError{sayWhy})
		return
	}
	if ask.DryRun || ask.Drill {
		out, err := x.wouldDie(r.Context(), sel, ask, scan)
		if err != nil {
			writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the ledger of leases or the audit log cannot be read; see the server's log"})
			return
		}
		if ask.Drill {
			x.drill(w, r, ask, out)
			return
		}
		writeJSON(w, http.StatusOK, "", out)
		return
	}
	ask.Selector = sel
	if x.operators().Second.Needs(operator.Revoke, sel) {
		x.propose(w, r, proposal{Ask: &ask})
		return
	}
	x.execute(w, r, sel, ask, x.revocationBy(r, by.Name), scan)
}

// operators knows who may respond, and what takes two.
func (x *Exchanger) operators() *operator.Authority {
	if a := x.state.Load().Operators; a != nil {
		return a
	}
	return new(operator.Authority)
}

// revocationBy begins the record of a revocation, a lock or the end of one, by somebody who may.
func (x *Exchanger) revocationBy(r *http.Request, by string) *entry {
	e := x.open(Request{Remote: remote(r)})
	e.rec.Type, e.verified, e.by = audit.TypeRevocation, true, by
	return e
}

const sayWhy = "say why: operators from elsewhere give a reason with what they change, and with drills"

// pastMoment checks the moment of a revocation: it tells what was decided before it from what came after.
func (x *Exchanger) pastMoment(sel revocation.Selector, ask AdminRevocation) error {
	switch {
	case ask.Lock:
		return fmt.Errorf("%w: a lock refuses from now on, and takes no moment", revocation.ErrSelector)
	case sel.Value(revocation.KeyLease) != "", sel.Value(revocation.KeyToken) != "", sel.Value(revocation.KeyJTI) != "":
		return fmt.Errorf("%w: lease, token and jti name one thing, which a moment does not divide", revocation.ErrSelector)
	case ask.Before.After(x.now()):
		return fmt.Errorf("%w: before is %s, which is not past; leave it out for this moment, or lock", revocation.ErrSelector, ask.Before.UTC().Format(time.RFC3339))
	}
	return nil
}

func because(ask AdminRevocation) string {
	if ask.Ticket == "" {
		return word(ask.Reason)
	}
	return word(strings.TrimSpace("[" + ask.Ticket + "] " + ask.Reason))
}

// of says of which trust domains a lease is: those of whoever had a hand in it, and of what it descends from.
func (x *Exchanger) of(l lease.Lease) func(domain string) bool {
	h := x.revocations.Hasher()
	f := FactsOf(h, l)
	return func(domain string) bool {
		return f.Matches(h, revocation.Selector{revocation.KeyTrustDomain + "=" + domain})
	}
}

// strange says which names of a selector the configuration in force does not have: a slip of the pen matches nothing. They may
// be those of an older one.
func (x *Exchanger) strange(sel revocation.Selector) []string {
	p := x.state.Load().Policy
	var out []string
	for _, term := range sel {
		key, value, _ := strings.Cut(term, "=")
		if hash := x.ConfigHash(); key == revocation.KeyPolicy && value != hash {
			out = append(out, "the configuration in force here is not policy "+word(value)+" but "+hash+"; it may be an older one, or another replica's")
		}
		if why := p.Strange(key, value); why != "" {
			out = append(out, word(why))
		}
	}
	return out
}
