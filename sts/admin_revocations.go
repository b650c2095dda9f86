package sts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
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
	Wait     int       `json:"wait_seconds,omitempty"` // for replicas, and for what lives outside to be seen dead, at most 12; default 5
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
	namedTokens = 31 * 24 * time.Hour        // how long one that is named is kept: what does not say when it was issued may live for as long as it likes
	olderTokens = 25 * time.Hour             // how long a platform's token can live on that was issued before: the ceiling of lifetimes, and clocks
	mostTTL     = 366 * 24 * time.Hour       // of a lock
	forever     = 100 * 365 * 24 * time.Hour // of one that has none
	countWait   = time.Second                // for the log to say what was killed
	mostWait    = 12                         // seconds that an operator can wait in one call; the listener gives an answer 15
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

const revocationForm = `the body must be {"selector": ["KEY=VALUE", ...], "lock": true or false, "ttl_seconds": of a lock, "before": a moment that is past, "dry_run": or "drill": true or false, "reason": and "ticket": at most 256 bytes, "count": true or false, "wait_seconds": at most 12}`

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
	if sel, err = by.Confine(action, sel); err != nil {
		forbid(w, err)
		return
	}
	about(r, sel, because(ask))
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
	if x.who().Second.Needs(operator.Revoke, sel) {
		x.propose(w, r, proposal{Ask: &ask})
		return
	}
	x.execute(w, r, sel, ask, x.asOf(r, by.Name), scan)
}

// who knows who may respond, and what takes two.
func (x *Exchanger) who() *operator.Authority {
	if a := x.state.Load().Who; a != nil {
		return a
	}
	return new(operator.Authority)
}

// asOf begins the record of a revocation, a lock or the end of one, by somebody who may.
func (x *Exchanger) asOf(r *http.Request, by string) *entry {
	e := x.open(Request{Remote: remote(r)})
	e.rec.Type, e.verified, e.by = audit.TypeRevocation, true, by
	return e
}

const sayWhy = "say why: operators from elsewhere give a reason with what they change, and with drills"

// execute revokes or locks what was checked and allowed.
func (x *Exchanger) execute(w http.ResponseWriter, r *http.Request, sel revocation.Selector, ask AdminRevocation, e *entry, scan scan) {
	e.rec.Reason, e.wait = because(ask), time.Duration(cmp.Or(ask.Wait, 5))*time.Second
	out, err := x.revokeSelected(r.Context(), sel, ask, e)
	if err == nil && ask.Count { // when all is done: the killing waits for nothing
		counting, cancel := context.WithTimeout(r.Context(), countWait)
		defer cancel()
		if t, err := x.tokens(counting, sel, ask.Before, scan); err == nil {
			out.Tokens = &t
		}
		if out.Tokens != nil && out.Tokens.Living == 0 && len(out.Receipts) == 0 && !out.Local && !out.Incomplete {
			out.Warnings = append(out.Warnings, "nothing that lives matches, as far as this replica's log of tokens and the ledger of leases tell; tokens of the platform that it matches are refused all the same")
		}
	}
	switch {
	case err != nil:
		e.refuse(r.Context(), err)
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"nothing is revoked: it would not be durable; try again"})
	case out.Local, out.Incomplete:
		writeJSON(w, http.StatusAccepted, e.decision, out)
	default:
		writeJSON(w, http.StatusOK, e.decision, out)
	}
}

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

