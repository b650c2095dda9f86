package revocation

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// News is an entry as those are told who verify tokens by themselves: what kills says nothing of whom. A lease is its id; of a
// selector there are the keyed digests of its terms, which tokens carry too, and nobody else can make or read.
type News struct {
	ID       string    `json:"id,omitempty"`       // of a selector's entry, to know it again
	Lease    string    `json:"lease,omitempty"`    // dead, with everything that descends from it
	Terms    []Digest  `json:"terms,omitempty"`    // as strings, by MarshalText
	Lock     bool      `json:"lock,omitempty"`     // it stands until it is lifted or Until
	Lifts    string    `json:"lifts,omitempty"`    // the id of a lock
	Position string    `json:"position,omitempty"` // EPOCH.N, of a selector's entry that has a place
	Before   time.Time `json:"before,omitzero"`    // it kills only what was decided before this moment
	Until    time.Time `json:"until"`
}

// MarshalText renders a digest as 11 characters of base64url.
func (d Digest) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(d)))), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(raw) != 8 {
		return ErrSelector
	}
	*d = Digest(binary.BigEndian.Uint64(raw))
	return nil
}

// public makes digests of what a token says of itself and cannot carry: its own fingerprint and id, and the key that it is
// signed with. Whoever has the token knows these, so no key is needed.
var public = Hasher{}

// Own are the digests of what a token of issuer is by itself, which its facts cannot have.
func Own(issuer, id, fingerprint, keyID string) []Digest {
	return []Digest{public.Term(KeyToken, fingerprint), public.Term(KeyJTI, issuer+"/"+id), public.Term(KeySigningKey, keyID)}
}

// newsOf is an entry for those who verify. One that names tokens or keys of ours is told once for each way in which what it names is
// what a token was exchanged from, which its facts carry, or what it is itself.
func newsOf(h Hasher, e Entry) []News {
	switch {
	case e.Lease != "":
		return []News{{Lease: nameOf(idOf(e.Lease)), Until: e.Until}}
	case e.Lifts != "":
		out := make([]News, tellings)
		for way := range out {
			out[way] = News{Lifts: e.Lifts + ending(way), Until: e.Until}
		}
		return out
	}
	first := News{ID: e.Decision, Lock: e.Lock, Before: e.Before, Until: e.Until, Terms: make([]Digest, len(e.Selector))}
	if (e.Position != Position{}) {
		first.Position = e.Position.String()
	}
	var own []int // terms that a token can be by itself
	for i, term := range e.Selector {
		first.Terms[i] = h.digest(term)
		switch key, _, _ := strings.Cut(term, "="); key {
		case KeyToken, KeyJTI, KeySigningKey:
			own = append(own, i)
		}
	}
	out := []News{first}
	for way := 1; way < min(1<<len(own), tellings); way++ {
		n := first
		n.ID, n.Terms = e.Decision+ending(way), slices.Clone(first.Terms)
		for bit, i := range own {
			if way&(1<<bit) != 0 {
				n.Terms[i] = public.digest(e.Selector[i])
			}
		}
		out = append(out, n)
	}
	return out
}

// tellings is how often an entry is told at most: a token is one token, by its fingerprint and by its id, and is signed with one key.
const tellings = 8

// ending sets the tellings of an entry apart.
func ending(way int) string {
	switch way {
	case 0:
		return ""
	case 1:
		return ".own"
	}
	return ".own" + strconv.Itoa(way)
}

// nameOf spells an id in memory as a lease is spelt.
func nameOf(k id) string { return strings.ToLower(base32NoPad.EncodeToString(k[:])) }

var base32NoPad = base32.StdEncoding.WithPadding(base32.NoPadding)

// feedKept is how many news are kept for readers that come back.
const feedKept = 4096

// feed is the news in the order in which they came into force here.
type feed struct {
	mu   sync.Mutex
	last uint64 // number of the newest
	ring []News // the newest feedKept
	wake chan struct{}
}

