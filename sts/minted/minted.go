// Package minted remembers which tokens were minted here. A token whose signature is ours, and which no replica minted, is
// the work of whoever has our signing key: it stands out because it is not in the index although the index has passed its
// time.
package minted

import (
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Token is what is remembered of a token: the first half of its fingerprint.
type Token [16]byte

// Of names a verified token.
func Of(f federation.Fingerprint) Token { return Token(f[:16]) }

// Parse reads a fingerprint in hex, as records have it.
func Parse(fingerprint string) (t Token, ok bool) {
	raw, err := hex.DecodeString(fingerprint)
	if err != nil || len(raw) != len(federation.Fingerprint{}) {
		return Token{}, false
	}
	return Token(raw[:16]), true
}

// Bounds of an index.
const (
	Longest = 2 * time.Hour // of any token's life, and clocks
	most    = 1 << 22       // tokens, some 30 bytes each; with more, the oldest are forgotten, and of their time nothing can be said any more
	slot    = time.Minute
)

// Slot numbers the minute in which a token was issued.
func Slot(issued time.Time) int64 { return issued.Unix() / int64(slot/time.Second) }

// Index remembers the tokens that this process minted, and those of its audit log. It is safe for concurrent use.
type Index struct {
	mu     sync.RWMutex
	slots  map[int64]*minute // by number
	n      int
	since  time.Time // everything issued from here on is in it
	forgot bool      // living tokens, for want of room
	most   int
}

// minute holds what was issued in one.
type minute struct {
	tokens  map[Token]struct{}
	expires time.Time // the last of them
}

// NewIndex returns an index that knows of everything from since on.
func NewIndex(since time.Time) *Index {
	return &Index{slots: map[int64]*minute{}, since: since, most: most}
}

// Add remembers a token that is about to leave.
func (x *Index) Add(t Token, issued, expires time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.slots[Slot(issued)]
	if s == nil {
		s = &minute{tokens: map[Token]struct{}{}}
		x.slots[Slot(issued)] = s
		x.forget(Slot(issued.Add(-Longest)))
	}
	before := len(s.tokens)
	s.tokens[t] = struct{}{}
	x.n += len(s.tokens) - before
	if expires.After(s.expires) {
		s.expires = expires
	}
	for x.n > x.most && len(x.slots) > 1 {
		x.makeRoom(issued)
	}
}

// makeRoom forgets the minute that has expired first, if one has; else the oldest, and so what there was before it.
func (x *Index) makeRoom(now time.Time) {
	numbers := slices.Sorted(maps.Keys(x.slots))
	gone := slices.MinFunc(numbers, func(a, b int64) int { return x.slots[a].expires.Compare(x.slots[b].expires) })
	if !x.slots[gone].expires.Before(now) {
		gone, x.forgot = numbers[0], true
		if end := time.Unix((gone+1)*int64(slot/time.Second), 0); end.After(x.since) {
			x.since = end
		}
	}
	x.drop(gone)
}

func (x *Index) drop(n int64) {
	x.n -= len(x.slots[n].tokens)
	delete(x.slots, n)
}

// forget drops what has expired long ago: nothing of it is asked for any more.
func (x *Index) forget(before int64) {
	for n := range x.slots {
		if n < before {
			x.drop(n)
		}
	}
}

// Has reports whether a token is in the index.
func (x *Index) Has(t Token, issued time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := x.slots[Slot(issued)]
	if s == nil {
		return false
	}
	_, ok := s.tokens[t]
	return ok
}

// Covers reports whether a token of that time would be in the index if this process had minted it.
func (x *Index) Covers(issued time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return !issued.Before(x.since)
}

// Since is the moment from which on the index knows everything.
func (x *Index) Since() time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.since
}

// Forgot says from when on nothing was forgotten, when living tokens were for want of room.
func (x *Index) Forgot(now time.Time) (since time.Time, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.since, x.forgot && x.since.After(now.Add(-Longest))
}

// Each calls do with every token of a minute of which something lives at now, and with the end of the last of that minute.
func (x *Index) Each(now time.Time, do func(t Token, n int64, expires time.Time)) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for n, s := range x.slots {
		if !s.expires.After(now) {
			continue
		}
		for t := range s.tokens {
			do(t, n, s.expires)
		}
	}
}
