package federation

import (
	"crypto/sha256"
	"sync"
	"time"
	"unsafe"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Bounds of the cache of verified tokens, both halves of all shards together.
const (
	maxCachedTokens = 8192
	maxCachedBytes  = 32 << 20
	cacheShards     = 16
)

// Caching returns a Trust like t that remembers the tokens it verified, so that one presented again costs neither a
// signature check nor an adapter. It changes no answer: only byte for byte the same token is known again, only while
// its issuer verifies with the very same keys, and its times are held against the clock each time. Whatever is not
// plainly still good goes the whole way. Own tokens are never remembered. What was decided about a workload is no
// part of this, policy and revocation come after it. The memory dies with the Trust, at a reload that is.
func (t *Trust) Caching() *Trust {
	out := *t
	out.cache = newTokenCache()
	return &out
}

// CacheStatus counts what a caching Trust did; all is zero for another.
type CacheStatus struct {
	Hits, Misses  uint64 // platforms' and own tokens alike; own tokens always miss
	Tokens, Bytes int    // Bytes is an estimate
}

// CacheStatus returns the counters.
func (t *Trust) CacheStatus() CacheStatus {
	var out CacheStatus
	if t.cache == nil {
		return out
	}
	for i := range t.cache.shards {
		s := &t.cache.shards[i]
		s.mu.Lock()
		out.Hits += s.hits
		out.Misses += s.misses
		out.Tokens += len(s.young.tokens) + len(s.old.tokens)
		out.Bytes += s.young.bytes + s.old.bytes
		s.mu.Unlock()
	}
	return out
}

// generational is a key source that can tell, without any work, which keys it would verify with.
type generational interface {
	// generation numbers the keys that VerifySignature would use now, before anything else. It is 0 while that would
	// look further first, or refuse. A number is never used again for other keys of the same source.
	generation() uint64
}

// generation is 0 for a record whose tokens are not remembered: key sets of others, our own among them, change by
// rules that are not known here.
func (r *record) generation() uint64 {
	if g, ok := r.Keys.(generational); ok && !r.own {
		return g.generation()
	}
	return 0
}

// cacheKey is the SHA-256 of a whole token. The fingerprint leaves the signature out and would let a forged one in.
type cacheKey [sha256.Size]byte

// cachedToken is one token that verified. It is immutable, and nothing of it is a secret: the token is not in it.
type cachedToken struct {
	record     *record
	generation uint64
	claims     registered // without payload and members
	workload   Workload
	weight     int // bytes, about
}

// tokenCache is split by key, so that requests rarely wait for each other. The nil cache remembers nothing.
type tokenCache struct{ shards [cacheShards]cacheShard }

// cacheShard has two halves. A full young one becomes the old one, and what was not asked for since is forgotten.
type cacheShard struct {
	mu           sync.Mutex
	young, old   cacheHalf
	hits, misses uint64
}

type cacheHalf struct {
	tokens map[cacheKey]*cachedToken
	bytes  int
}

func newTokenCache() *tokenCache {
	c := &tokenCache{}
	for i := range c.shards {
		c.shards[i].young.tokens = make(map[cacheKey]*cachedToken)
	}
	return c
}

// keyOf returns the key of raw, and false for what is not looked for.
func (c *tokenCache) keyOf(raw secret.Value) (key cacheKey, ok bool) {
	if c == nil {
		return key, false
	}
	token := raw.Reveal()
	if len(token) > MaxTokenSize {
		return key, false
	}
	return sha256.Sum256([]byte(token)), true
}

// find returns the workload of a token that verified before and would now.
func (c *tokenCache) find(key cacheKey, now time.Time) (Workload, bool) {
	s := &c.shards[key[0]%cacheShards]
	t := s.look(key)
	if t != nil && t.good(now) {
		return t.workload, true
	}
	if t != nil {
		s.forget(key, t)
	}
	return Workload{}, false
}

// good reports whether the token would be verified now: by the same keys, and within its times.
func (t *cachedToken) good(now time.Time) bool {
	return t.record.generation() == t.generation && t.claims.check(t.record, now) == nil
}

// admit remembers what an attempt came to. Its generation was read before the signature was checked, and numbers only
// grow: while the source still says the same, these keys and no others verified it.
func (c *tokenCache) admit(key cacheKey, a *attempt, w Workload) {
	if !a.verified || a.generation == 0 {
		return
	}
	t := &cachedToken{record: a.record, generation: a.generation, claims: a.claims, workload: w}
	t.claims.payload, t.claims.members = nil, nil // the token's bytes go
	t.weight = w.weight()
	if t.weight > maxCachedBytes/cacheShards/4 {
		return
	}
	s := &c.shards[key[0]%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, t)
}

func (s *cacheShard) look(key cacheKey) *cachedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.young.tokens[key]
	if t == nil {
		if t = s.old.tokens[key]; t != nil {
			s.old.drop(key, t)
			s.put(key, t)
		}
	}
	if t == nil {
		s.misses++
	} else {
		s.hits++
	}
	return t
}

// forget drops t, unless another has come in its place. What was counted as a hit was none.
func (s *cacheShard) forget(key cacheKey, t *cachedToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits--
	s.misses++
	for _, half := range []*cacheHalf{&s.young, &s.old} {
		if half.tokens[key] == t {
			half.drop(key, t)
		}
	}
}

// put needs the lock.
func (s *cacheShard) put(key cacheKey, t *cachedToken) {
	if before := s.young.tokens[key]; before != nil {
		s.young.drop(key, before)
	}
	const most, mostBytes = maxCachedTokens / cacheShards / 2, maxCachedBytes / cacheShards / 2
	if len(s.young.tokens) == most || s.young.bytes+t.weight > mostBytes {
		s.old, s.young = s.young, cacheHalf{tokens: make(map[cacheKey]*cachedToken)}
	}
	s.young.tokens[key] = t
	s.young.bytes += t.weight
}

func (h *cacheHalf) drop(key cacheKey, t *cachedToken) {
	delete(h.tokens, key)
	h.bytes -= t.weight
}

// weight estimates the memory that w holds.
func (w Workload) weight() int {
	const word, slot = int(unsafe.Sizeof("")), 64 // bytes of a string's header, and of an entry of a map
	t := w.token
	n := int(unsafe.Sizeof(cachedToken{})) + sha256.Size + slot
	n += len(w.id) + len(t.iss) + len(t.sub) + len(t.jti) + len(t.keyID) + len(t.algorithm) + len(t.typ)
	for _, a := range t.audiences {
		n += word + len(a)
	}
	for _, p := range t.delegation.actors {
		n += 2*word + len(p.Issuer) + len(p.Subject)
	}
	n += len(t.delegation.mayAct.Issuer) + len(t.delegation.mayAct.Subject)
	for name, v := range w.attributes {
		n += slot + len(name)
		switch x := v.Any().(type) {
		case string:
			n += len(x)
		case []string:
			for _, s := range x {
				n += word + len(s)
			}
		}
	}
	return n
}
