// Package limit holds token buckets for many keys in bounded memory.
//
// A bucket is forgotten only when it is full: it then is as good as a new one, so that nobody gets back what they
// spent by making the table overflow. While no bucket can be forgotten, keys that are new share a fixed number of
// buckets; who is known already is not disturbed.
package limit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of memory: some 4 MiB for each Limiter that sees so many keys.
const (
	maxKeys = 32768 // buckets of one key each
	shared  = 256   // buckets for the keys beyond

	sweepEvery = time.Second // at most one look for full buckets in so long
)

// Rate is what one key may do. The zero Rate limits nothing.
type Rate struct {
	PerSecond int
	Burst     int // at once
}

// Limiter decides for keys of one kind. The zero Limiter and nil allow everything. It is safe for concurrent use.
type Limiter[K comparable] struct {
	rate    Rate
	max     int
	refused atomic.Uint64
	seed    maphash.Seed

	mu    sync.Mutex
	own   map[K]*rate.Limiter
	rest  []*rate.Limiter // by hash, made when first needed
	swept time.Time
}

// New returns a limiter that gives each key the rate r, or nil if r is zero.
func New[K comparable](r Rate) *Limiter[K] {
	if r == (Rate{}) {
		return nil
	}
	return &Limiter[K]{rate: r, max: maxKeys, seed: maphash.MakeSeed(), own: map[K]*rate.Limiter{}}
}

// Allow takes one from the bucket of key at now, and reports whether there was one. now has a monotonic reading, as
// time.Now returns it: by a clock that is set back, an empty bucket would stay empty for as long.
func (l *Limiter[K]) Allow(key K, now time.Time) bool {
	if l == nil || l.bucket(key, now).AllowN(now, 1) {
		return true
	}
	l.refused.Add(1)
	return false
}

// Refused returns how often Allow was false.
func (l *Limiter[K]) Refused() uint64 {
	if l == nil {
		return 0
	}
	return l.refused.Load()
}

func (l *Limiter[K]) bucket(key K, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.own[key]; ok {
		return b
	}
	if len(l.own) >= l.max {
		l.sweep(now)
	}
	if len(l.own) >= l.max {
		return l.sharedBy(key)
	}
	b := l.fresh()
	l.own[key] = b
	return b
}

// sweep forgets the buckets that are full.
func (l *Limiter[K]) sweep(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < sweepEvery {
		return
	}
	l.swept = now
	for key, b := range l.own {
		if b.TokensAt(now) >= float64(l.rate.Burst) {
			delete(l.own, key)
		}
	}
}

// sharedBy returns the bucket that key shares. The hash is seeded, so that nobody can choose with whom.
func (l *Limiter[K]) sharedBy(key K) *rate.Limiter {
	if l.rest == nil {
		l.rest = make([]*rate.Limiter, shared)
		for i := range l.rest {
			l.rest[i] = l.fresh()
		}
	}
	return l.rest[maphash.Comparable(l.seed, key)%shared]
}

func (l *Limiter[K]) fresh() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)
}
