package redis

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

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
