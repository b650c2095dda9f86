package federation_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// remote is a trust in an issuer that is asked over the network.
type remote struct {
	*federationtest.Issuer
	t     *testing.T
	clock *clock
	cache *federation.KeyCache
	trust *federation.Trust
	log   *bytes.Buffer
}

func newRemote(t *testing.T, iss *federationtest.Issuer) *remote {
	t.Helper()
	return newRemoteSpec(t, iss, iss.KeySpec())
}

func newRemoteSpec(t *testing.T, iss *federationtest.Issuer, spec federation.KeySpec) *remote {
	t.Helper()
	r := &remote{Issuer: iss, t: t, clock: &clock{now: noon}, log: &bytes.Buffer{}}
	r.cache = federation.NewKeyCache(r.clock.Now, zerolog.New(zerolog.SyncWriter(r.log)))
	t.Cleanup(r.cache.Close)
	keys, err := r.cache.Source(spec)
	if err != nil {
		t.Fatalf("Source: %v", err)
	}
	e := entry(federationtest.NewNamed(t, iss.URL(), jose.ES256))
	e.Keys, e.Algorithms = keys, spec.Algorithms
	r.trust = newTrust(t, e)
	return r
}

// identify verifies a fresh token at the clock's time.
func (r *remote) identify(options ...federationtest.Option) error {
	r.t.Helper()
	now := r.clock.Now()
	_, err := r.trust.Identify(r.t.Context(), r.Sign(r.Claims(now, "api", audience), options...), now)
	return err
}

func (r *remote) mustIdentify(what string, options ...federationtest.Option) {
	r.t.Helper()
	if err := r.identify(options...); err != nil {
		r.t.Errorf("%s: %v", what, err)
	}
}

func (r *remote) wantFetches(n int, what string) {
	r.t.Helper()
	if got := r.Fetches(); got != n {
		r.t.Errorf("%s: %d fetches, want %d", what, got, n)
	}
}

func (r *remote) status() federation.KeyStatus { return r.cache.Status()[0] }

// liveness is how long anything in the background may take on a machine that is busy with other things.
const liveness = 60 * time.Second

// eventually waits for what happens in the background.
func (r *remote) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(liveness); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not happen within %s", what, liveness)
		}
	}
}

func TestKeysAreFetchedAtFirstUseAndThenCached(t *testing.T) {
	for name, iss := range map[string]*federationtest.Issuer{"http": federationtest.New(t), "https": federationtest.NewTLS(t)} {
		r := newRemote(t, iss)
		r.wantFetches(0, name+": before the first token")
		if s := r.status(); s.Used || !s.Healthy || s.Source != "discovery" {
			t.Errorf("%s: status %+v before the first token", name, s)
		}
		for range 5 {
			r.mustIdentify(name)
		}
		r.wantFetches(1, name+": five tokens")
		if s := r.status(); !s.Used || !s.Healthy || s.Keys != 1 || s.Age(noon.Add(time.Second)) != time.Second {
			t.Errorf("%s: status %+v after the first token", name, s)
		}
	}
}

func TestManyFirstTokensShareOneFetch(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	raw := r.Sign(r.Claims(noon, "api", audience))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := r.trust.Identify(t.Context(), raw, noon); err != nil {
				t.Errorf("Identify: %v", err)
			}
		})
	}
	wg.Wait()
	r.wantFetches(1, "fifty tokens at once")
}

// Junk must not make us hammer an issuer (go-oidc issue 482; standards 4.13).
func TestUnknownKeyIDCausesAtMostOneFetchPerFloor(t *testing.T) {
	r, other := newRemote(t, federationtest.New(t)), newRemote(t, federationtest.New(t))
	r.mustIdentify("first token")
	other.mustIdentify("first token of another issuer")
	junk := func(n int) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if err := r.identify(header("kid", federationtest.RandomID())); !errors.Is(err, federation.ErrSignature) {
					t.Errorf("unknown kid: %v, want the signature refused", err)
				}
			})
		}
		wg.Wait()
	}
	junk(1000)
	r.wantFetches(1, "junk within the floor of the first fetch")
	r.clock.Advance(29 * time.Second)
	junk(100)
	r.wantFetches(1, "junk after 29 s")
	r.clock.Advance(time.Second)
	junk(1000)
	r.wantFetches(2, "junk after 30 s")
	r.mustIdentify("good token after junk")
	other.wantFetches(1, "the other issuer")
}

// The attempt counts, not its success.
func TestFailedFetchesKeepTheFloor(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.SetDown(true)
	for range 20 {
		wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	}
	if n := r.Discoveries(); n != 1 {
		t.Errorf("%d attempts within the floor, want 1", n)
	}
	r.clock.Advance(30 * time.Second)
	r.SetDown(false)
	r.mustIdentify("after the floor")
}

func TestRotationIsNoticed(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.mustIdentify("first key")
	r.clock.Advance(31 * time.Second)
	r.Rotate(jose.ES256)
	r.mustIdentify("second key, never seen before")
	r.wantFetches(2, "rotation")
}

