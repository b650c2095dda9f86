package sts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// execute revokes or locks what was checked and allowed.
func (x *Exchanger) execute(w http.ResponseWriter, r *http.Request, sel revocation.Selector, ask AdminRevocation, e *entry, scan scan) {
	e.rec.Reason, e.wait = because(ask), time.Duration(cmp.Or(ask.Wait, 5))*time.Second
	out, err := x.revokeSelected(r.Context(), sel, ask, e)
	if err == nil && ask.Count && sel.Value(revocation.KeySigningKey) == "" { // when all is done: the killing waits for nothing
		counting, cancel := context.WithTimeout(r.Context(), countWait)
		defer cancel()
		if t, err := x.tokens(counting, sel, ask.Before, scan); err == nil {
			out.Tokens = &t
		}
		if out.nothing() {
			out.Warnings = append(out.Warnings, nothingLives)
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

// nothingLives is what an operator is told of a selector that nothing was found for.
const nothingLives = "nothing that lives matches, as far as this replica's log of tokens and the ledger of leases tell; tokens of the platform that it matches are refused all the same"

// nothing reports whether nothing was found, and all of it was looked through.
func (a AdminRevoked) nothing() bool {
	return a.Tokens != nil && a.Tokens.Living == 0 && len(a.Receipts) == 0 && !a.Local && !a.Incomplete
}

// killOf is the id of the entry that keeps dead what a short lock kills.
func killOf(lock string) string {
	sum := sha256.Sum256([]byte("sallyport kill " + lock))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// alone is what an operator is told of what the shared store could not be told.
const alone = "in force and durable on this replica alone, because it cannot reach the shared store: the others follow as soon as it can"

// enforce makes a revocation or lock durable and effective, and says what is in force from which position on. After an error
// nothing is.
func (x *Exchanger) enforce(ctx context.Context, sel revocation.Selector, ask AdminRevocation, e *entry) (out AdminRevoked, position revocation.Position, err error) {
	entry := revocation.Entry{Selector: sel, Lock: ask.Lock, Before: ask.Before, Decision: e.decision, At: e.now.UTC(), Until: e.now.UTC().Add(keptFor), Why: e.rec.Reason, By: e.by}
	if id := sel.Value(revocation.KeyLease); id != "" {
		entry.Lease, entry.Selector, entry.Until = id, nil, e.now.UTC().Add(longestLife+deadForSure)
	}
	out = AdminRevoked{ID: e.decision, Action: "revoke", Selector: sel, Before: ask.Before, Warnings: x.strange(sel), Confined: ask.confined}
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
	killed := false
	if ask.Lock && entry.Until.Before(entry.At.Add(keptFor)) { // what it kills lives longer than it stands
		kill := entry
		kill.Lock, kill.Decision, kill.Until = false, killOf(e.decision), entry.At.Add(keptFor)
		if position, err = put(kill); err != nil {
			return out, position, err
		}
		killed = true
	}
	p, err := put(entry)
	switch {
	case err == nil:
		position = p
	case killed:
		out.Action, out.Expires, out.Incomplete = "revoke", time.Time{}, true
		out.Warnings = append(out.Warnings, "what it matches is dead, and the lock itself would not be durable: what is decided from now on is refused by nothing. Lock once more")
	default:
		return out, position, err
	}
	return out, position, nil
}

// revokeSelected puts it into force, waits for replicas, kills what lives outside, and looks once more for what was in flight.
// After an error nothing is in force; whatever else could not be done is in the answer.
func (x *Exchanger) revokeSelected(ctx context.Context, sel revocation.Selector, ask AdminRevocation, e *entry) (AdminRevoked, error) {
	out, position, err := x.enforce(ctx, sel, ask, e)
	if err != nil {
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
	heard := make(chan struct{})
	go func() { defer close(heard); x.applied(waiting, position, durable, &out) }()
	receipts, err := x.killWhere(waiting, match, e)
	<-heard
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
	out.Position = position.String()
	out.Counts, out.Receipts = told(receipts)
	return out, nil
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
// says in out when each was seen to have, or that nobody could see.
func (x *Exchanger) applied(ctx context.Context, p revocation.Position, durable time.Time, out *AdminRevoked) {
	seen := map[string]AdminApplied{}
	var unseen error
	for rest := time.Millisecond; ; rest = min(2*rest, 50*time.Millisecond) {
		list, err := x.revocations.Replicas(context.WithoutCancel(ctx)) // bounded by itself
		waiting := err != nil
		unseen = err
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
	out.Applied = make([]AdminApplied, 0, len(seen))
	for _, a := range seen {
		out.Applied = append(out.Applied, a)
	}
	slices.SortFunc(out.Applied, func(a, b AdminApplied) int { return strings.Compare(a.Replica, b.Replica) })
	if unseen != nil {
		out.Incomplete = true
		out.Warnings = append(out.Warnings, "durable, and in force here; whether other replicas have applied it could not be seen, because the store did not answer: one that does not hear of it stops issuing after revocation.max_staleness. Ask for it once more when the store is back")
	}
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
