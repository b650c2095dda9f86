package keys_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// clock stands still unless a test moves it.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanos.Store(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// replicas opens n sets of keys over one store, as n servers would.
func replicas(t *testing.T, c *clock, n int, p keys.Plan) []*keys.Keys {
	t.Helper()
	store, sealed := keys.NewFile(t.TempDir()), kek(t)
	var out []*keys.Keys
	for range n {
		cfg := config(t, t.TempDir(), sealed)
		cfg.Store, cfg.Plan, cfg.Now = store, p, c.now
		out = append(out, opened(t, cfg))
	}
	return out
}

func refresh(t *testing.T, all ...*keys.Keys) {
	t.Helper()
	for _, k := range all {
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// states lists the states of one set in the order in which keys sign.
func states(k *keys.Keys, set string) []keys.State {
	var out []keys.State
	for _, s := range k.Timeline() {
		if s.Set == set {
			out = append(out, s.State)
		}
	}
	return out
}

// signer returns the kid that signs now.
func signer(t *testing.T, k *keys.Keys) string {
	t.Helper()
	token, err := k.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, keys.Supported())
	if err != nil {
		t.Fatal(err)
	}
	return jws.Signatures[0].Header.KeyID
}

func TestKeyIsPublishedBeforeItSignsAndUntilItsLastTokenIsDead(t *testing.T) {
	t.Parallel()
	c := newClock()
	k := replicas(t, c, 1, plan)[0]
	first := signer(t, k)
	c.advance(plan.RotateEvery - plan.PublishBefore - time.Second)
	refresh(t, k)
	if got := states(k, keys.SetTokens); !slices.Equal(got, []keys.State{keys.Active}) {
		t.Errorf("a second before its time: %v", got)
	}
	c.advance(time.Second)
	refresh(t, k)
	if got := states(k, keys.SetTokens); !slices.Equal(got, []keys.State{keys.Active, keys.Next}) || signer(t, k) != first {
		t.Errorf("when it is published: %v", got)
	}
	c.advance(plan.PublishBefore)
	refresh(t, k)
	if got := states(k, keys.SetTokens); !slices.Equal(got, []keys.State{keys.Retired, keys.Active}) || signer(t, k) == first {
		t.Errorf("at its instant: %v", got)
	}
	c.advance(time.Hour + 4*time.Minute)
	refresh(t, k)
	if n := len(k.Tokens().Published().Set.Keys); n != 2 {
		t.Errorf("while tokens of the old key can live, %d keys are published", n)
	}
	c.advance(time.Minute)
	refresh(t, k)
	if got := k.Tokens().Published().Set.Keys; len(got) != 1 || got[0].KeyID == first {
		t.Errorf("when they are dead, %d keys are published", len(got))
	}
}

// Nobody was there when the next key was due. It is late, and published as long as any other before it signs.
func TestKeyThatComesLateIsPublishedBeforeItSigns(t *testing.T) {
	t.Parallel()
	c := newClock()
	k := replicas(t, c, 1, plan)[0]
	first := signer(t, k)
	c.advance(2 * plan.RotateEvery)
	refresh(t, k)
	if got := states(k, keys.SetTokens); !slices.Equal(got, []keys.State{keys.Active, keys.Next}) || signer(t, k) != first {
		t.Fatalf("after a long absence: %v", got)
	}
	c.advance(plan.PublishBefore - time.Second)
	if refresh(t, k); signer(t, k) != first {
		t.Error("the next key signs before caches can know it")
	}
	c.advance(time.Second)
	if refresh(t, k); signer(t, k) == first {
		t.Error("the next key does not sign at its instant")
	}
}

func TestReplicasThatRotateTogetherMakeOneNextKey(t *testing.T) {
	t.Parallel()
	c := newClock()
	all := replicas(t, c, 4, plan)
	var wg sync.WaitGroup
	for _, k := range all {
		wg.Go(func() {
			if err := k.Rotate(t.Context(), keys.Rotation{}); err != nil {
				t.Errorf("rotating: %v", err)
			}
		})
	}
	wg.Wait()
	refresh(t, all...)
	for _, k := range all {
		if got := states(k, keys.SetTokens); !slices.Equal(got, []keys.State{keys.Active, keys.Next}) {
			t.Errorf("a replica has %v", got)
		}
	}
	c.advance(plan.PublishBefore - time.Nanosecond)
	refresh(t, all...)
	before := signer(t, all[0])
	c.advance(time.Nanosecond)
	after := signer(t, all[0])
	for _, k := range all { // none has read the document since: the instant stands in it
		if got := signer(t, k); before == after || got != after {
			t.Errorf("at the instant replicas sign with %s and %s, before with %s", after, got, before)
		}
	}
}

func TestReplicaThatReadsNoKeysSignsNoMore(t *testing.T) {
	t.Parallel()
	c := newClock()
	k := replicas(t, c, 1, plan)[0]
	c.advance(plan.PublishBefore*2/5 - time.Second)
	signer(t, k)
	c.advance(time.Second)
	if _, err := k.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, nil); !errors.Is(err, keys.ErrStale) {
		t.Errorf("signing says %v, want ErrStale", err)
	}
	refresh(t, k)
	signer(t, k)
}

func TestCompromisedKeyIsOutAtOnceAndReplicasAskForUnknownOnes(t *testing.T) {
	t.Parallel()
	c := newClock()
	both := replicas(t, c, 2, plan)
	old := signer(t, both[0])
	if err := both[0].Rotate(t.Context(), keys.Rotation{Compromised: true}); err != nil {
		t.Fatal(err)
	}
	token, err := both[0].Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, keys.Supported())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := both[1].Tokens().VerifySignature(t.Context(), jws); err != nil {
		t.Errorf("the other replica does not verify a token of the new key: %v", err)
	}
	for i, k := range both {
		if slices.ContainsFunc(k.Tokens().Published().Set.Keys, func(j jose.JSONWebKey) bool { return j.KeyID == old }) {
			t.Errorf("replica %d still publishes the compromised key", i)
		}
	}
}

func TestAddedAlgorithmSignsWhenItIsKnown(t *testing.T) {
	t.Parallel()
	c := newClock()
	sealed, dir := kek(t), t.TempDir()
	cfg := config(t, dir, sealed)
	cfg.Now = c.now
	opened(t, cfg)
	cfg.Plan.Algorithms = []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}
	k := opened(t, cfg)
	if _, err := k.Tokens().Sign(t.Context(), keys.Header{Algorithm: "EdDSA", Type: "JWT"}, nil); !errors.Is(err, keys.ErrInactive) {
		t.Errorf("signing with a key just published says %v", err)
	}
	signer(t, k) // the default falls back to the other
	c.advance(plan.PublishBefore)
	refresh(t, k)
	if _, err := k.Tokens().Sign(t.Context(), keys.Header{Algorithm: "EdDSA", Type: "JWT"}, nil); err != nil {
		t.Error(err)
	}
}
