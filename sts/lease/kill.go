package lease

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of killing.
const (
	batch = 200         // leases of one target that are killed together
	claim = time.Minute // for which whoever was asked to kill is left to it
)

// Receipt is what became of one lease that was to be killed.
type Receipt struct {
	Lease  string
	Target string
	State  string // dead, dies, may_exist, stays or pending
	At     time.Time
	Reason string
}

// interim is a receipt, and whether the lease was killed and has to be once more.
type interim struct {
	Receipt
	again bool
}

// Pending is the state of a receipt that says only that the attempts go on.
const Pending = "pending"

// Kill kills every lease that is id or descends from it, since its holder gave it back, everywhere at once, and waits for as long as ctx allows. What is
// not dead by then stays dying and is tried until it is; its receipt says pending. Who calls it has made sure that no
// new ones come to be.
func (k *Keeper) Kill(ctx context.Context, id, why string) ([]Receipt, error) {
	ids, err := k.Store.Below(ctx, id)
	if err != nil {
		return nil, err
	}
	return k.killThese(ctx, ids, why, true)
}

// KillWhere is Kill for every lease that match finds, whoever wants that. It walks over all of them and depends on no index.
func (k *Keeper) KillWhere(ctx context.Context, match func(Lease) bool, why string) ([]Receipt, error) {
	var ids []string
	err := k.Store.Each(ctx, func(l Lease) error {
		if match(l) {
			ids = append(ids, l.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k.killThese(ctx, ids, why, false)
}

func (k *Keeper) killThese(ctx context.Context, ids []string, why string, returned bool) ([]Receipt, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	byTarget, receipts, err := k.condemn(ctx, ids, why, returned)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	for target, list := range byTarget {
		for _, l := range list {
			receipts[l.ID] = interim{Receipt: Receipt{Lease: l.ID, Target: target, State: Pending}}
		}
	}
	done := make(chan struct{})
	k.track(func() {
		defer close(done)
		var all sync.WaitGroup
		for target, list := range byTarget {
			all.Go(func() {
				k.killAll(context.WithoutCancel(ctx), target, list, func(r interim) { // who stops waiting does not stop the killing
					mu.Lock()
					defer mu.Unlock()
					receipts[r.Lease] = r
				})
			})
		}
		all.Wait()
	})
	select {
	case <-done:
		k.await(ctx, receipts)
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	out := make([]Receipt, 0, len(receipts))
	for _, id := range ids {
		if r, ok := receipts[id]; ok {
			out = append(out, r.Receipt)
		}
	}
	return out, nil
}

// await waits for mints that ran while they were killed: whoever ends one closes its lease when it is dead. Nobody else has
// the receipts any more.
func (k *Keeper) await(ctx context.Context, receipts map[string]interim) {
	var left []string
	for id, r := range receipts {
		if r.again {
			left = append(left, id)
		}
	}
	for rest := time.Millisecond; len(left) > 0; rest = min(2*rest, tickEvery) {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
		var there []string
		_, err := k.update(ctx, left, func(l *Lease) Verdict {
			there = append(there, l.ID)
			return Leave
		})
		if err != nil {
			return
		}
		for _, id := range left {
			if !slices.Contains(there, id) {
				receipts[id] = interim{Receipt: Receipt{Lease: id, Target: receipts[id].Target, State: brokers.Dead.String(), At: k.Now()}}
			}
		}
		left = there
	}
}

// killAll kills leases of one target, so many at a time. When the target does not answer, or Run has ended, the rest is
// for later.
func (k *Keeper) killAll(ctx context.Context, target string, list []Lease, tell func(interim)) {
	for len(list) > 0 {
		part := list[:min(batch, len(list))]
		list = list[len(part):]
		out, err := k.kill(ctx, target, part)
		for _, r := range out {
			tell(r)
		}
		if err != nil || k.over() {
			break
		}
	}
	k.release(ctx, list)
	k.nudge()
}

// condemn makes leases dying, and returns them by target. Of what its holder gives back once more, and what dies by itself as
// far as could be done, it returns the receipt.
func (k *Keeper) condemn(ctx context.Context, ids []string, why string, returned bool) (map[string][]Lease, map[string]interim, error) {
	now, receipts := k.Now(), map[string]interim{}
	found, err := k.update(ctx, ids, func(l *Lease) Verdict {
		if reason, dies := strings.CutPrefix(l.Dies, brokers.DiesAt.String()+": "); returned && dies && l.State == Dying && l.Tries == 0 && l.Due.After(now) {
			receipts[l.ID] = interim{Receipt: Receipt{Lease: l.ID, Target: l.Target, State: brokers.DiesAt.String(), At: l.Due, Reason: reason}}
			return Leave
		}
		l.Returned = returned && (l.Returned || l.State != Dying) // who wants it dead besides its holder is not forgotten
		l.die(why, now, now.Add(claim))
		return Write
	})
	if err != nil {
		k.release(context.WithoutCancel(ctx), found)
		return nil, nil, err
	}
	byTarget := map[string][]Lease{}
	for _, l := range found {
		if _, told := receipts[l.ID]; !told {
			byTarget[l.Target] = append(byTarget[l.Target], l)
		}
	}
	return byTarget, receipts, nil
}

// release hands leases that are still dying to whoever cleans up.
func (k *Keeper) release(ctx context.Context, list []Lease) {
	if len(list) == 0 {
		return
	}
	now := k.Now()
	_, err := k.update(ctx, idsOf(list), func(l *Lease) Verdict {
		if l.State != Dying || l.Dies != "" || l.Due.Before(now) {
			return Leave
		}
		l.Due = now
		return Write
	})
	if err != nil {
		k.Log.Warn().Err(err).Msg("leases could not be handed on; they are killed when the claim on them has run out")
	}
}

func idsOf(list []Lease) []string {
	out := make([]string, len(list))
	for i, l := range list {
		out[i] = l.ID
	}
	return out
}

// kill tries to kill leases of one target, and keeps what came of it. The error says that none could be reached, or that
// what came of it could not be kept.
func (k *Keeper) kill(ctx context.Context, target string, list []Lease) ([]interim, error) {
	results := k.attempt(ctx, target, list)
	reached := false
	at := make(map[string]int, len(list))
	for i, l := range list {
		at[l.ID] = i
		reached = reached || results[i].Err == nil
	}
	fates := make(map[string]fate, len(list))
	kept, err := k.Store.Update(context.WithoutCancel(ctx), idsOf(list), func(l *Lease) Verdict {
		i := at[l.ID]
		f := k.settle(l, list[i], results[i])
		fates[l.ID] = f
		return f.verdict
	})
	for _, l := range kept {
		if fates[l.ID].tell {
			k.Ended(l, results[at[l.ID]].Receipt)
		}
	}
	k.killed(target, results)
	out := make([]interim, len(list))
	for i, l := range list {
		r := results[i]
		f, asked := fates[l.ID]
		out[i].Receipt = Receipt{Lease: l.ID, Target: target, State: Pending}
		switch {
		case r.Err != nil:
			out[i].Reason = faultOf(r.Err)
		case f.again, !asked && k.unsettled(&l):
			out[i].Reason, out[i].again = "its mint may still be at work; it is killed once more when that is over", true
		default:
			out[i].State, out[i].At, out[i].Reason = r.Receipt.State.String(), r.Receipt.At, r.Receipt.Reason
		}
	}
	switch {
	case err != nil:
		return out, err
	case !reached:
		return out, fmt.Errorf("%w: %s", ErrPending, target)
	}
	return out, nil
}

// fate is what an attempt to kill a lease makes of it.
type fate struct {
	verdict Verdict
	tell    bool // it is worth telling
	again   bool // it was killed, and has to be once more
}

// settle decides what a lease is after an attempt to kill it as tried.
func (k *Keeper) settle(l *Lease, tried Lease, r brokers.Result) fate {
	now := k.Now()
	until := r.Receipt.At
	if r.Receipt.State == brokers.Stays { // it is listed for as long as it was granted, though it goes on
		until = l.Expires
	}
	switch l.State {
	case Dying:
	case Minting:
		l.die(WhyAbandoned, now, now)
	case Live:
		l.die(WhyExpired, now, now)
	}
	switch {
	case r.Err != nil && l.Dies != "" && now.After(l.Expires):
		return fate{verdict: Remove} // its time is over, whether or not anybody can be asked
	case r.Err != nil:
		l.Tries++
		l.Fault = faultOf(r.Err)
		l.Due = now.Add(jitter(pause(l.Tries - 1)))
		return fate{verdict: Write}
	case l.Fingerprint != tried.Fingerprint || !bytes.Equal(l.Handle, tried.Handle):
		// Its mint went on while it was tried: what was looked for may have come to be only then.
		l.Due = now
		return fate{verdict: Write, again: true}
	case r.Receipt.State != brokers.Dead && until.After(now):
		f := fate{verdict: Write, tell: l.Dies == "" || l.Tries > 0 && !r.Receipt.Again}
		l.Dies = r.Receipt.State.String() + ": " + r.Receipt.Reason
		l.Due, l.Tries, l.Fault = until, 0, ""
		if r.Receipt.Again {
			l.Tries++
			if next := now.Add(jitter(pause(tried.Tries))); next.Before(until) {
				l.Due, l.Tries = next, tried.Tries+1
			}
		}
		return f
	case k.unsettled(l):
		l.Due = l.Opened.Add(settleAfter)
		return fate{verdict: Write, again: true}
	}
	return fate{verdict: Remove, tell: l.Dies == "" || r.Receipt.State == brokers.Dead && !r.Receipt.Gone}
}

// unsettled reports whether l is an intent without an outcome that is so young that what was sent for it may still be
// at work.
func (k *Keeper) unsettled(l *Lease) bool {
	return l.Fingerprint == "" && k.Now().Before(l.Opened.Add(settleAfter))
}

// jitter keeps many that failed together from coming back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// update changes many leases, so many at a time that nobody else waits long.
func (k *Keeper) update(ctx context.Context, ids []string, change func(*Lease) Verdict) ([]Lease, error) {
	var out []Lease
	for part := range slices.Chunk(ids, batch) {
		kept, err := k.Store.Update(ctx, part, change)
		out = append(out, kept...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
