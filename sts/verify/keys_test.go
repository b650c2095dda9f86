package verify_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/verify"
)

// floor is how often an unknown kid may make the verifier read the keys.
const floor = 30 * time.Second

func (d *deployment) rotate(t *testing.T, r keys.Rotation) {
	t.Helper()
	if err := d.keys.Rotate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// verified is a deployment, a verifier of its tokens, and one that has passed it, so that the keys are known.
func verified(t *testing.T) (*deployment, *verify.Verifier, string) {
	t.Helper()
	d := deploy(t)
	v := newVerifier(t, d.config())
	token := d.mint(t, "checkout", "orders")
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	return d, v, token
}

// A rotation that did not wait for caches: the first token of the new key makes the verifier read the set once, however
// many bring it at once.
func TestRotatedKeyIsFetchedOnce(t *testing.T) {
	t.Parallel()
	d, v, before := verified(t)
	d.rotate(t, keys.Rotation{Now: true})
	d.clock.advance(floor)
	after := d.mint(t, "checkout", "orders")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := v.Verify(t.Context(), after); err != nil {
				t.Errorf("a token of the new key: %v", err)
			}
		})
	}
	all.Wait()
	if _, err := v.Verify(t.Context(), before); err != nil {
		t.Errorf("a token of the retired key, which is still published: %v", err)
	}
	if n := d.count("/jwks"); n != 2 {
		t.Errorf("the keys were fetched %d times, want once at first and once for the new key", n)
	}
}

// A key that was taken out verifies nothing once the set was read again, five minutes later at most, also for tokens
// that verified before.
func TestCompromisedKeyIsRefusedWithinFiveMinutes(t *testing.T) {
	t.Parallel()
	d, v, before := verified(t)
	d.rotate(t, keys.Rotation{Compromised: true})
	d.clock.advance(5 * time.Minute)
	wantRefused(t, v, "a token of a key that was taken out", before, verify.ErrSignature)
	if _, err := v.Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
}

// Strangers who invent key ids cause one fetch in thirty seconds, and slow down nobody.
func TestInventedKeyIDsCannotMakeTheVerifierFetch(t *testing.T) {
	t.Parallel()
	d, v, good := verified(t)
	forger := federationtest.NewNamed(t, d.issuer, jose.ES256)
	forge := func() string {
		return forger.Sign(claimsOf(t, good), atJWT, federationtest.WithHeader("kid", federationtest.RandomID())).Reveal()
	}
	d.clock.advance(floor)
	for range 50 {
		wantRefused(t, v, "an invented kid", forge(), verify.ErrSignature)
	}
	if n := d.count("/jwks"); n != 2 {
		t.Errorf("the keys were fetched %d times in thirty seconds, want 2", n)
	}
	d.clock.advance(floor)
	wantRefused(t, v, "an invented kid, later", forge(), verify.ErrSignature)
	if n := d.count("/jwks"); n != 3 {
		t.Errorf("the keys were fetched %d times in a minute, want 3", n)
	}
}

// The deployment is down: known keys go on for an hour past their life of five minutes, and then nothing is believed.
func TestKnownKeysOutliveAnOutageForABoundedTime(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	d.down("/jwks")
	wantRefused(t, v, "no key was ever had", d.mint(t, "checkout", "orders"), verify.ErrUnavailable)
	d.down("")
	d.clock.advance(floor)
	if _, err := v.Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
		t.Fatalf("after the outage: %v", err)
	}
	d.down("/jwks")
	const life, stale = 5 * time.Minute, time.Hour
	read := d.clock.now()
	for _, age := range []time.Duration{life - time.Second, life, life + time.Minute, life + stale - time.Second} {
		d.clock.nanos.Store(read.Add(age).UnixNano())
		if _, err := v.Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
			t.Errorf("keys of %s ago: %v", age, err)
		}
	}
	d.clock.advance(time.Second)
	raw := d.mint(t, "checkout", "orders")
	wantRefused(t, v, "keys older than that", raw, verify.ErrUnavailable)
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, verify.ErrUnavailable) || err.Error() != "token cannot be checked now: keys of the issuer: server answers with an error status" {
		t.Errorf("the error says %v, want why there are no keys", err)
	}
	d.down("")
	d.clock.advance(floor)
	if _, err := v.Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
		t.Errorf("after the second outage: %v", err)
	}
}