func TestRotationIsNoticedWithoutKeyIDs(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	bare := func(k federationtest.Key) jose.JSONWebKey {
		p := k.Public()
		p.KeyID = ""
		return p
	}
	r.Publish(bare(r.Key()))
	r.mustIdentify("first key", federationtest.WithoutHeader("kid"))
	r.clock.Advance(31 * time.Second)
	r.Publish(bare(r.Rotate(jose.ES256)))
	r.mustIdentify("second key", federationtest.WithoutHeader("kid"))
}

// A successful answer without a key removes it (standards 4.14).
func TestWithdrawnKeyIsRefusedAfterRefresh(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	first := r.Key()
	r.mustIdentify("first key", federationtest.WithKey(first))
	r.clock.Advance(31 * time.Second)
	r.Rotate(jose.ES256)
	r.Withdraw(first.ID)
	r.mustIdentify("second key")
	wantRejected(t, r.identify(federationtest.WithKey(first)), federation.ErrSignature)
}

func TestEmptyKeySetRemovesAllKeys(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.mustIdentify("first key")
	r.Publish(make([]jose.JSONWebKey, 0)...)
	r.clock.Advance(2 * time.Hour)
	wantRejected(t, r.identify(), federation.ErrSignature)
	if s := r.status(); s.Healthy || s.Keys != 0 || s.LastError == "" {
		t.Errorf("status %+v of an issuer that publishes no key", s)
	}
}

// Cache-Control is honoured between a minute and an hour (standards 4.15).
func TestCacheLifetime(t *testing.T) {
	for _, tc := range []struct{ maxAge, fresh, due time.Duration }{
		{0, 41 * time.Second, 61 * time.Second},
		{time.Second, 41 * time.Second, 61 * time.Second},
		{10 * time.Minute, 6 * time.Minute, 10*time.Minute + time.Second},
		{24 * time.Hour, 41 * time.Minute, time.Hour + time.Second},
	} {
		r := newRemote(t, federationtest.New(t))
		r.SetMaxAge(tc.maxAge)
		r.mustIdentify("first")
		r.clock.Advance(tc.fresh)
		r.mustIdentify("fresh")
		time.Sleep(5 * time.Millisecond)
		r.wantFetches(1, "fresh keys")
		r.clock.Advance(tc.due - tc.fresh)
		r.mustIdentify("due")
		r.wantFetches(2, "keys past their life")
	}
}

func TestRefreshHappensInBackgroundAheadOfExpiry(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.SetMaxAge(10 * time.Minute)
	r.mustIdentify("first")
	r.clock.Advance(9 * time.Minute)
	r.mustIdentify("while fresh")
	r.eventually("the refresh", func() bool { return r.Fetches() == 2 })
	r.eventually("the new state", func() bool { return r.status().Fetched.After(noon) })
	r.clock.Advance(2 * time.Minute)
	r.mustIdentify("after the first life")
	r.wantFetches(2, "after the refresh")
}

// Keys that went stale because nobody asked are not trusted before the issuer was asked again.
func TestIdleKeysAreRefreshedBeforeUse(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	first := r.Key()
	r.mustIdentify("first")
	r.Rotate(jose.ES256)
	r.Withdraw(first.ID)
	r.clock.Advance(3 * time.Minute)
	wantRejected(t, r.identify(federationtest.WithKey(first)), federation.ErrSignature)
}

// Known keys serve for an hour past their life when the issuer is down, then the issuer fails closed
// (standards 4.14).
func TestStaleKeysServeForBoundedTime(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.mustIdentify("first") // fresh for one minute
	r.SetDown(true)
	r.clock.Advance(2 * time.Minute)
	r.mustIdentify("issuer down, keys stale")
	if s := r.status(); s.Healthy || s.LastError == "" || s.Keys != 1 {
		t.Errorf("status %+v of an issuer that is down", s)
	}
	r.clock.Advance(58*time.Minute + 59*time.Second)
	r.mustIdentify("at the end of the window")
	r.clock.Advance(time.Second)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	r.SetDown(false)
	r.clock.Advance(30 * time.Second)
	r.mustIdentify("issuer back")
	if s := r.status(); !s.Healthy || s.LastError != "" {
		t.Errorf("status %+v of an issuer that is back", s)
	}
}

// The first caller's patience is not everybody's: zitadel's key set fails all waiters with it.
func TestFetchOutlivesTheCallerWhoStartedIt(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	raw := r.Sign(r.Claims(noon, "api", audience))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.trust.Identify(gone, raw, noon)
	if err != nil { // the fetch may win the race
		wantRejected(t, err, federation.ErrKeysUnavailable)
	}
	r.mustIdentify("second caller")
	r.wantFetches(1, "two callers")
}

func TestEndedSourceVerifiesNothing(t *testing.T) {
	r := newRemote(t, federationtest.New(t))
	r.mustIdentify("first")
	r.cache.Retain(nil)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	r.clock.Advance(2 * time.Hour)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	r.wantFetches(1, "after Retain")
}

func TestJWKSURLNeedsNoDiscovery(t *testing.T) {
	iss := federationtest.New(t)
	spec := iss.KeySpec()
	spec.Discovery, spec.JWKSURL = false, iss.JWKSURL()
	r := newRemoteSpec(t, iss, spec)
	r.mustIdentify("jwks_url")
	if r.Discoveries() != 0 {
		t.Error("metadata was asked for")
	}
}