func (f *feed) tell(list []News) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range list {
		f.last++
		if len(f.ring) < feedKept {
			f.ring = append(f.ring, n)
		} else {
			f.ring[(f.last-1)%feedKept] = n
		}
	}
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// since returns what came after number n, and false when that is not kept any more, or n is of another life.
func (f *feed) since(n uint64) (list []News, last uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > f.last || f.last-n > uint64(len(f.ring)) {
		return nil, f.last, false
	}
	for i := n + 1; i <= f.last; i++ {
		list = append(list, f.ring[(i-1)%feedKept])
	}
	return list, f.last, true
}

// News returns what came into force here after number n, and the number of the newest; false when that is not known any more,
// and everything has to be told: see [Set.Everything].
func (s *Set) News(n uint64) ([]News, uint64, bool) { return s.feed.since(n) }

// Wait returns when there is news after number n, or ctx ends.
func (s *Set) Wait(ctx context.Context, n uint64) {
	s.feed.mu.Lock()
	if s.feed.last > n {
		s.feed.mu.Unlock()
		return
	}
	if s.feed.wake == nil {
		s.feed.wake = make(chan struct{})
	}
	wake := s.feed.wake
	s.feed.mu.Unlock()
	select {
	case <-wake:
	case <-ctx.Done():
	}
}

// Everything calls tell with all that is in force at now, and returns the number of the newest that is certainly among it.
// What comes into force meanwhile may be told, and comes after that number as well.
func (s *Set) Everything(now time.Time, tell func(News) error) (uint64, error) {
	_, last, _ := s.feed.since(0)
	if err := s.mirror.dead.each(func(k id, until time.Time) error {
		if now.After(until) {
			return nil
		}
		return tell(News{Lease: nameOf(k), Until: until})
	}); err != nil {
		return 0, err
	}
	for _, e := range s.index.all() {
		if now.After(e.Until) {
			continue
		}
		for _, n := range newsOf(s.index.hasher, e) {
			if err := tell(n); err != nil {
				return 0, err
			}
		}
	}
	return last, nil
}

// all returns every entry, those that lift last.
func (x *index) all() []Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []Entry
	for _, s := range x.byID {
		out = append(out, s.entry)
	}
	for id, until := range x.lifted {
		out = append(out, Entry{Lifts: id, Until: until})
	}
	return out
}

// each calls do with every id, a shard at a time.
func (t *table) each(do func(k id, until time.Time) error) error {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		list := make([]slot, 0, s.used)
		for j, e := range s.slots {
			if s.tags[j] != 0 {
				list = append(list, e)
			}
		}
		s.mu.RUnlock()
		for _, e := range list {
			if err := do(e.id, time.Unix(int64(e.until), 0)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Copy is what somebody knows who follows the news: it decides as a [Set] does. It only grows: what it was told once stays in
// force, whatever it is told later. It is safe for concurrent use.
type Copy struct {
	dead  *table
	index *index
}

// NewCopy returns one that knows nothing.
func NewCopy() *Copy { return &Copy{dead: newTable(), index: newIndex(Hasher{})} }

// Add takes a piece of news.
func (c *Copy) Add(n News) error {
	switch {
	case n.Lease != "":
		k, ok := decode(n.Lease)
		if !ok {
			return ErrSelector
		}
		c.dead.add(k, seconds(n.Until))
	case n.Lifts != "":
		c.index.add(Entry{Lifts: n.Lifts, Until: n.Until})
	case n.ID == "" || len(n.Terms) == 0:
		return ErrSelector
	default:
		e := Entry{Decision: n.ID, Lock: n.Lock, Before: n.Before, Until: n.Until}
		if n.Position != "" {
			p, err := ParsePosition(n.Position)
			if err != nil {
				return err
			}
			e.Position = p
		}
		c.index.put(e, n.Terms)
	}
	return nil
}

// Dead is [Set.Dead] for a token of ours.
func (c *Copy) Dead(f Facts) bool {
	for _, lease := range append([]string{f.Lease}, f.Ancestors...) {
		if _, ok := c.dead.has(idOf(lease)); ok && lease != "" {
			return true
		}
	}
	_, ok := c.index.dead(f.Parts)
	return ok
}

// Forget drops what nothing can match any more.
func (c *Copy) Forget(now time.Time) {
	c.dead.forget(now)
	c.index.forget(now)
}

// Len is how much is in force.
func (c *Copy) Len() int { return int(c.dead.live.Load()) + c.index.len() }
