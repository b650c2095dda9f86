package lease_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

func TestAnIntentIsWrittenBeforeTheBrokerIsCalledAndCompletedAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("a", "root")
		called := false
		w.up().onMint = func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			called = true
			l, ok := w.lease("a")
			if !ok || l.State != lease.Minting || l.Name != o.Name() || l.Fingerprint != "" || !l.Due.After(time.Now().Add(lease.MintTimeout)) {
				t.Errorf("while the broker works the ledger has %+v (%v), want an intent that is due after the mint's time", l, ok)
			}
			if err := o.Note(ctx, secret.New("noted")); err != nil {
				t.Error(err)
			}
			if l, _ := w.lease("a"); len(l.Handle) == 0 {
				t.Error("a note is not in the ledger when it returns")
			}
			make()
			return credential(o), nil
		}
		c := w.mustMint(o)
		l, _ := w.lease("a")
		if !called || l.State != lease.Live || !l.Due.Equal(c.Expires) || !l.Expires.Equal(c.Expires) || l.Fingerprint != lease.Fingerprint(c.Value) {
			t.Errorf("afterwards the ledger has %+v, want a live lease that is due when it expires", l)
		}
		if found, err := w.keeper.Find(t.Context(), c.Value); err != nil || found.ID != "a" || found.Ancestors[0] != "root" {
			t.Errorf("by the credential %+v is found (%v), want lease a", found, err)
		}
	})
}

// A broker's word is never taken for more than was granted.
func TestALeaseIsKeptNoLongerThanWasGranted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("a")
		for id, expires := range map[string]time.Time{"later": o.Grant().Expires().Add(time.Hour), "never": {}} {
			w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
				make()
				c := credential(o)
				c.Expires = expires
				return c, nil
			}
			w.mustMint(w.order(id))
			if l, _ := w.lease(id); !l.Due.Equal(o.Grant().Expires()) {
				t.Errorf("a broker says that it expires %s: it is due at %s, want the end of the grant, %s", id, l.Due, o.Grant().Expires())
			}
		}
	})
}

func TestAFailedMintThatMadeNothingLeavesNoIntent(t *testing.T) {
	t.Parallel()
	for _, fault := range []error{brokers.ErrUnavailable, brokers.ErrMisconfigured, brokers.ErrTooShort, brokers.ErrScopes, brokers.ErrInput} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.up().onMint = func(context.Context, brokers.Order, func()) (brokers.Credential, error) {
				return brokers.Credential{}, fmt.Errorf("%w: it says", fault)
			}
			if _, err := w.mint(w.order("a")); !errors.Is(err, fault) {
				t.Errorf("minting: %v, want %v", err, fault)
			}
			if l, ok := w.lease("a"); ok {
				t.Errorf("after %v there is %+v", fault, l)
			}
			if n := len(w.up().told); n != 0 {
				t.Errorf("after %v, which made nothing, it was killed %d times", fault, n)
			}
		})
	}
}

// An upstream that goes on working for what it has been sent may make it after it was looked for.
func TestAnUncertainMintIsKilledAtOnceAndOnceMoreWhenItCannotBeAtWorkAnyLonger(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(brokers.Order) (brokers.Credential, error){
		"it says so": func(brokers.Order) (brokers.Credential, error) { return brokers.Credential{}, brokers.ErrUncertain },
		"both": func(brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, brokers.ErrUncertain)
		},
		"unknown error":    func(brokers.Order) (brokers.Credential, error) { return brokers.Credential{}, errInjected },
		"it panics":        func(brokers.Order) (brokers.Credential, error) { panic("secret") },
		"nothing returned": func(brokers.Order) (brokers.Credential, error) { return brokers.Credential{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.order("a")
				w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
					go func() { time.Sleep(12 * time.Second); make() }()
					return end(o)
				}
				if _, err := w.mint(o); err == nil {
					t.Error("it minted")
				}
				if l, ok := w.lease("a"); !ok || l.State != lease.Dying || l.Why != lease.WhyAbandoned {
					t.Errorf("the ledger has %+v (%v), want a dying lease", l, ok)
				}
				w.run(5 * time.Second)
				if n := w.up().tries(o.Name()); n != 1 {
					t.Errorf("it was killed %d times in the first seconds, want once", n)
				}
				w.run(20 * time.Second)
				w.nothing("after the mint's time")
				if n := w.up().tries(o.Name()); n != 2 {
					t.Errorf("it was killed %d times, want twice", n)
				}
				if len(w.endings()) != 1 {
					t.Errorf("its end was told %d times, want once", len(w.endings()))
				}
			})
		})
	}
}

// Nobody hands out what was revoked while it was made, whoever killed what at which moment.
func TestWhatIsRevokedWhileItIsMintedIsKilledAndNotHandedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("a", "root")
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			receipts, err := w.keeper.Kill(ctx, "root", "incident")
			if err != nil || len(receipts) != 1 || receipts[0].State != lease.Pending {
				t.Errorf("killing what is being made: %+v (%v), want pending: it may come to be yet", receipts, err)
			}
			make()
			return credential(o), nil
		}
		if _, err := w.mint(o); !errors.Is(err, lease.ErrDying) {
			t.Errorf("minting: %v, want ErrDying", err)
		}
		if names := w.up().names(); len(names) != 0 {
			t.Errorf("%v live when Mint has returned", names)
		}
		w.run(time.Second)
		w.nothing("after a second")
		if e := w.endings(); len(e) != 1 || e[0].lease.Why != "incident" {
			t.Errorf("told of its end: %+v, want once, by the incident", e)
		}
	})
}