// killOf is the id of the entry that keeps dead what a short lock kills.
func killOf(lock string) string {
	sum := sha256.Sum256([]byte("sallyport kill " + lock))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// alone is what an operator is told of what the shared store could not be told.
const alone = "in force and durable on this replica alone, because it cannot reach the shared store: the others follow as soon as it can"

// revokeSelected makes it durable and effective, waits for replicas, kills what lives outside, and looks once more for
// what was in flight. After an error nothing is in force; whatever else could not be done is in the answer.
func (x *Exchanger) revokeSelected(ctx context.Context, sel revocation.Selector, ask AdminRevocation, e *entry) (AdminRevoked, error) {
	kept := olderTokens
	if sel.Value(revocation.KeyToken) != "" || sel.Value(revocation.KeyJTI) != "" {
		kept = namedTokens
	}
	entry := revocation.Entry{Selector: sel, Lock: ask.Lock, Before: ask.Before, Decision: e.decision, At: e.now.UTC(), Until: e.now.UTC().Add(kept), Why: e.rec.Reason, By: e.by}
	if id := sel.Value(revocation.KeyLease); id != "" {
		entry.Lease, entry.Selector, entry.Until = id, nil, e.now.UTC().Add(longestLife+deadForSure)
	}
	out := AdminRevoked{ID: e.decision, Action: "revoke", Selector: sel, Before: ask.Before, Warnings: x.strange(sel)}
	if ask.Lock {
		out.Action = "lock"
		if entry.Until = entry.At.Add(forever); ask.TTL > 0 {
			entry.Until = entry.At.Add(time.Duration(ask.TTL) * time.Second)
			out.Expires = entry.Until
		}
	}
	put := func(entry revocation.Entry) (position revocation.Position, err error) {
		if position, _, err = x.revocations.Revoke(ctx, entry); errors.Is(err, revocation.ErrUnshared) {
			out.Local, err = true, nil
		}
		return position, err
	}
	position, killed := revocation.Position{}, false
	if ask.Lock && entry.Until.Before(entry.At.Add(kept)) { // what it kills lives longer than it stands
		kill := entry
		kill.Lock, kill.Decision, kill.Until = false, killOf(e.decision), entry.At.Add(kept)
		p, err := put(kill)
		if err != nil {
			return out, err
		}
		position, killed = p, true
	}
	p, err := put(entry)
	switch {
	case err == nil:
		position = p
	case killed:
		out.Action, out.Expires, out.Incomplete = "revoke", time.Time{}, true
		out.Warnings = append(out.Warnings, "what it matches is dead, and the lock itself would not be durable: what is decided from now on is refused by nothing. Lock once more")
	default:
		return out, err
	}
	if out.Local { // what lives outside is in the same store: it is swept when that is back
		out.Counts = map[string]int{}
		out.Warnings = append(out.Warnings, alone+"; what lives outside follows as well. Ask a replica that reaches the store too")
		e.selected(out, position, nil)
		_ = e.append(ctx)
		return out, nil
	}
	durable := time.Now()
	waiting, cancel := context.WithTimeout(ctx, e.wait)
	defer cancel()
	match := func(l lease.Lease) bool {
		f := FactsOf(x.revocations.Hasher(), l)
		_, dead := x.revocations.Dead(f)
		return dead && f.MatchesBefore(x.revocations.Hasher(), sel, ask.Before)
	}
	heard := make(chan []AdminApplied, 1)
	go func() { heard <- x.applied(waiting, position, durable) }()
	receipts, err := x.killWhere(waiting, match, e)
	applied := <-heard
	if err == nil { // what was in flight elsewhere is in the ledger now, or was never handed out
		again, cancel := context.WithTimeout(ctx, settleAgain)
		defer cancel()
		var more []lease.Receipt
		more, err = x.killWhere(again, match, e)
		receipts = joined(receipts, more)
	}
	if err != nil {
		out.Incomplete = true
		out.Warnings = append(out.Warnings, "in force; what lives outside could not be looked up, because the ledger of leases cannot be read: it is killed as soon as it can, and sallyport leases then says what is left")
	}
	e.selected(out, position, receipts)
	if x.leases != nil {
		time.AfterFunc(settleAgain, func() {
			once, cancel := context.WithTimeout(context.WithoutCancel(ctx), mostWait*time.Second) // nobody waits for what is tried on
			defer cancel()
			_, _ = x.killWhere(once, match, e)
		})
	}
	_ = e.append(ctx) // in force all the same: the revocation log itself is the evidence
	out.Position, out.Applied = position.String(), applied
	out.Counts, out.Receipts = told(receipts)
	return out, nil
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
		if why := p.Strange(key, value); why != "" {
			out = append(out, word(why))
		}
	}
	return out
}

// killWhere kills what lives outside. What is not dead when ctx ends is tried on.
func (x *Exchanger) killWhere(ctx context.Context, match func(lease.Lease) bool, e *entry) ([]lease.Receipt, error) {
	if x.leases == nil {
		return nil, nil
	}
	return x.leases.KillWhere(ctx, match, e.decision)
}

// joined adds receipts to others: the newer word on a lease counts. Of one that is gone from the ledger nothing new is
// said.
func joined(before, more []lease.Receipt) []lease.Receipt {
	at := map[string]int{}
	for i, r := range before {
		at[r.Lease] = i
	}
	for _, r := range more {
		if i, ok := at[r.Lease]; ok {
			before[i] = r
		} else {
			before = append(before, r)
		}
	}
	return before
}

// selected describes a revocation that is already in force.
func (e *entry) selected(out AdminRevoked, p revocation.Position, receipts []lease.Receipt) {
	e.rec.Revocation = &audit.Revocation{ID: out.ID, Action: out.Action, Selector: out.Selector, Before: out.Before, Position: p.String(), Expires: out.Expires, By: e.by}
	e.recordReceipts(receipts)
}

// applied waits until every replica has applied everything up to p, or has been silent for so long that it serves nothing, and
// says when each was seen to have.
func (x *Exchanger) applied(ctx context.Context, p revocation.Position, durable time.Time) []AdminApplied {
	seen := map[string]AdminApplied{}
	for rest := time.Millisecond; ; rest = min(2*rest, 50*time.Millisecond) {
		list, err := x.revocations.Replicas(context.WithoutCancel(ctx)) // bounded by itself
		waiting := err != nil
		for _, r := range list {
			if seen[r.Name].Applied {
				continue
			}
			a := AdminApplied{Replica: r.Name, Applied: !p.After(r.At), Serves: r.Serves}
			if a.Applied {
				a.Millis = float64(time.Since(durable).Microseconds()) / 1000
			} else {
				a.Silent = r.Silent.Seconds()
				waiting = waiting || r.Serves
			}
			seen[r.Name] = a
		}
		if !waiting {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
			continue
		}
		break
	}
	out := make([]AdminApplied, 0, len(seen))
	for _, a := range seen {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b AdminApplied) int { return strings.Compare(a.Replica, b.Replica) })
	return out
}

// told counts receipts and chooses those that are shown.
func told(receipts []lease.Receipt) (map[string]int, []AdminReceipt) {
	counts, out := map[string]int{}, []AdminReceipt{}
	for _, r := range receipts {
		counts[r.State]++
		out = append(out, AdminReceipt{Lease: r.Lease, Target: r.Target, State: r.State, At: r.At, Reason: r.Reason})
	}
	alive := func(r AdminReceipt) int {
		if r.State == brokers.Dead.String() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b AdminReceipt) int { return alive(a) - alive(b) })
	return counts, out[:min(len(out), maxReceipts)]
}
