package revocation

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Shape of the table. Each shard grows and forgets by itself, so that nobody waits for more than a few thousand entries
// to be moved, and little is held twice meanwhile.
const (
	shardBits = 8
	maxLoad   = 80 // percent of a shard's slots that are used, at most: who looks for what is not there sees 13 tags then
	minSlots  = 8
)

// table says until when ids are dead. A slot takes 21 bytes; with those that are free, an entry takes 26 to 33. Nearly all
// that is asked for is not there, and the tags tell: those of a million entries are 1.4 MB and stay in a processor's
// cache, the ids are 27 MB. Whole ids are compared, so that nothing is dead that was not put in. Where an id stands is
// keyed: whoever chooses ids cannot know which of them meet. It is safe for concurrent use.
type table struct {
	seed   maphash.Seed
	shards [1 << shardBits]shard
	live   atomic.Int64
}

type shard struct {
	mu    sync.RWMutex
	tags  []uint8 // of slots: 8 bits of the hash, 0 for a free slot; linear probing
	slots []slot
	used  int
	first uint32 // nothing in it ends before
}

type slot struct {
	id    id
	until uint32 // Unix seconds
}

// spot is where an id is looked for first: a shard, and the rest of the hash.
type spot struct {
	*shard
	rest uint64
	tag  uint8
}

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

// spot hashes k. Shard, slot and tag each take bits of their own.
func (t *table) spot(k id) spot {
	h := maphash.Bytes(t.seed, k[:])
	return spot{&t.shards[h>>(64-shardBits)], h << shardBits, max(uint8(h), 1)}
}

// add keeps k until the later of until and what it has.
func (t *table) add(k id, until uint32) {
	s := t.spot(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, found := s.find(k); found {
		s.slots[i].until = max(s.slots[i].until, until)
		return
	}
	if (s.used+1)*100 > len(s.slots)*maxLoad {
		t.resize(s.shard, max(len(s.slots)*5/4, minSlots))
	}
	s.put(slot{k, until})
	if s.used == 0 || until < s.first {
		s.first = until
	}
	s.used++
	t.live.Add(1)
}

// has returns until when k is kept.
func (t *table) has(k id) (until uint32, ok bool) {
	s := t.spot(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i, found := s.find(k); found {
		return s.slots[i].until, true
	}
	return 0, false
}

// find returns the slot of k, or the one where it would be put. There is always a free one, unless there is none at all.
func (s *spot) find(k id) (i int, found bool) {
	n := len(s.tags)
	if n == 0 {
		return 0, false
	}
	hi, _ := bits.Mul64(s.rest, uint64(n))
	for i = int(hi); s.tags[i] != 0; {
		if s.tags[i] == s.tag && s.slots[i].id == k {
			return i, true
		}
		if i++; i == n {
			i = 0
		}
	}
	return i, false
}

// put fills the slot of an id that is not there.
func (s *spot) put(e slot) {
	i, _ := s.find(e.id)
	s.tags[i], s.slots[i] = s.tag, e
}

// forget drops what ended before now.
func (t *table) forget(now time.Time) {
	for i := range t.shards {
		if s := &t.shards[i]; s.due(now) {
			s.mu.Lock()
			t.drop(s, now)
			s.mu.Unlock()
		}
	}
}

// due reports whether something in s may have ended.
func (s *shard) due(now time.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.used > 0 && ended(s.first, now)
}

// drop moves what has not ended into as many slots as it needs. Slots are not freed one by one: what was put in behind
// another would no longer be found.
func (t *table) drop(s *shard, now time.Time) {
	s.used, s.first = 0, 1<<32-1
	for i := range s.slots {
		switch until := s.slots[i].until; {
		case s.tags[i] == 0:
		case ended(until, now):
			s.tags[i] = 0
			t.live.Add(-1)
		default:
			s.used, s.first = s.used+1, min(s.first, until)
		}
	}
	t.resize(s, max(s.used*11/8, minSlots))
}

// resize moves what s holds into n slots.
func (t *table) resize(s *shard, n int) {
	tags, slots := s.tags, s.slots
	s.tags, s.slots = make([]uint8, n), make([]slot, n)
	for i := range slots {
		if tags[i] != 0 {
			to := t.spot(slots[i].id)
			to.put(slots[i])
		}
	}
}

// ended reports whether what is kept until then can be dropped.
func ended(until uint32, now time.Time) bool { return now.After(time.Unix(int64(until), 0)) }
