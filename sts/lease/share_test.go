package lease_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

func (w *world) share(key string, o brokers.Order) brokers.Credential {
	w.t.Helper()
	c, err := w.keeper.Mint(w.t.Context(), w.up(), o, key)
	if err != nil {
		w.t.Fatalf("minting %s: %v", o.Lease().ID, err)
	}
	return c
}

// Two exchanges that have everything in common may have one credential, each as a lease of its own; whichever is killed, it dies.
func TestSharedCredentialDiesWithAnyOfItsLeases(t *testing.T) {
	t.Parallel()
	for name, victim := range map[string]string{"of the first": "a", "of the second": "b", "of the third": "c"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			first := w.share("k", w.order("a"))
			for _, id := range []string{"b", "c"} {
				if again := w.share("k", w.order(id)); again.Value.Reveal() != first.Value.Reveal() || !again.Expires.Equal(first.Expires) {
					t.Fatalf("%s: %s has a credential of its own", name, id)
				}
			}
			if _, ok := w.lease("c"); !ok || len(w.up().names()) != 1 {
				t.Fatalf("%s: %v live; the third has a lease: %v", name, w.up().names(), ok)
			}
			w.revoked[victim] = true
			if _, err := w.keeper.Kill(t.Context(), victim, "incident"); err != nil {
				t.Fatal(err)
			}
			if names := w.up().names(); len(names) != 0 {
				t.Errorf("%s: %v live", name, names)
			}
			if next := w.share("k", w.order("d")); next.Value.Reveal() == first.Value.Reveal() {
				t.Errorf("%s: the dead credential is given to another", name)
			}
		})
	}
}

// Whoever has the first one's key has its credential, and nobody else: not another key, not none.
func TestCredentialIsSharedUnderItsKeyAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.share("k", w.order("a"))
		for id, key := range map[string]string{"b": "another", "c": ""} {
			if c := w.share(key, w.order(id)); c.Value.Reveal() == first.Value.Reveal() {
				t.Errorf("the key %q has the credential of another", key)
			}
		}
		own := w.share("", w.order("d"))
		if c := w.share("", w.order("e")); c.Value.Reveal() == own.Value.Reveal() {
			t.Error("without a key, a credential is shared")
		}
	})
}

// A credential is shared while it fits: at least half of the time is left, it ends no later than the grant, it was handed out, its end
// is its end.
func TestSharedCredentialFitsItsGrant(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		between func(w *world)
		want    bool
	}{
		"at once":          {func(*world) {}, true},
		"at half of it":    {func(*world) { time.Sleep(5 * time.Minute) }, true},
		"after half of it": {func(*world) { time.Sleep(5*time.Minute + 2*time.Second) }, false},
		"a second after":   {func(*world) { time.Sleep(10*time.Minute + time.Second) }, false},
		"withdrawn":        {func(w *world) { w.keeper.Withdraw(w.t.Context(), "a") }, false},
		"another process":  {func(w *world) { w.start() }, false},
		"64 have it already": {func(w *world) {
			for i := range 63 {
				w.share("k", w.order(fmt.Sprintf("x%d", i)))
			}
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			// The grant of the second ends when the first's does, or later: grants are whole lifetimes from their decision.
			first := w.share("k", w.order("a"))
			tc.between(w)
			if again := w.share("k", w.order("b")); (again.Value.Reveal() == first.Value.Reveal()) != tc.want {
				t.Errorf("%s: shared %v, want %v", name, !tc.want, tc.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		long := w.order("a")
		first := w.share("k", long)
		if c := w.share("k", w.shorter("b", time.Minute)); c.Value.Reveal() == first.Value.Reveal() || c.Expires.After(time.Now().Add(time.Minute)) {
			t.Error("a grant of a minute has a credential of ten")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			make()
			c := credential(o)
			c.Stays = "its life was chosen by others"
			return c, nil
		}
		first := w.share("k", w.order("a"))
		if c := w.share("k", w.order("b")); c.Value.Reveal() == first.Value.Reveal() {
			t.Error("what works after its end is shared")
		}
	})
}

// Attack: the credential is revoked between the look for it and its hand-over. Where it cannot be killed, whoever asked would have what a
// revocation took from the first.
func TestSharedCredentialThatDiesMeanwhileIsGivenToNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.share("k", w.order("a"))
		w.ledger.step = func(what string) error {
			if what == "after open" {
				w.mu.Lock()
				w.revoked["a"] = true
				w.mu.Unlock()
			}
			return nil
		}
		c, err := w.keeper.Mint(t.Context(), w.up(), w.order("b"), "k")
		if !errors.Is(err, lease.ErrDying) || !c.Value.IsZero() {
			t.Errorf("it is given: %v", err)
		}
		if l, ok := w.lease("b"); !ok || l.State != lease.Dying {
			t.Errorf("its lease is %s", l.State)
		}
	})
}

// Leases of a shared credential count, so that limits hold.
func TestSharedCredentialCountsForEachOfItsLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.limits.Workload = 2
		w.start()
		w.share("k", w.order("a"))
		w.share("k", w.order("b"))
		if _, err := w.keeper.Mint(t.Context(), w.up(), w.order("c"), "k"); !errors.Is(err, lease.ErrLimit) {
			t.Errorf("a third of two: %v", err)
		}
	})
}