// Who revokes while a mint runs is told of its end, if he waits for it.
func TestAKillWaitsForTheMintThatItInterrupts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		minting := make(chan struct{})
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			close(minting)
			time.Sleep(3 * time.Second)
			make()
			return credential(o), nil
		}
		go w.keeper.Run(t.Context())
		go func() { _, _ = w.mint(w.order("a", "root")) }()
		<-minting
		receipts, err := w.keeper.Kill(t.Context(), "root", "incident")
		if err != nil || len(receipts) != 1 || receipts[0].State != "dead" || receipts[0].Target != aTarget {
			t.Errorf("the receipt is %+v (%v), want dead", receipts, err)
		}
		w.nothing("when the receipt says dead")
		w.keeper.Withdraw(t.Context(), "nobody")
	})
}

// The attempt of a kill that looked before the credential was there must not close its lease when it is.
func TestAKillThatLookedTooEarlyDoesNotCloseTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		looked, minted := make(chan struct{}), make(chan struct{})
		first := true
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			if !first {
				return brokers.Receipt{}, errDown // and the mint cannot kill it itself
			}
			first = false
			r := w.up().kill(h)
			close(looked)
			<-minted
			return r, nil
		}
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			go func() { _, _ = w.keeper.Kill(t.Context(), "a", "incident") }()
			<-looked
			make()
			return credential(o), nil
		}
		_, err := w.mint(w.order("a"))
		close(minted)
		synctest.Wait()
		if l, ok := w.lease("a"); !errors.Is(err, lease.ErrDying) || !ok {
			t.Errorf("minting: %v; the ledger has %+v (%v), want ErrDying and a dying lease: the credential lives", err, l, ok)
		}
		w.up().works()
		w.run(time.Second)
		w.nothing("when the upstream works again")
	})
}

// The answer of the ledger may get lost after it has written. What the caller does not get must not live until it expires.
func TestALostAnswerOfTheLedgerLeavesNothingAlive(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"before open", "after open", "before update", "after update"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				down := false
				w.ledger.step = func(now string) error {
					if now == what {
						down = true
					}
					if down {
						return errInjected
					}
					return nil
				}
				upstreamToo := func(context.Context, brokers.Handle) (brokers.Receipt, error) { return brokers.Receipt{}, errDown }
				w.up().onRevoke = upstreamToo
				if _, err := w.mint(w.order("a")); err == nil {
					t.Error("it minted")
				}
				w.ledger.step = nil
				w.up().works()
				w.run(20 * time.Second)
				if what == "after update" { // the ledger holds it as live, and could not be told otherwise
					w.run(10 * time.Minute)
				}
				w.nothing("when all works again")
			})
		})
	}
	t.Run("once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			lost := false
			w.ledger.step = func(now string) error {
				if now == "after update" && !lost {
					lost = true
					return errInjected
				}
				return nil
			}
			w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) { return brokers.Receipt{}, errDown }
			if _, err := w.mint(w.order("a")); !errors.Is(err, lease.ErrUnavailable) {
				t.Errorf("minting: %v, want ErrUnavailable", err)
			}
			if l, ok := w.lease("a"); !ok || l.State != lease.Dying {
				t.Errorf("the ledger has %+v (%v), want a dying lease", l, ok)
			}
			w.up().works()
			w.run(5 * time.Second)
			w.nothing("when the upstream works again")
		})
	})
}

// A ledger that gave an intent up, by a clock that is ahead, is told of it again.
func TestALeaseThatWasGivenUpTooEarlyIsKnownAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			w.ledger.update([]string{"a"}, func(*lease.Lease) lease.Verdict { return lease.Remove })
			make()
			return credential(o), nil
		}
		w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) { return brokers.Receipt{}, errDown }
		if _, err := w.mint(w.order("a")); !errors.Is(err, lease.ErrUnknown) {
			t.Errorf("minting: %v, want ErrUnknown", err)
		}
		if l, ok := w.lease("a"); !ok || l.State != lease.Dying {
			t.Errorf("the ledger has %+v (%v), want a dying lease", l, ok)
		}
		w.up().works()
		w.run(20 * time.Second)
		w.nothing("when the upstream works again")
	})
}

func TestACallerWhoHangsUpDoesNotStopAMint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		w.up().onMint = func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			cancel()
			if d, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(d) > lease.MintTimeout {
				t.Errorf("the broker's context: %v, deadline %v (%v)", ctx.Err(), d, ok)
			}
			make()
			return credential(o), nil
		}
		if _, err := w.keeper.Mint(ctx, w.up(), w.order("a"), ""); err != nil {
			t.Errorf("minting: %v", err)
		}
	})
}

func TestWhatIsWithdrawnDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		w.keeper.Withdraw(t.Context(), "a")
		w.run(time.Second)
		w.nothing("after a second")
		if e := w.endings(); len(e) != 1 || e[0].lease.Why != lease.WhyWithdrawn || e[0].receipt.State != brokers.Dead {
			t.Errorf("told: %+v", e)
		}
	})
}

func TestLimitsRefuseBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "other")
		w.limits = lease.Limits{Target: 1}
		w.start()
		w.mustMint(w.order("a"))
		o := w.order("b")
		if _, err := w.mint(o); !errors.Is(err, lease.ErrLimit) {
			t.Errorf("one more than the limit: %v, want ErrLimit", err)
		}
		if names := w.up().names(); len(names) != 1 {
			t.Errorf("%v were made", names)
		}
		w.mustMint(w.orderAt("other", "c"))
		if _, err := w.keeper.Kill(t.Context(), "a", "over"); err != nil {
			t.Fatal(err)
		}
		w.mustMint(o)
	})
}
