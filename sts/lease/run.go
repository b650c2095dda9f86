package lease

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// How often the ledger is looked at when nobody asks.
const (
	tickEvery  = 500 * time.Millisecond
	sweepEvery = 10 * time.Second // at least, for what was revoked elsewhere
	sweepShare = 10               // a sweep of many leases takes one part in so many of the time, since it reads them all
	overdue    = time.Minute      // after which a lease that was due is taken for forgotten
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
	_, err = k.update(ctx, left, func(l *Lease) Verdict {
		l.die(WhyAbandoned, k.Now(), k.Now())
		return Write
	})
	return err
}

// Run kills what is due until ctx ends, and waits for what it has begun. It is called once.
func (k *Keeper) Run(ctx context.Context) {
	defer k.end()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	said := false
	for {
		lead, err := k.Store.Lead(ctx)
		if err != nil && !said && ctx.Err() == nil {
			k.Log.Error().Err(err).Msg("asking who cleans up leases; nobody may be doing so")
		}
		switch said = err != nil; {
		case !lead:
			k.counts.lead(false)
			k.sweepAt(time.Time{})
		default:
			k.counts.lead(true)
			if k.sweepDue() {
				k.start(ctx, job{"sweep", ""}, func() { // beside what is due: it takes as long as there are leases
					begun := k.Now()
					k.sweep(ctx)
					k.sweepAt(begun.Add(max(sweepEvery, sweepShare*k.Now().Sub(begun))))
					k.nudge()
				})
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

// sweepDue reports whether it is time to sweep. A clock that was set back does not put it off for long.
func (k *Keeper) sweepDue() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := k.nextSweep.Sub(k.Now())
	return left <= 0 || left > time.Hour
}

func (k *Keeper) sweepAt(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nextSweep = at
}

// end waits for what runs; what is asked to be killed from now on is not waited for.
func (k *Keeper) end() {
	k.mu.Lock()
	if !k.over() {
		close(k.ended)
	}
	k.mu.Unlock()
	k.running.Wait()
}

// over reports whether Run has ended.
func (k *Keeper) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// track runs do in a goroutine that Run waits for, if it has not ended.
func (k *Keeper) track(do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over() {
		go do()
		return
	}
	k.running.Go(do)
}

// sweep condemns what a revocation killed while nobody was there to do it: by another replica that died of it, or
// in flight when it came. It depends on no index, and writes again what an index seems to have forgotten.
func (k *Keeper) sweep(ctx context.Context) {
	var forgotten []string
	dead := map[string]string{} // by what
	now := k.Now()
	tally := newTally()
	err := k.Store.Each(ctx, func(l Lease) error {
		tally.add(&l, now)
		by, is := "", false
		if l.State != Dying {
			by, is = k.Dead(l)
		}
		switch {
		case is:
			dead[l.ID] = cmp.Or(by, WhyRevoked)
		case l.Due.Before(now.Add(-overdue)):
			forgotten = append(forgotten, l.ID)
		}
		return nil
	})
	if err == nil {
		k.counts.stand(tally)
		_, err = k.update(ctx, slices.Collect(maps.Keys(dead)), func(l *Lease) Verdict {
			l.die(dead[l.ID], now, now)
			return Write
		})
	}
	if err == nil {
		_, err = k.update(ctx, forgotten, func(l *Lease) Verdict {
			if l.Due.After(now) {
				return Leave
			}
			l.Due = now
			return Write
		})
	}
	if err != nil && ctx.Err() == nil {
		k.Log.Error().Err(err).Msg("looking for leases that were revoked or forgotten")
	}
}

// round starts one goroutine for each target that has something to be done and none yet.
func (k *Keeper) round(ctx context.Context) {
	targets, err := k.Store.Counts(ctx)
	if err != nil {
		k.Log.Error().Err(err).Msg("reading the ledger of leases")
		return
	}
	for target := range targets {
		if !k.resting(target) {
			k.start(ctx, job{"drain", target}, func() { k.drain(ctx, target) })
		}
	}
}

// start does a job, unless it is being done.
func (k *Keeper) start(ctx context.Context, j job, do func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[j] || k.over() || ctx.Err() != nil {
		return
	}
	k.busy[j] = true
	k.running.Go(func() {
		defer func() {
			k.mu.Lock()
			delete(k.busy, j)
			k.mu.Unlock()
		}()
		do()
	})
}

// drain kills what is due at one target, until nothing is or the target fails.
func (k *Keeper) drain(ctx context.Context, target string) {
	for ctx.Err() == nil {
		due, err := k.Store.Due(ctx, target, k.Now(), batch)
		if err == nil && len(due) == 0 {
			return
		}
		if err == nil {
			_, err = k.kill(ctx, target, due)
		}
		k.rested(target, err != nil)
		if err != nil {
			if ctx.Err() == nil {
				k.Log.Warn().Str("target", target).Int("leases", len(due)).Str("fault", faultOf(err)).Msg("credentials could not be killed; it is tried again")
			}
			return
		}
	}
}

// rest is how long a target is left alone after an attempt to kill at which it failed.
type rest struct {
	failures int
	until    time.Time
}

func (k *Keeper) resting(target string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Now().Before(k.paused[target].until)
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
