package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of reaping.
const (
	reapEvery   = time.Minute      // for each target
	reapGrace   = 30 * time.Second // after it was to end, so that clocks may differ
	listTimeout = 30 * time.Second
	maxListed   = 20 * batch // expired names that are kept in mind at once
)

// Reap looks at what stands upstream, for each target that can list it and was not looked at for a minute, and kills
// what should have ended and is in no ledger. Names that no order has are not touched. Run does not call it, because it
// needs to know all targets; it is called often.
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
		k.start(ctx, job{"reap", target}, func() { k.reap(ctx, target, l) })
	}
}

func (k *Keeper) lastReaped(target string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reaped[target]
}

func (k *Keeper) reapedAt(target string, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reaped[target] = at
}

func (k *Keeper) reap(ctx context.Context, target string, l brokers.Lister) {
	k.reapedAt(target, k.Now())
	orphans, err := k.expired(ctx, target, l)
	if err == nil && len(orphans) > 0 {
		err = k.forgetKnown(ctx, target, orphans)
	}
	if err != nil {
		if ctx.Err() == nil {
			k.Log.Warn().Str("target", target).Str("fault", faultOf(err)).Msg("what stands upstream could not be listed")
		}
		return
	}
	list := make([]Lease, 0, len(orphans))
	for _, o := range orphans {
		list = append(list, o)
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) // those that fail must not keep others waiting
	part := list[:min(batch, len(list))]
	worked := false
	for i, r := range k.attempt(ctx, target, part) {
		switch {
		case r.Err != nil:
			k.Log.Warn().Str("target", target).Str("name", part[i].Name).Str("fault", faultOf(r.Err)).Msg("an orphan could not be killed")
		case r.Receipt.Gone:
			worked = true
		default:
			worked = true
			k.Log.Warn().Str("target", target).Str("name", part[i].Name).Msg("an orphan was killed: it should have ended by itself, or by its lease")
			k.counts.orphan(target)
			k.Ended(part[i], r.Receipt)
		}
	}
	if worked && len(part) < len(list) {
		k.reapedAt(target, time.Time{}) // the rest is for the next call
	}
}

// expired returns what stands upstream though it should have ended, by names.
func (k *Keeper) expired(ctx context.Context, target string, l brokers.Lister) (found map[string]Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = k.panicked(target, p)
		}
	}()
	before := k.Now().Add(-reapGrace)
	found = map[string]Lease{}
	for h, err := range l.List(ctx) {
		if err != nil {
			return nil, err
		}
		expires, ours := brokers.ParseName(h.Name)
		if !ours || !expires.Before(before) {
			continue
		}
		found[h.Name] = Lease{Name: h.Name, Target: target, Expires: expires, State: Dying, Why: WhyOrphan}
		if len(found) == maxListed {
			break // the rest is for the next time
		}
	}
	return found, nil
}

// forgetKnown takes out of found what a lease is about: killing that goes on elsewhere.
func (k *Keeper) forgetKnown(ctx context.Context, target string, found map[string]Lease) error {
	err := k.Store.Each(ctx, func(l Lease) error {
		if l.Target == target {
			delete(found, l.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("asking which of it is known: %w", err)
	}
	return nil
}
