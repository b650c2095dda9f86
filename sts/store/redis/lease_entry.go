package redis

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

// An entry is a revision, a MAC and the lease as JSON, one after the other. The revision is random, for compare-and-set. The
// MAC covers the name of the key, so that no entry stands for another lease, the revision and the lease.
const (
	revisionSize = 26 // of [rand.Text]
	leaseMACSize = 64 // hexadecimal
)

// stored is a lease as it was read.
type stored struct {
	lease    lease.Lease
	revision string
}

func (s *Leases) encode(l lease.Lease) (entry, revision string, err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return "", "", fmt.Errorf("encoding lease %s: %w", l.ID, err)
	}
	revision = rand.Text()
	return revision + s.sum(l.ID, revision, string(text)) + string(text), revision, nil
}

func (s *Leases) sum(id, revision, text string) string {
	return hex.EncodeToString([]byte(sum(s.mac, "sallyport lease", s.leaseKey(id), revision, text)))
}

// decode returns the lease of an entry, and false when this deployment did not write it for that id.
func (s *Leases) decode(id, entry string) (stored, bool) {
	if len(entry) < revisionSize+leaseMACSize {
		return stored{}, false
	}
	out := stored{revision: entry[:revisionSize]}
	mac, text := entry[revisionSize:revisionSize+leaseMACSize], entry[revisionSize+leaseMACSize:]
	if !same(mac, s.sum(id, out.revision, text)) {
		return stored{}, false
	}
	if err := json.Unmarshal([]byte(text), &out.lease); err != nil || out.lease.ID != id {
		return stored{}, false
	}
	return out, true
}

// revisionOf is what the scripts take for the revision of an entry, whatever it is.
func revisionOf(entry string) string { return entry[:min(len(entry), revisionSize)] }

// score is when a lease is due, in microseconds: a float64 has room for them until the year 2255.
func score(l *lease.Lease) string { return strconv.FormatInt(l.Due.UnixMicro(), 10) }

func (s *Leases) leaseKey(id string) string { return s.db.key("lease:" + id) }

// Indexes.
func (s *Leases) idsKey() string               { return s.db.key("leases") }
func (s *Leases) targetsKey() string           { return s.db.key("leases:targets") }
func (s *Leases) dueKey(target string) string  { return s.db.key("leases:due:" + target) }
func (s *Leases) ofKey(workload string) string { return s.db.key("leases:of:" + workload) }
func (s *Leases) belowKey(id string) string    { return s.db.key("leases:below:" + id) }
func (s *Leases) printKey(print string) string { return s.db.key("leases:print:" + print) }
func (s *Leases) leadKey() string              { return s.db.key("leases:lead") }

// put is a change of one lease, or its removal.
type put struct {
	old    stored // the zero value for a new one
	lease  lease.Lease
	remove bool
	max    lease.Limits // for a new one
}

// call is a run of a script for the puts at some places.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
	at     []int
}

// calls are what puts takes to be done, those at some places: a run of putLease for each lease that changes, and of dropLeases for
// many of a target that go.
func (s *Leases) calls(puts []put, at []int) ([]call, error) {
	var out []call
	drops := map[string][]int{}
	for _, i := range at {
		p := puts[i]
		if p.remove {
			drops[p.lease.Target] = append(drops[p.lease.Target], i)
			continue
		}
		c, err := s.change(p)
		if err != nil {
			return nil, err
		}
		c.at = []int{i}
		out = append(out, c)
	}
	for target, all := range drops {
		for part := range slices.Chunk(all, putsAtOnce) {
			out = append(out, s.drop(target, puts, part))
		}
	}
	return out, nil
}

func (s *Leases) change(p put) (call, error) {
	l := p.lease
	entry, revision, err := s.encode(l)
	if err != nil {
		return call{}, err
	}
	keys := []string{
		s.leaseKey(l.ID), s.idsKey(), s.targetsKey(), s.dueKey(l.Target), s.ofKey(l.Workload),
		s.printKey(p.old.lease.Fingerprint), s.printKey(l.Fingerprint),
	}
	for _, a := range l.Ancestors {
		keys = append(keys, s.belowKey(a))
	}
	args := []any{l.ID, l.Target, p.old.revision, revision, entry, score(&l), p.old.lease.Fingerprint, l.Fingerprint, p.max.Total, p.max.Target, p.max.Workload}
	return call{script: putLease, keys: keys, args: args}, nil
}

func (s *Leases) drop(target string, puts []put, at []int) call {
	keys := []string{s.idsKey(), s.targetsKey(), s.dueKey(target)}
	args := []any{target, len(at)}
	var prints, others []string
	places := map[string]int{}
	for _, i := range at {
		old := puts[i].old
		keys, prints = append(keys, s.leaseKey(old.lease.ID)), append(prints, s.printKey(old.lease.Fingerprint))
		args = append(args, old.lease.ID, old.revision, 1+len(old.lease.Ancestors))
		indexes := []string{s.ofKey(old.lease.Workload)}
		for _, a := range old.lease.Ancestors {
			indexes = append(indexes, s.belowKey(a))
		}
		for _, key := range indexes {
			if places[key] == 0 {
				others = append(others, key)
				places[key] = len(others)
			}
			args = append(args, places[key])
		}
	}
	return call{script: dropLeases, keys: slices.Concat(keys, prints, others), args: args, at: at}
}

func copied(l lease.Lease) lease.Lease {
	l.Ancestors, l.Scopes, l.Handle = slices.Clone(l.Ancestors), slices.Clone(l.Scopes), slices.Clone(l.Handle)
	return l
}
