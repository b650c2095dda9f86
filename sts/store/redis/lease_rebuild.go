package redis

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

// Rebuild makes all indexes of leases anew from the leases, which it finds by the names of their keys: what an index lacks is
// put in, and what it has too much is taken out. It changes no lease, and others may work meanwhile.
func (s *Leases) Rebuild(ctx context.Context) error {
	var ids, indexes []string
	err := s.scan(ctx, func(name string) {
		if id, ok := strings.CutPrefix(name, "lease:"); ok {
			ids = append(ids, id)
			return
		}
		indexes = append(indexes, name)
	})
	if err != nil {
		return err
	}
	slices.Sort(ids)
	for part := range slices.Chunk(slices.Compact(ids), leasePage) { // a lease that is written is written with its indexes
		if _, err := s.Update(ctx, part, func(*lease.Lease) lease.Verdict { return lease.Write }); err != nil {
			return err
		}
	}
	slices.Sort(indexes)
	for _, name := range slices.Compact(indexes) {
		if err := s.prune(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// scan finds the keys of leases and of their indexes, by their names without the tag; some of them twice.
func (s *Leases) scan(ctx context.Context, do func(name string)) error {
	pattern := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s.db.key("lease")) + "*"
	node, err := s.db.node(ctx)
	if err != nil {
		return unavailable("looking for leases", err)
	}
	for cursor := uint64(0); ; {
		short, cancel := within(ctx)
		keys, next, err := node.Scan(short, cursor, pattern, 2*leasePage).Result()
		cancel()
		if err != nil {
			return unavailable("looking for leases", err)
		}
		for _, key := range keys {
			do(strings.TrimPrefix(key, s.db.key("")))
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// prune takes out of an index what is not about a lease of ours.
func (s *Leases) prune(ctx context.Context, name string) error {
	kind, about, _ := strings.Cut(strings.TrimPrefix(name, "leases:"), ":")
	fits := map[string]func(*lease.Lease) bool{
		"leases": func(*lease.Lease) bool { return true },
		"due":    func(l *lease.Lease) bool { return l.Target == about },
		"of":     func(l *lease.Lease) bool { return l.Workload == about },
		"below":  func(l *lease.Lease) bool { return slices.Contains(l.Ancestors, about) },
		"print":  func(l *lease.Lease) bool { return l.Fingerprint == about },
	}[kind]
	if fits == nil {
		return nil
	}
	members, err := s.members(ctx, kind, s.db.key(name))
	if err != nil {
		return err
	}
	return s.look(ctx, members, func(id, entry string, l stored, ok bool) {
		if !ok && entry == "" || ok && !fits(&l.lease) {
			s.mend(ctx, id, entry, s.db.key(name), "")
		}
	})
}

// members returns what an index holds.
func (s *Leases) members(ctx context.Context, kind, key string) ([]string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	var out []string
	var err error
	switch kind {
	case "due":
		out, err = s.db.rdb.ZRange(ctx, key, 0, -1).Result()
	case "print":
		var id string
		if id, err = s.db.rdb.Get(ctx, key).Result(); err == nil {
			out = []string{id}
		}
	default:
		out, err = s.db.rdb.SMembers(ctx, key).Result()
	}
	if err != nil && !isNil(err) {
		return nil, unavailable("reading an index of leases", err)
	}
	return out, nil
}

func isNil(err error) bool { return errors.Is(err, redis.Nil) }
