package lease

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of what is shared on this replica.
const (
	maxShared  = 10_000 // credentials
	maxSharers = 64     // leases of one credential
)

// shared are credentials that answer more than one exchange: those with the same key, whose targets want it so. Each exchange has a lease
// of its own, under its own decision, of the one credential upstream: whichever of them is killed, the credential dies, and with it what
// the others had. It is known to this replica alone, and in memory.
type shared struct {
	mu      sync.Mutex
	by      map[string]*common // by key
	holders map[string]string  // keys by lease
}

// common is one credential, with what revocations can match of any of its leases.
type common struct {
	credential brokers.Credential
	root       Lease    // of the exchange that made it
	leases     []string // root's first
	above      []string // what those descend from, root's besides
	facts      []string
}

// dead is what [Config.Dead] is asked: about all of its leases at once.
func (c *common) asked() Lease {
	l := c.root
	l.Ancestors = slices.Concat(l.Ancestors, c.leases, c.above)
	l.Facts = c.facts
	return l
}

// share returns the credential of an earlier exchange for the lease l, which is opened and completed as if it had been made for it. It is
// false when there is none that fits: one that is alive, ends no later than l, and has at least half of l's time left.
func (k *Keeper) share(ctx context.Context, key string, l Lease) (brokers.Credential, bool, error) {
	c, ok := k.find(key, l)
	if !ok {
		return brokers.Credential{}, false, nil
	}
	l.Name = c.root.Name
	l.Ancestors = slices.Concat(l.Ancestors, []string{c.root.ID})
	l.Facts = union(l.Facts, c.root.Facts)
	if err := k.Store.Open(ctx, l, k.limits(l.Target)); err != nil {
		return brokers.Credential{}, false, err
	}
	if err := k.complete(ctx, l, c.credential); err != nil {
		k.abandon(ctx, l, brokers.ErrUncertain)
		return brokers.Credential{}, false, err
	}
	if k.dead(c.asked()) { // since it was looked for: what cannot be killed is at least not given to another
		k.Withdraw(ctx, l.ID)
		return brokers.Credential{}, false, ErrDying
	}
	return c.credential, true, nil
}

func (k *Keeper) dead(l Lease) bool { _, dead := k.Dead(l); return dead }

// find looks for a credential and notes that l has it from now on, before anybody can be told: what kills l from here on is seen by
// whoever asks next.
func (k *Keeper) find(key string, l Lease) (common, bool) {
	k.shared.mu.Lock()
	defer k.shared.mu.Unlock()
	c := k.shared.by[key]
	if c == nil {
		return common{}, false
	}
	now := k.Now()
	left := c.credential.Expires.Sub(now)
	if k.dead(c.asked()) || left <= 0 || len(c.leases) >= maxSharers {
		k.shared.drop(key)
		return common{}, false
	}
	if c.credential.Expires.After(l.Expires) || left < l.Expires.Sub(now)/2 {
		return common{}, false
	}
	c.leases = append(c.leases, l.ID)
	c.above = union(c.above, l.Ancestors)
	c.facts = union(c.facts, l.Facts)
	k.shared.holders[l.ID] = key
	return common{c.credential, c.root, slices.Clone(c.leases), slices.Clone(c.above), slices.Clone(c.facts)}, true
}

// offer lets a credential that was made for l answer other exchanges with the key. One that works after its end is not offered: nobody
// would be told of it twice.
func (k *Keeper) offer(key string, l Lease, c brokers.Credential) {
	k.shared.mu.Lock()
	defer k.shared.mu.Unlock()
	k.shared.sweep(k.Now())
	if len(k.shared.by) >= maxShared || c.Stays != "" {
		return
	}
	k.shared.drop(key)
	k.shared.by[key] = &common{credential: c, root: l, leases: []string{l.ID}, facts: slices.Clone(l.Facts)}
	k.shared.holders[l.ID] = key
}

// forget gives nobody else the credential of a lease that is killed for a reason that no revocation tells of.
func (s *shared) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, ok := s.holders[id]; ok {
		s.drop(key)
	}
}

// drop forgets a credential. The caller holds the lock.
func (s *shared) drop(key string) {
	if c := s.by[key]; c != nil {
		for _, id := range c.leases {
			delete(s.holders, id)
		}
		delete(s.by, key)
	}
}

// sweep forgets what is over. The caller holds the lock.
func (s *shared) sweep(now time.Time) {
	for key, c := range s.by {
		if !c.credential.Expires.After(now) {
			s.drop(key)
		}
	}
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
