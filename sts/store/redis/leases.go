package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

const (
	leaseLead   = 5 * time.Second       // for which a replica leads that does not ask again
	leaseRounds = 64                    // of reading and writing, until a change gives up
	leaseRest   = 20 * time.Millisecond // at most, between two rounds
	leasePage   = 500                   // leases that are read at once
	damagedFor  = 7 * 24 * time.Hour    // for which an entry that is not ours is left where it is
	damagedRest = 10 * time.Minute      // between two looks at it
)

// Leases is the ledger of leases that all replicas share (see the package comment). It implements [lease.Store] and is safe
// for concurrent use.
type Leases struct {
	db   *DB
	mac  []byte
	id   string // as which it leads
	log  zerolog.Logger
	turn chan struct{} // who writes many leases; the others wait, so that whoever writes one is answered between

	mu      sync.Mutex
	leads   bool
	damaged map[string]bool // what was logged
}

var _ lease.Store = (*Leases)(nil)

// Leases returns the ledger of the deployment. mac is the deployment's key for what it stores in Redis.
func (d *DB) Leases(mac []byte, log zerolog.Logger) (*Leases, error) {
	if len(mac) < sha256.Size {
		return nil, fmt.Errorf("leases in Redis: MAC key has %d bytes, needs %d", len(mac), sha256.Size)
	}
	return &Leases{db: d, mac: slices.Clone(mac), id: rand.Text(), log: log, damaged: map[string]bool{}, turn: make(chan struct{}, 1)}, nil
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", lease.ErrUnavailable, doing, err)
}

// Open implements [lease.Store].
func (s *Leases) Open(ctx context.Context, l lease.Lease, max lease.Limits) error {
	ctx, cancel := within(ctx)
	defer cancel()
	c, err := s.change(put{lease: l, max: max})
	if err != nil {
		return unavailable("opening a lease", err)
	}
	n, err := c.script.Run(ctx, s.db.rdb, c.keys, c.args...).Int64Slice()
	switch {
	case err != nil:
		return unavailable("opening a lease", err)
	case len(n) == 4 && n[0] == putLimit:
		return max.Check(int(n[1]), int(n[2]), int(n[3]), l)
	case len(n) == 0 || n[0] != putDone:
		return fmt.Errorf("%w: lease %s is there already", lease.ErrUnavailable, l.ID)
	}
	return nil
}

// Update implements [lease.Store]: all are read at once and written at once, and those that somebody else was faster with
// are read again.
func (s *Leases) Update(ctx context.Context, ids []string, change func(*lease.Lease) lease.Verdict) ([]lease.Lease, error) {
	var done []lease.Lease
	left := ids
	for round := 0; len(left) > 0; round++ {
		if round == leaseRounds {
			return done, fmt.Errorf("%w: %d leases are changed by others all the time", lease.ErrUnavailable, len(left))
		}
		if round > 0 {
			pause(ctx, mathrand.N(min(leaseRest, time.Millisecond<<min(round, 10))))
		}
		found, err := s.read(ctx, left)
		if err != nil {
			return done, err
		}
		var puts []put
		var changed []lease.Lease
		for _, old := range found {
			l := copied(old.lease)
			verdict := change(&l)
			if verdict == lease.Leave {
				continue
			}
			puts, changed = append(puts, put{old: old, lease: l, remove: verdict == lease.Remove}), append(changed, l)
		}
		codes, err := s.putAll(ctx, puts)
		left = nil
		for i, code := range codes {
			switch code {
			case putDone:
				done = append(done, changed[i])
			case putLost:
				left = append(left, changed[i].ID)
			}
		}
		if err != nil {
			return done, unavailable("changing leases", err)
		}
	}
	return done, nil
}

// putAll does puts in one round trip, or three when the server does not know the scripts. The codes are those of all that is
// known to have been done or lost; with an error, -1 is the code of the others.
func (s *Leases) putAll(ctx context.Context, puts []put) ([]int64, error) {
	codes := make([]int64, len(puts))
	at := make([]int, len(puts))
	for i := range puts {
		codes[i], at[i] = -1, i
	}
	for range 2 {
		if len(at) == 0 {
			return codes, nil
		}
		unknown, err := s.putSome(ctx, puts, at, codes)
		if err != nil {
			return codes, err
		}
		if at = unknown; len(at) > 0 {
			for _, script := range []*redis.Script{putLease, dropLeases} {
				if err := script.Load(ctx, s.db.rdb).Err(); err != nil {
					return codes, err
				}
			}
		}
	}
	if len(at) > 0 {
		return codes, errors.New("the Redis does not keep scripts")
	}
	return codes, nil
}

// putsAtOnce is how many leases are sent before the answers are read: a server runs what one client sent without a look at the
// others, who wait for as long.
const putsAtOnce = 50

