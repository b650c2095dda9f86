package lease

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// How often the ledger is looked at when nobody asks.
const (
	tickEvery  = 500 * time.Millisecond
	sweepEvery = 10 * time.Second // for what was revoked elsewhere
	reapEvery  = time.Minute      // for each target, of what stands upstream
	reapGrace  = 30 * time.Second // after it was to end, so that clocks may differ
)

// Adopt takes over what a process that ended left behind, at once instead of when it is due. It is for a deployment of
// one replica: nobody else can be minting.
func (k *Keeper) Adopt(ctx context.Context) error {
	var left []string
	err := k.Store.Each(ctx, func(l Lease) error {
		if l.State == Minting || l.State == Dying && l.Dies == "" {
			left = append(left, l.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.update(ctx, left, func(l *Lease) Verdict {
		l.die(WhyAbandoned, k.Now())
		return Write
	})
}

// update changes many leases, so many at a time that nobody else waits long.
func (k *Keeper) update(ctx context.Context, ids []string, change func(*Lease) Verdict) error {
	for part := range slices.Chunk(ids, batch) {
		if err := k.Store.Update(ctx, part, change); err != nil {
			return err
		}
	}
	return nil
}

// Run kills what is due until ctx ends, and waits for what it has begun.
func (k *Keeper) Run(ctx context.Context) {
	defer k.running.Wait()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var swept time.Time
	for {
		if lead, err := k.Store.Lead(ctx); err == nil && lead {
			if now := k.Now(); now.Sub(swept).Abs() >= sweepEvery {
				swept = now
				k.sweep(ctx)
			}
			k.round(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.wake:
		}
	}
}

// sweep condemns what a revocation killed while nobody was there to do it: by another replica that died of it, or
// in flight when it came. It depends on no index.
func (k *Keeper) sweep(ctx context.Context) {
	var dead []string
	err := k.Store.Each(ctx, func(l Lease) error {
		if l.State != Dying && k.Dead(l.ID, l.Ancestors) {
			dead = append(dead, l.ID)
		}
		return nil
	})
	if err == nil && len(dead) > 0 {
		err = k.update(ctx, dead, func(l *Lease) Verdict {
			l.die("revoked", k.Now())
			return Write
		})
	}
	if err != nil {
		k.Log.Error().Err(err).Msg("looking for leases that were revoked")
	}
}

// round starts one goroutine for each target that has something to be done and none yet.
func (k *Keeper) round(ctx context.Context) {
	counts, err := k.Store.Counts(ctx)
	if err != nil {
		k.Log.Error().Err(err).Msg("reading the ledger of leases")
		return
	}
	for target := range counts {
		k.start(ctx, target, func() { k.drain(ctx, target) })
	}
}

func (k *Keeper) start(ctx context.Context, target string, do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.draining[target] || k.Now().Before(k.paused[target].until) || ctx.Err() != nil {
		return
	}
	k.draining[target] = true
	k.running.Go(func() {
		defer func() {
			k.mu.Lock()
			delete(k.draining, target)
			k.mu.Unlock()
		}()
		do()
	})
}

// drain kills what is due at one target, until nothing is or the target fails.
func (k *Keeper) drain(ctx context.Context, target string) {
	for ctx.Err() == nil {
		due, err := k.Store.Due(ctx, target, k.Now(), batch)
		if err != nil || len(due) == 0 {
			return
		}
		_, err = k.kill(ctx, target, due)
		k.rested(target, err != nil)
		if err != nil {
			k.Log.Warn().Str("target", target).Int("leases", len(due)).Str("fault", faultOf(err)).Msg("credentials could not be killed; it is tried again")
			return
		}
	}
}

func (k *Keeper) rested(target string, failed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !failed {
		delete(k.paused, target)
		return
	}
	r := k.paused[target]
	k.paused[target] = rest{r.failures + 1, k.Now().Add(jitter(pause(r.failures)))}
}

// Reap looks at what stands upstream, for each target that can list it and was not looked at for a minute, and kills
// what should have ended, whether or not any ledger remembers it. Names that no order has are not touched. Run does not
// call it, because it needs to know all targets.
func (k *Keeper) Reap(ctx context.Context, targets []string) {
	if lead, err := k.Store.Lead(ctx); err != nil || !lead {
		return
	}
	for _, target := range targets {
		b, ok := k.Brokers(target)
		l, lists := b.(brokers.Lister)
		if !ok || !lists || k.Now().Sub(k.lastReaped(target)).Abs() < reapEvery {
			continue
		}
		k.start(ctx, target, func() { k.reap(ctx, target, l) })
	}
}

func (k *Keeper) lastReaped(target string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reaped[target]
}

func (k *Keeper) reap(ctx context.Context, target string, l brokers.Lister) {
	k.mu.Lock()
	k.reaped[target] = k.Now()
	k.mu.Unlock()
	before := k.Now().Add(-reapGrace)
	var old []Lease
	for h, err := range l.List(ctx) {
		if err != nil {
			k.rested(target, true)
			k.Log.Warn().Str("target", target).Str("fault", faultOf(err)).Msg("what stands upstream could not be listed")
			return
		}
		if h.Expires.Before(before) {
			old = append(old, Lease{Name: h.Name, Target: target, Expires: h.Expires, State: Dying, Why: WhyOrphan})
		}
		if len(old) == batch {
			break // the rest is for the next time
		}
	}
	for i, r := range k.attempt(ctx, target, old) {
		switch {
		case r.Err != nil:
			k.Log.Warn().Str("target", target).Str("name", old[i].Name).Str("fault", faultOf(r.Err)).Msg("an orphan could not be killed")
		case !r.Receipt.Gone:
			k.Log.Warn().Str("target", target).Str("name", old[i].Name).Msg("an orphan was killed: it should have ended by itself, or by its lease")
			k.Ended(old[i], r.Receipt)
		}
	}
}
