package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of killing.
const (
	batch          = 200              // leases of one target that are killed together
	oneByOne       = 4                // at once, where a broker kills one by one
	attemptTimeout = 10 * time.Second // for one lease, or one batch where the broker takes many
	claim          = time.Minute      // for which whoever was asked to kill is left to it
)

// Receipt is what became of one lease that was to be killed.
type Receipt struct {
	Lease  string
	Target string
	State  string // dead, dies, may_exist or pending
	At     time.Time
	Reason string
}

// Pending is the state of a receipt that says only that the attempts go on.
const Pending = "pending"

// Kill kills every lease that is id or descends from it, everywhere at once, and waits for as long as ctx allows. What is
// not dead by then stays dying and is tried until it is; its receipt says pending. Who calls it has made sure that no
// new ones come to be.
func (k *Keeper) Kill(ctx context.Context, id, why string) ([]Receipt, error) {
	ids, err := k.Store.Below(ctx, id)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	byTarget, err := k.condemn(ctx, ids, why)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	receipts := map[string]Receipt{}
	for target, list := range byTarget {
		for _, l := range list {
			receipts[l.ID] = Receipt{Lease: l.ID, Target: target, State: Pending}
		}
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	detached := context.WithoutCancel(ctx) // who stops waiting does not stop the killing
	for target, list := range byTarget {
		all.Go(func() {
			for part := range slices.Chunk(list, batch) {
				out, err := k.kill(detached, target, part)
				mu.Lock()
				for _, r := range out {
					receipts[r.Lease] = r
				}
				mu.Unlock()
				if err != nil { // the target does not answer: the rest is for later
					k.release(detached, list)
					return
				}
			}
		})
	}
	k.running.Go(func() { all.Wait(); close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	out := make([]Receipt, 0, len(receipts))
	for _, id := range ids {
		if r, ok := receipts[id]; ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// condemn makes leases dying, and returns them by target.
func (k *Keeper) condemn(ctx context.Context, ids []string, why string) (map[string][]Lease, error) {
	var mu sync.Mutex
	found := make(map[string]Lease, len(ids))
	err := k.update(ctx, ids, func(l *Lease) Verdict {
		l.die(why, k.Now().Add(claim))
		mu.Lock()
		found[l.ID] = *l
		mu.Unlock()
		return Write
	})
	if err != nil {
		return nil, err
	}
	byTarget := map[string][]Lease{}
	for _, l := range found {
		byTarget[l.Target] = append(byTarget[l.Target], l)
	}
	return byTarget, nil
}

// release hands leases that are still dying to whoever cleans up.
func (k *Keeper) release(ctx context.Context, list []Lease) {
	ids := make([]string, len(list))
	for i, l := range list {
		ids[i] = l.ID
	}
	now := k.Now()
	_ = k.update(ctx, ids, func(l *Lease) Verdict { // else the claim runs out
		if l.State != Dying || l.Dies != "" || l.Due.Before(now) {
			return Leave
		}
		l.Due = now
		return Write
	})
	k.nudge()
}

// kill tries to kill leases of one target, and keeps what came of it. The error says that none could be reached.
func (k *Keeper) kill(ctx context.Context, target string, list []Lease) ([]Receipt, error) {
	results := k.attempt(ctx, target, list)
	reached := false
	byID := make(map[string]brokers.Result, len(list))
	ids := make([]string, len(list))
	for i, l := range list {
		ids[i], byID[l.ID] = l.ID, results[i]
		reached = reached || results[i].Err == nil
	}
	type end struct {
		lease   Lease
		receipt brokers.Receipt
	}
	var mu sync.Mutex
	ended := map[string]end{}
	err := k.Store.Update(ctx, ids, func(l *Lease) Verdict {
		verdict, tell := k.settle(l, byID[l.ID])
		mu.Lock()
		defer mu.Unlock()
		delete(ended, l.ID)
		if tell {
			ended[l.ID] = end{*l, byID[l.ID].Receipt}
		}
		return verdict
	})
	if err != nil {
		return nil, err
	}
	for _, e := range ended {
		k.Ended(e.lease, e.receipt)
	}
	out := make([]Receipt, len(list))
	for i, l := range list {
		out[i] = Receipt{Lease: l.ID, Target: target, State: Pending}
		switch r := results[i]; {
		case r.Err != nil:
			out[i].Reason = faultOf(r.Err)
		default:
			out[i].State, out[i].At, out[i].Reason = r.Receipt.State.String(), r.Receipt.At, r.Receipt.Reason
		}
	}
	if !reached {
		return out, fmt.Errorf("%w: %s", ErrPending, target)
	}
	return out, nil
}

// settle decides what a lease is after an attempt to kill it, and whether that is worth telling.
func (k *Keeper) settle(l *Lease, r brokers.Result) (v Verdict, tell bool) {
	now := k.Now()
	if l.State == Live { // its time had come
		l.State, l.Why = Dying, WhyExpired
	}
	if l.State == Minting {
		l.State, l.Why = Dying, WhyAbandoned
	}
	switch {
	case r.Err != nil:
		l.Tries++
		l.Fault = faultOf(r.Err)
		l.Due = now.Add(jitter(pause(l.Tries - 1)))
		return Write, false
	case r.Receipt.State != brokers.Dead && r.Receipt.At.After(now):
		tell = l.Dies == ""
		l.Dies = r.Receipt.State.String() + ": " + r.Receipt.Reason
		l.Due = r.Receipt.At
		return Write, tell
	case l.Fingerprint == "" && now.Before(l.Opened.Add(settleAfter)):
		// An intent without an outcome: what was sent for it may still be at work. Once more when that is over.
		l.Due = l.Opened.Add(settleAfter)
		return Write, false
	}
	return Remove, l.Dies == ""
}

// jitter keeps many that failed together from coming back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// attempt asks the broker. Results are in the order of the list.
func (k *Keeper) attempt(ctx context.Context, target string, list []Lease) []brokers.Result {
	results := make([]brokers.Result, len(list))
	b, ok := k.Brokers(target)
	handles := make([]brokers.Handle, 0, len(list))
	at := make([]int, 0, len(list)) // handle -> place in list
	for i, l := range list {
		data, err := k.Seal.open(l.ID, l.Handle)
		if !ok {
			err = errNoBroker
		}
		if err != nil && !(ok && errors.Is(err, errSeal)) {
			results[i].Err = err
			continue
		}
		// What cannot be opened is tried by its name alone.
		handles, at = append(handles, brokers.Handle{Lease: l.ID, Name: l.Name, Expires: l.Expires, Data: data}), append(at, i)
	}
	if len(handles) == 0 {
		return results
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if bulk, ok := b.(brokers.BulkRevoker); ok {
		for j, r := range bulk.RevokeAll(ctx, handles) {
			results[at[j]] = r
		}
		return results
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, oneByOne)
	for j, h := range handles {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			r, err := b.Revoke(ctx, h)
			results[at[j]] = brokers.Result{Receipt: r, Err: err}
		})
	}
	all.Wait()
	return results
}

var errNoBroker = errors.New("the target is not configured any more; put it back until its leases are dead")

// maxFault is how much of an error is kept, in bytes.
const maxFault = 256

func faultOf(err error) string {
	s := err.Error()
	if len(s) > maxFault {
		s = s[:maxFault]
	}
	return s
}
