// Package minted remembers which tokens were minted here. A token whose signature is ours, and which no replica minted, is
// the work of whoever has our signing key: it stands out because it is not in the index although the index has passed its
// time.
package minted

import (
	"encoding/hex"
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
	most    = 1 << 20       // tokens; with more, the oldest are forgotten, and nothing is said of those any more
	slot    = time.Minute
)

// Slot numbers the minute in which a token was issued.
func Slot(issued time.Time) int64 { return issued.Unix() / int64(slot/time.Second) }

// Index remembers the tokens that this process minted, and those of its audit log. It is safe for concurrent use.
type Index struct {
	mu    sync.RWMutex
	slots map[int64]map[Token]time.Time // by minute of issue: until when each lives
	n     int
	since time.Time // everything issued from here on is in it
	most  int
}

// NewIndex returns an index that knows of everything from since on.
func NewIndex(since time.Time) *Index {
	return &Index{slots: map[int64]map[Token]time.Time{}, since: since, most: most}
}

// Add remembers a token that is about to leave.
func (x *Index) Add(t Token, issued, expires time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.slots[Slot(issued)]
	if s == nil {
		s = map[Token]time.Time{}
		x.slots[Slot(issued)] = s
		x.forget(issued.Add(-Longest))
	}
	if _, ok := s[t]; !ok {
		x.n++
	}
	s[t] = expires
	for x.n > x.most && len(x.slots) > 1 {
		x.drop(x.oldest())
	}
}

func (x *Index) oldest() int64 {
	first := int64(0)
	for n := range x.slots {
		if first == 0 || n < first {
			first = n
		}
	}
	return first
}

// drop forgets a minute, and so everything before it.
func (x *Index) drop(n int64) {
	x.n -= len(x.slots[n])
	delete(x.slots, n)
	if end := time.Unix((n+1)*int64(slot/time.Second), 0); end.After(x.since) {
		x.since = end
	}
}

// forget drops what has expired long ago: nothing of it is asked for any more.
func (x *Index) forget(before time.Time) {
	for n := range x.slots {
		if n < Slot(before) {
			x.n -= len(x.slots[n])
			delete(x.slots, n)
		}
	}
}

// Has reports whether a token is in the index.
func (x *Index) Has(t Token, issued time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.slots[Slot(issued)][t]
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

// Each calls do with every token that has not expired at now.
func (x *Index) Each(now time.Time, do func(t Token, n int64, expires time.Time)) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for n, s := range x.slots {
		for t, expires := range s {
			if expires.After(now) {
				do(t, n, expires)
			}
		}
	}
}