// putSome does the puts at some places and returns the places of those that the server did not know the script of.
func (s *Leases) putSome(ctx context.Context, puts []put, at []int, codes []int64) (unknown []int, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	calls, err := s.calls(puts, at)
	if err != nil {
		return nil, err
	}
	for len(calls) > 0 && len(unknown) == 0 {
		n, leases := 0, 0
		for n < len(calls) && (n == 0 || leases+len(calls[n].at) <= putsAtOnce) {
			leases += len(calls[n].at)
			n++
		}
		part := calls[:n]
		calls = calls[n:]
		p := s.db.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(part))
		for i, c := range part {
			cmds[i] = p.EvalSha(ctx, c.script.Hash(), c.keys, c.args...)
		}
		s.inTurn(leases, func() { _, _ = p.Exec(ctx) }) // each says how it went
		for i, c := range part {
			n, one := cmds[i].Int64Slice()
			switch {
			case redis.HasErrorPrefix(one, "NOSCRIPT"):
				unknown = append(unknown, c.at...)
			case one != nil:
				err = cmp.Or(err, one)
			case len(n) >= len(c.at):
				for i, place := range c.at {
					codes[place] = n[i]
				}
			}
		}
	}
	if len(unknown) > 0 { // nor does it know it for the others
		for _, c := range calls {
			unknown = append(unknown, c.at...)
		}
	}
	return unknown, err
}

// inTurn does what takes the server long alone, and what does not at once.
func (s *Leases) inTurn(n int, do func()) {
	if n > putsAtOnce/10 {
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
	}
	do()
}

// read returns the leases of ids that are there, in their order.
func (s *Leases) read(ctx context.Context, ids []string) ([]stored, error) {
	var out []stored
	err := s.look(ctx, ids, func(_, _ string, l stored, ok bool) {
		if ok {
			out = append(out, l)
		}
	})
	return out, err
}

// look reads leases and says of each id what its entry is, "" for none, and whether that is ours. What is not is reported.
func (s *Leases) look(ctx context.Context, ids []string, do func(id, entry string, l stored, ok bool)) error {
	for part := range slices.Chunk(ids, leasePage) {
		keys := make([]string, len(part))
		for i, id := range part {
			keys[i] = s.leaseKey(id)
		}
		values, err := s.values(ctx, keys)
		if err != nil {
			return unavailable("reading leases", err)
		}
		for i, id := range part {
			entry, there := values[i].(string) // what is not a string is none
			l, ok := stored{}, false
			if there {
				if l, ok = s.decode(id, entry); !ok {
					s.report(ctx, id)
				}
			}
			do(id, entry, l, ok)
		}
	}
	return nil
}

func (s *Leases) values(ctx context.Context, keys []string) ([]any, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	return s.db.rdb.MGet(ctx, keys...).Result()
}

// report tells of an entry that this deployment did not write, once, and has it go away in a week. It is not acted upon.
func (s *Leases) report(ctx context.Context, id string) {
	s.mu.Lock()
	known := s.damaged[id]
	if len(s.damaged) >= 10*leasePage {
		clear(s.damaged)
	}
	s.damaged[id] = true
	s.mu.Unlock()
	if known {
		return
	}
	s.log.Error().Str("key", s.leaseKey(id)).Msg("an entry in the ledger of leases was not written with this deployment's key; it is not acted upon, and its credential lives until it expires. Find out who writes to Redis")
	ctx, cancel := within(ctx)
	defer cancel()
	_ = s.db.rdb.ExpireNX(ctx, s.leaseKey(id), damagedFor).Err() // the next replica tries again
}

// mend corrects what an index says of a lease. That it fails is no error: it is found wrong again.
func (s *Leases) mend(ctx context.Context, id, entry, index, says string) {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := mendIndex.Run(ctx, s.db.rdb, []string{s.leaseKey(id), index}, id, revisionOf(entry), says).Err(); err != nil {
		s.log.Warn().Err(err).Str("index", index).Msg("correcting an index of leases")
	}
}

// Lead implements [lease.Store]. A replica that begins to lead makes the indexes anew.
func (s *Leases) Lead(ctx context.Context) (bool, error) {
	short, cancel := within(ctx)
	defer cancel()
	n, err := leadLeases.Run(short, s.db.rdb, []string{s.leadKey()}, s.id, leaseLead.Milliseconds()).Int()
	if err != nil {
		return false, unavailable("asking who cleans up", err)
	}
	s.mu.Lock()
	begins := n == 1 && !s.leads
	s.leads = n == 1
	s.mu.Unlock()
	if begins {
		if err := s.Rebuild(ctx); err != nil {
			s.log.Error().Err(err).Msg("the indexes of leases could not be made anew; they are used as they are")
		}
	}
	return n == 1, nil
}

// Close gives up the lead, so that another replica need not wait for it.
func (s *Leases) Close(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := release.Run(ctx, s.db.rdb, []string{s.leadKey()}, s.id).Err(); err != nil {
		return unavailable("giving up the lead", err)
	}
	return nil
}
