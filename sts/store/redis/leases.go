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
	"strconv"
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
	db  *DB
	mac []byte
	id  string // as which it leads
	log zerolog.Logger

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
	return &Leases{db: d, mac: slices.Clone(mac), id: rand.Text(), log: log, damaged: map[string]bool{}}, nil
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", lease.ErrUnavailable, doing, err)
}

// Open implements [lease.Store].
func (s *Leases) Open(ctx context.Context, l lease.Lease, max lease.Limits) error {
	ctx, cancel := within(ctx)
	defer cancel()
	p, err := s.put(stored{}, l, false, max)
	if err != nil {
		return unavailable("opening a lease", err)
	}
	n, err := putLease.Run(ctx, s.db.rdb, p.keys, p.args...).Int64Slice()
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
			p, err := s.put(old, l, verdict == lease.Remove, lease.Limits{})
			if err != nil {
				return done, unavailable("changing leases", err)
			}
			puts, changed = append(puts, p), append(changed, l)
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

// putAll runs putLease in one round trip, or three when the server does not know the script. The codes are those of all that is
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
			if err := putLease.Load(ctx, s.db.rdb).Err(); err != nil {
				return codes, err
			}
		}
	}
	if len(at) > 0 {
		return codes, errors.New("the Redis does not keep scripts")
	}
	return codes, nil
}

// putSome runs the puts at some places and returns the places of those that the server did not know the script of.
func (s *Leases) putSome(ctx context.Context, puts []put, at []int, codes []int64) (unknown []int, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	p := s.db.rdb.Pipeline()
	cmds := make([]*redis.Cmd, len(at))
	for i, place := range at {
		cmds[i] = p.EvalSha(ctx, putLease.Hash(), puts[place].keys, puts[place].args...)
	}
	_, _ = p.Exec(ctx) // each says how it went
	for i, place := range at {
		n, one := cmds[i].Int64Slice()
		switch {
		case redis.HasErrorPrefix(one, "NOSCRIPT"):
			unknown = append(unknown, place)
		case one != nil:
			err = cmp.Or(err, one)
		case len(n) > 0:
			codes[place] = n[0]
		}
	}
	return unknown, err
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

// Find implements [lease.Store].
func (s *Leases) Find(ctx context.Context, fingerprint string) (lease.Lease, error) {
	if fingerprint == "" {
		return lease.Lease{}, lease.ErrUnknown
	}
	short, cancel := within(ctx)
	defer cancel()
	id, err := s.db.rdb.Get(short, s.printKey(fingerprint)).Result()
	if errors.Is(err, redis.Nil) {
		return lease.Lease{}, lease.ErrUnknown
	}
	if err != nil {
		return lease.Lease{}, unavailable("finding a lease", err)
	}
	found, err := s.read(ctx, []string{id})
	switch {
	case err != nil:
		return lease.Lease{}, err
	case len(found) == 0 || found[0].lease.Fingerprint != fingerprint: // the index is nobody's word
		return lease.Lease{}, lease.ErrUnknown
	}
	return found[0].lease, nil
}

// Below implements [lease.Store].
func (s *Leases) Below(ctx context.Context, id string) ([]string, error) {
	short, cancel := within(ctx)
	defer cancel()
	ids, err := s.db.rdb.SMembers(short, s.belowKey(id)).Result()
	if err != nil {
		return nil, unavailable("finding what descends from a lease", err)
	}
	var out []string
	err = s.look(ctx, append(ids, id), func(one, entry string, l stored, ok bool) {
		switch {
		case ok && (one == id || slices.Contains(l.lease.Ancestors, id)):
			out = append(out, one)
		case one != id && (ok || entry == ""): // it does not descend from it, whatever the index says
			s.mend(ctx, one, entry, s.belowKey(id), "")
		}
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// Due implements [lease.Store].
func (s *Leases) Due(ctx context.Context, target string, now time.Time, most int) ([]lease.Lease, error) {
	page := most
	for range leaseRounds {
		ids, err := s.firstDue(ctx, target, now, page)
		if err != nil {
			return nil, err
		}
		var out []lease.Lease
		index := s.dueKey(target)
		mended := false
		err = s.look(ctx, ids, func(id, entry string, l stored, ok bool) {
			switch {
			case !ok && entry == "", ok && l.lease.Target != target:
				s.mend(ctx, id, entry, index, "")
			case !ok:
				s.mend(ctx, id, entry, index, strconv.FormatInt(now.Add(damagedRest).UnixMicro(), 10))
			case l.lease.Due.UnixMicro() > now.UnixMicro():
				s.mend(ctx, id, entry, index, score(&l.lease))
			default:
				if !l.lease.Due.After(now) { // else in this microsecond
					out = append(out, l.lease)
				}
				return
			}
			mended = true
		})
		if err != nil {
			return nil, err
		}
		if mended && len(out) < most && len(ids) == page { // what is wrong must not hide what is due
			page = max(most, leasePage)
			continue
		}
		slices.SortStableFunc(out, func(a, b lease.Lease) int { return a.Due.Compare(b.Due) })
		return out[:min(most, len(out))], nil
	}
	return nil, unavailable("reading what is due", errors.New("its index is full of what is not; find out who writes to Redis"))
}

func (s *Leases) firstDue(ctx context.Context, target string, now time.Time, most int) ([]string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	ids, err := s.db.rdb.ZRangeArgs(ctx, redis.ZRangeArgs{Key: s.dueKey(target), ByScore: true, Start: "-inf", Stop: strconv.FormatInt(now.UnixMicro(), 10), Count: int64(most)}).Result()
	if err != nil {
		return nil, unavailable("reading what is due", err)
	}
	return ids, nil
}

// Counts implements [lease.Store].
func (s *Leases) Counts(ctx context.Context) (map[string]int, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	targets, err := s.db.rdb.SMembers(ctx, s.targetsKey()).Result()
	if err != nil {
		return nil, unavailable("counting leases", err)
	}
	p := s.db.rdb.Pipeline()
	cards := make([]*redis.IntCmd, len(targets))
	for i, target := range targets {
		cards[i] = p.ZCard(ctx, s.dueKey(target))
	}
	if _, err := p.Exec(ctx); err != nil && len(targets) > 0 {
		return nil, unavailable("counting leases", err)
	}
	out := make(map[string]int, len(targets))
	for i, target := range targets {
		if n := int(cards[i].Val()); n > 0 {
			out[target] = n
			continue
		}
		_ = forgetTarget.Run(ctx, s.db.rdb, []string{s.targetsKey(), s.dueKey(target)}, target).Err() // else the next time
	}
	return out, nil
}

// Each implements [lease.Store].
func (s *Leases) Each(ctx context.Context, do func(lease.Lease) error) error {
	seen := map[string]bool{} // SSCAN may tell one twice
	for cursor := uint64(0); ; {
		short, cancel := within(ctx)
		ids, next, err := s.db.rdb.SScan(short, s.idsKey(), cursor, "", leasePage).Result()
		cancel()
		if err != nil {
			return unavailable("reading all leases", err)
		}
		var out []lease.Lease
		err = s.look(ctx, ids, func(id, entry string, l stored, ok bool) {
			switch {
			case ok && !seen[id]:
				out = append(out, l.lease)
			case !ok && entry == "":
				s.mend(ctx, id, entry, s.idsKey(), "")
			}
			seen[id] = true
		})
		if err != nil {
			return err
		}
		for _, l := range out {
			if err := do(l); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
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
