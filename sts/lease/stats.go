package lease

import (
	"maps"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Stats is what a Keeper has counted.
type Stats struct {
	Leads   bool              // this replica cleans up; the next two are told by it alone, so that a sum over replicas is right
	Leases  map[Standing]int  // as of the last look at all of them, at most some 10 s ago
	Waiting time.Duration     // for how long the oldest credential has been waiting to be killed; 0 when none is
	Kills   map[Killed]uint64 // attempts since the start
	Orphans map[string]uint64 // by target: found upstream after their end and in no ledger, and killed, since the start
}

// Standing is a target and a state of leases.
type Standing struct {
	Target string
	State  State
}

// Killed is a target and what came of an attempt to kill a lease: dead, gone (it was dead already), dies,
// may_exist, stays or failed.
type Killed struct{ Target, Outcome string }

// Stats returns what was counted.
func (k *Keeper) Stats() Stats { return k.counts.stats(k.Now()) }

type counts struct {
	mu      sync.Mutex
	leads   bool
	seen    *tally
	kills   map[Killed]uint64
	orphans map[string]uint64
}

func newCounts() *counts {
	return &counts{seen: newTally(), kills: map[Killed]uint64{}, orphans: map[string]uint64{}}
}

// tally is the leases by where they stand.
type tally struct {
	leases map[Standing]int
	since  time.Time // when the oldest that waits to be killed began to; zero for none
}

func newTally() *tally { return &tally{leases: map[Standing]int{}} }

func (t *tally) add(l *Lease, now time.Time) {
	t.leases[Standing{l.Target, l.State}]++
	since := l.Due
	if l.State == Dying {
		since = l.Condemned
	}
	if l.Dies != "" || since.After(now) || !t.since.IsZero() && !since.Before(t.since) {
		return
	}
	t.since = since
}

func (c *counts) lead(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leads = yes; !yes {
		c.seen = newTally()
	}
}

func (c *counts) stand(t *tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = t
}

func (c *counts) orphan(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orphans[target]++
}

func (k *Keeper) killed(target string, results []brokers.Result) {
	k.counts.mu.Lock()
	defer k.counts.mu.Unlock()
	for _, r := range results {
		outcome := r.Receipt.State.String()
		switch {
		case r.Err != nil:
			outcome = "failed"
		case r.Receipt.Gone:
			outcome = "gone"
		}
		k.counts.kills[Killed{target, outcome}]++
	}
}

func (c *counts) stats(now time.Time) Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Leads: c.leads, Leases: c.seen.leases, Kills: maps.Clone(c.kills), Orphans: maps.Clone(c.orphans)}
	if !c.seen.since.IsZero() {
		s.Waiting = max(0, now.Sub(c.seen.since))
	}
	return s
}
