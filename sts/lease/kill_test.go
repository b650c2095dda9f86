package lease_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

func TestWhatExpiresIsKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.mustMint(w.order("a"))
		w.run(time.Until(c.Expires) - time.Second)
		if names := w.up().names(); len(names) != 1 {
			t.Errorf("before its time %v live, want one", names)
		}
		w.run(2 * time.Second)
		w.nothing("a second after its time")
		if e := w.endings(); len(e) != 1 || e[0].lease.Why != lease.WhyExpired || e[0].lease.ID != "a" {
			t.Errorf("told: %+v, want that a expired", e)
		}
	})
}

// Only one replica cleans up; whoever is asked to kill does.
func TestAReplicaThatDoesNotLeadKillsOnlyWhatItIsAskedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ledger.follow = true
		w.mustMint(w.order("a"))
		w.mustMint(w.order("b"))
		if r, err := w.keeper.Kill(t.Context(), "b", "incident"); err != nil || len(r) != 1 || r[0].State != "dead" {
			t.Errorf("killing b: %+v (%v)", r, err)
		}
		w.run(time.Hour)
		if names := w.up().names(); len(names) != 1 {
			t.Errorf("%v live, want the one that nobody asked for", names)
		}
		w.ledger.follow = false
		w.run(time.Second)
		w.nothing("when it leads")
	})
}

func TestKillingFailsUntilItDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("a")
		w.mustMint(o)
		var at []time.Time
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			at = append(at, time.Now())
			if len(at) <= 12 {
				return brokers.Receipt{}, fmt.Errorf("%w: %s", brokers.ErrUnavailable, strings.Repeat("x", 1000))
			}
			return w.up().kill(h), nil
		}
		receipts, err := w.keeper.Kill(t.Context(), "a", "incident")
		if err != nil || len(receipts) != 1 || receipts[0].State != lease.Pending || receipts[0].Reason == "" {
			t.Errorf("killing at a target that is down: %+v (%v), want pending, and why", receipts, err)
		}
		if l, _ := w.lease("a"); l.Tries != 1 || l.Fault == "" || len(l.Fault) > 256 {
			t.Errorf("the ledger has %+v, want the fault, cut short", l)
		}
		w.run(10 * time.Minute)
		w.nothing("after a while")
		rests, grown := map[time.Duration]bool{}, map[time.Duration]bool{}
		for i := 1; i < len(at); i++ {
			rest := at[i].Sub(at[i-1])
			rests[rest] = true
			if rest > 31*time.Second {
				t.Errorf("attempt %d came %s after the one before, want at most half a minute", i, rest)
			}
			if i >= 7 {
				grown[rest] = true
			}
			if i >= 7 && rest < 14*time.Second {
				t.Errorf("attempt %d came %s after the one before, want rests that have grown", i, rest)
			}
		}
		if len(at) != 13 || len(rests) < 6 || len(grown) < 3 {
			t.Errorf("%d attempts with %d different rests between them, %d when they have grown, want 13 with jitter", len(at), len(rests), len(grown))
		}
	})
}

func TestWhatCannotBeKilledIsToldOnceAndForgottenAtItsTime(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		state     brokers.State
		downLater bool
	}{
		"dies": {brokers.DiesAt, false}, "may exist": {brokers.MayExist, false}, "stays": {brokers.Stays, false},
		"dies, and nobody can be asked at its time": {brokers.DiesAt, true}, "stays, and nobody can be asked at the end of its grant": {brokers.Stays, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.order("a")
				c := w.mustMint(o)
				at := c.Expires
				if test.state == brokers.Stays {
					at = time.Time{}
				}
				w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) {
					return brokers.Receipt{State: test.state, At: at, Reason: "no way"}, nil
				}
				r, err := w.keeper.Kill(t.Context(), "a", "incident")
				if err != nil || len(r) != 1 || r[0].State != test.state.String() || !r[0].At.Equal(at) || r[0].Reason != "no way" {
					t.Errorf("the receipt is %+v (%v)", r, err)
				}
				if test.downLater {
					w.up().down()
				}
				w.run(time.Until(c.Expires) - time.Second)
				if l, ok := w.lease("a"); !ok || l.Dies != test.state.String()+": no way" || w.up().tries(o.Name()) != 1 {
					t.Errorf("before its time the ledger has %+v (%v) after %d attempts", l, ok, w.up().tries(o.Name()))
				}
				w.run(time.Minute)
				if l, ok := w.lease("a"); ok {
					t.Errorf("after its time the ledger has %+v", l)
				}
				if e := w.endings(); len(e) != 1 || e[0].receipt.State != test.state {
					t.Errorf("told: %+v, want once that it %s", e, test.state)
				}
			})
		})
	}
}

// What goes on working after its grant is listed as that while it lives, and its end is on record as none.
// Where an upstream has no room to refuse a credential now, it is tried again, and told when it is refused. Its holder who gives it
// back again and again causes nothing; an operator who revokes it does.
func TestWhatCouldNotBeDoneNowIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.mustMint(w.order("a"))
		tries, room, returned := 0, false, true
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			if !h.Expires.After(time.Now()) {
				return w.up().kill(h), nil
			}
			if h.Returned != returned {
				t.Errorf("try %d: returned by its holder: %v", tries, h.Returned)
			}
			if tries++; room {
				return brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: "refused"}, nil
			}
			return brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: "no room", Again: true}, nil
		}
		if r, err := w.keeper.Kill(t.Context(), "a", "given back"); err != nil || len(r) != 1 || r[0].State != "dies" || r[0].Reason != "no room" {
			t.Errorf("without room: %+v (%v)", r, err)
		}
		w.run(time.Minute)
		if tries < 3 || len(w.endings()) != 1 {
			t.Errorf("tried %d times, told %d times; want a few, and once", tries, len(w.endings()))
		}
		room = true
		w.run(3 * time.Minute)
		done := tries
		if e := w.endings(); len(e) != 2 || e[1].receipt.Reason != "refused" {
			t.Errorf("told: %+v, want that it is refused in the end", e)
		}
		for range 5 {
			if r, err := w.keeper.Kill(t.Context(), "a", "given back"); err != nil || len(r) != 1 || r[0].State != "dies" || r[0].Reason != "refused" || !r[0].At.Equal(c.Expires) {
				t.Errorf("given back once more: %+v (%v)", r, err)
			}
		}
		if tries != done {
			t.Errorf("a holder who gives back again caused %d tries", tries-done)
		}
		returned = false
		match := func(lease.Lease) bool { return true }
		if r, err := w.keeper.KillWhere(t.Context(), match, "incident"); err != nil || len(r) != 1 || r[0].State != "dies" || tries != done+1 {
			t.Errorf("an operator's: %+v (%v), %d tries", r, err, tries-done)
		}
		w.run(time.Until(c.Expires) + time.Second)
		w.nothing("after its time")
	})
}

func TestWhatStaysIsSaidSoBeforeAndAfterItsGrant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			make()
			c := credential(o)
			c.Stays = "until somebody changes it"
			return c, nil
		}
		w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) {
			return brokers.Receipt{State: brokers.Stays, Reason: "until somebody changes it"}, nil
		}
		o := w.order("a")
		w.mustMint(o)
		if l, ok := w.lease("a"); !ok || l.State != lease.Live || l.Stays != "until somebody changes it" || !l.Expires.Equal(o.Grant().Expires()) {
			t.Errorf("while it lives the ledger has %+v (%v)", l, ok)
		}
		w.run(time.Until(o.Grant().Expires()) + time.Minute)
		if l, ok := w.lease("a"); ok {
			t.Errorf("after its grant the ledger has %+v", l)
		}
		if e := w.endings(); len(e) != 1 || e[0].receipt.State != brokers.Stays || !e[0].receipt.At.IsZero() || e[0].receipt.Reason != "until somebody changes it" {
			t.Errorf("told: %+v, want once that it stays", e)
		}
	})
}

// A broker that returns neither a receipt nor an error has not seen anything dead.
func TestAReceiptThatSaysNothingIsNoReceipt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) { return brokers.Receipt{}, nil }
		if r, err := w.keeper.Kill(t.Context(), "a", "incident"); err != nil || r[0].State != lease.Pending {
			t.Errorf("the receipt is %+v (%v), want pending", r, err)
		}
		w.up().works()
		w.run(5 * time.Second)
		w.nothing("when it works")
	})
}

// bulk is an upstream that takes many at once, and answers as it likes.
type bulk struct {
	*upstream
	answer func(hs []brokers.Handle) []brokers.Result
}

func (b *bulk) RevokeAll(_ context.Context, hs []brokers.Handle) []brokers.Result {
	return b.answer(hs)
}

func TestManyAreKilledTogether(t *testing.T) {
	t.Parallel()
	properly := func(b *bulk, hs []brokers.Handle) []brokers.Result {
		out := make([]brokers.Result, len(hs))
		for i, h := range hs {
			out[i].Receipt = b.kill(h)
		}
		return out
	}
	for name, test := range map[string]struct {
		first  func(b *bulk, hs []brokers.Handle) []brokers.Result // the first answer
		killed int                                                 // by the first answer
	}{
		"as they should be": {properly, 500},
		"too few answers":   {func(b *bulk, hs []brokers.Handle) []brokers.Result { return properly(b, hs)[:1] }, 0},
		"too many answers":  {func(b *bulk, hs []brokers.Handle) []brokers.Result { return append(properly(b, hs), brokers.Result{}) }, 0},
		"no answer":         {func(*bulk, []brokers.Handle) []brokers.Result { return nil }, 0},
		"a panic":           {func(*bulk, []brokers.Handle) []brokers.Result { panic("secret") }, 0},
		"empty answers":     {func(_ *bulk, hs []brokers.Handle) []brokers.Result { return make([]brokers.Result, len(hs)) }, 0},
		"every second fails": {func(b *bulk, hs []brokers.Handle) []brokers.Result {
			out := properly(b, hs)
			for i := 0; i < len(out); i += 2 {
				b.set(hs[i].Name, true)
				out[i] = brokers.Result{Err: errDown}
			}
			return out
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				calls := 0
				b := &bulk{upstream: w.up()}
				b.answer = func(hs []brokers.Handle) []brokers.Result {
					calls++
					if calls == 1 {
						return test.first(b, hs)
					}
					return properly(b, hs)
				}
				w.brokers = map[string]brokers.Revoker{aTarget: b}
				for i := range 500 {
					l := lease.Lease{ID: fmt.Sprint(i), Family: "f", Ancestors: []string{"root"}, Target: aTarget, Name: fmt.Sprint("n", i), State: lease.Live, Expires: time.Now().Add(time.Hour), Due: time.Now().Add(time.Hour), Fingerprint: fmt.Sprint("p", i)}
					w.ledger.all[l.ID] = l
					w.up().set(l.Name, true)
				}
				receipts, err := w.keeper.Kill(t.Context(), "root", "incident")
				dead := 0
				for _, r := range receipts {
					if r.State == "dead" {
						dead++
					}
				}
				if err != nil || len(receipts) != 500 || dead != test.killed {
					t.Errorf("%d receipts, %d dead (%v), want 500 with %d", len(receipts), dead, err, test.killed)
				}
				w.run(10 * time.Second)
				w.nothing("when it works")
				if got := len(w.endings()); got != 500 {
					t.Errorf("%d ends were told, want 500", got)
				}
			})
		})
	}
}

// One that takes its whole time must not make every other lease of the target take it too.
func TestATargetThatDoesNotAnswerIsNotAskedForEachLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 50 {
			w.mustMint(w.order(fmt.Sprint(i), "root"))
		}
		w.up().onRevoke = func(ctx context.Context, _ brokers.Handle) (brokers.Receipt, error) {
			<-ctx.Done()
			return brokers.Receipt{}, ctx.Err()
		}
		start := time.Now()
		receipts, err := w.keeper.Kill(t.Context(), "root", "incident")
		if took := time.Since(start); err != nil || len(receipts) != 50 || took > 11*time.Second {
			t.Errorf("%d receipts after %s (%v), want 50 after ten seconds", len(receipts), took, err)
		}
		w.up().works()
		w.run(time.Minute)
		w.nothing("when it answers")
	})
}

func TestKillWaitsOnlyAsLongAsItMayAndGoesOnAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "quick")
		w.mustMint(w.orderAt("quick", "q", "root"))
		w.mustMint(w.order("a", "root"))
		w.up().onRevoke = func(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
			select {
			case <-time.After(3 * time.Second):
				return w.up().kill(h), nil
			case <-ctx.Done():
				return brokers.Receipt{}, ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		receipts, err := w.keeper.Kill(ctx, "root", "incident")
		states := map[string]string{}
		for _, r := range receipts {
			states[r.Lease] = r.State
		}
		if err != nil || time.Since(start) != time.Second || states["a"] != lease.Pending || states["q"] != "dead" {
			t.Errorf("after %s: %v (%v), want a pending and q dead after a second", time.Since(start), states, err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.nothing("without anybody who waits or cleans up")
	})
}

func TestAKillWhoseProcessDiesIsTakenOverAfterItsClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		dead := make(chan struct{})
		w.up().onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) {
			<-dead
			return brokers.Receipt{}, errDown
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r, err := w.keeper.Kill(ctx, "a", "incident"); err != nil || len(r) != 1 || r[0].State != lease.Pending {
			t.Fatalf("the receipt is %+v (%v)", r, err)
		}
		w.up().works()
		w.start() // another process; the first is gone
		w.run(30 * time.Second)
		if names := w.up().names(); len(names) != 1 {
			t.Errorf("half a minute later %v live: who was asked is left to it for a minute", names)
		}
		w.run(31 * time.Second)
		w.nothing("after the claim")
		close(dead)
	})
}

// A revocation that no process was there to carry out is found by whoever cleans up, without any index.
func TestWhatWasRevokedIsFoundByWhoeverCleansUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a", "root"))
		w.mustMint(w.order("c", "unknown"))
		b := w.order("b").Name()
		w.mustMint(w.order("b"))
		w.revoked["root"], w.revoked["unknown"] = true, true
		w.run(11 * time.Second)
		if names := w.up().names(); len(names) != 1 || names[0] != b {
			t.Errorf("%v live, want only b", names)
		}
		why := map[string]string{}
		for _, e := range w.endings() {
			why[e.lease.ID] = e.lease.Why
		}
		if want := map[string]string{"a": "revocation of root", "c": lease.WhyRevoked}; !maps.Equal(why, want) {
			t.Errorf("told why: %v, want %v", why, want)
		}
	})
}

// An index that forgot a lease must not keep it alive: a look at all of them finds what was due long ago.
func TestWhatAnIndexForgotIsWrittenAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		w.ledger.hidden = map[string]bool{"a": true} // until it is written
		w.run(10*time.Minute + 90*time.Second)
		w.nothing("a minute and a half after its time")
	})
}

func TestOneDeadTargetAmongFiveHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		targets := []string{"t1", "t2", "t3", "t4"}
		w := newWorld(t, targets...)
		for i := range 3 {
			for _, target := range append(targets, aTarget) {
				w.mustMint(w.orderAt(target, fmt.Sprint(target, i), "root"))
			}
		}
		hang := func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", brokers.ErrUncertain, ctx.Err())
		}
		w.up().onMint = func(ctx context.Context, _ brokers.Order, _ func()) (brokers.Credential, error) {
			return brokers.Credential{}, hang(ctx)
		}
		w.up().onRevoke = func(ctx context.Context, _ brokers.Handle) (brokers.Receipt, error) {
			return brokers.Receipt{}, hang(ctx)
		}
		for i := range 100 { // callers of the dead one
			go func() { _, _ = w.mint(w.order(fmt.Sprint("late", i))) }()
		}
		synctest.Wait()
		if _, err := w.mint(w.order("one more")); !errors.Is(err, lease.ErrBusy) || !errors.Is(err, brokers.ErrUnavailable) {
			t.Errorf("one more than may run: %v, want ErrBusy", err)
		}
		for _, target := range targets {
			start := time.Now()
			w.mustMint(w.orderAt(target, "new "+target, "root"))
			if took := time.Since(start); took != 0 {
				t.Errorf("a mint at %s took %s while another target hangs", target, took)
			}
		}
		time.Sleep(lease.MintTimeout + time.Second)
		if _, err := w.mint(w.order("another")); !errors.Is(err, lease.ErrPaused) {
			t.Errorf("after it failed many times: %v, want ErrPaused at once", err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		receipts, err := w.keeper.Kill(ctx, "root", "incident")
		byTarget := map[string][]string{}
		for _, r := range receipts {
			byTarget[r.Target] = append(byTarget[r.Target], r.State)
		}
		for _, target := range targets {
			if s := byTarget[target]; !slices.Equal(s, []string{"dead", "dead", "dead", "dead"}) || len(w.targets[target].names()) != 0 {
				t.Errorf("at %s the receipts say %v", target, s)
			}
		}
		if s := byTarget[aTarget]; err != nil || !slices.Equal(s, []string{lease.Pending, lease.Pending, lease.Pending}) || time.Since(start) > 2*time.Second {
			t.Errorf("at the dead one they say %v after %s (%v)", s, time.Since(start), err)
		}
		// What expires elsewhere is killed in time, whatever the dead one does meanwhile.
		for _, target := range targets {
			w.mustMint(w.orderAt(target, "expiring "+target))
		}
		w.run(10*time.Minute + time.Second)
		for _, target := range targets {
			if names := w.targets[target].names(); len(names) != 0 {
				t.Errorf("%v live at %s after their time", names, target)
			}
		}
		if n := len(w.up().names()); n != 3 {
			t.Errorf("%d live at the dead one, want 3", n)
		}
		if counts, _ := w.ledger.Counts(t.Context()); counts[aTarget] < 3 || len(counts) != 1 {
			t.Errorf("the ledger has %v, want what the dead one holds", counts)
		}
		w.up().works()
		w.run(time.Minute)
		w.nothing("a minute after the dead one returned")
	})
}

func TestATargetThatIsNotConfiguredKeepsItsLeasesUntilItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		u := w.up()
		delete(w.targets, aTarget)
		w.run(time.Hour)
		if l, ok := w.lease("a"); !ok || l.State != lease.Dying || !strings.Contains(l.Fault, "not configured") {
			t.Errorf("the ledger has %+v (%v)", l, ok)
		}
		w.targets[aTarget] = u
		w.run(time.Minute)
		w.nothing("when it is configured again")
	})
}

// A broker that panics must not end the process, nor keep others from dying.
func TestABrokerThatPanicsEndsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "other")
		w.mustMint(w.order("a"))
		w.mustMint(w.order("b"))
		w.mustMint(w.orderAt("other", "c"))
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			if h.Lease == "a" {
				panic("secret")
			}
			return w.up().kill(h), nil
		}
		w.run(15 * time.Minute)
		l, _ := w.lease("a")
		if len(w.ledger.all) != 1 || l.Tries < 5 || strings.Contains(l.Fault, "secret") {
			t.Errorf("the ledger has %+v, want only a, with its fault and without the panic's value", w.ledger.all)
		}
		w.up().works()
		w.run(time.Minute)
		w.nothing("when it is mended")
	})
}

// A drain and a kill that go on when the service is asked to end are not waited for without end.
func TestRunEndsWhenItIsToldThoughManyAreToBeKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 1000 {
			l := lease.Lease{ID: fmt.Sprint(i), Ancestors: []string{"root"}, Target: aTarget, Name: fmt.Sprint("n", i), State: lease.Live, Expires: time.Now().Add(time.Hour), Due: time.Now().Add(time.Hour), Fingerprint: fmt.Sprint("p", i)}
			w.ledger.all[l.ID] = l
			w.up().set(l.Name, true)
		}
		b := &bulk{upstream: w.up()}
		b.answer = func(hs []brokers.Handle) []brokers.Result {
			time.Sleep(5 * time.Second)
			out := make([]brokers.Result, len(hs))
			for i, h := range hs {
				out[i].Receipt = b.kill(h)
			}
			return out
		}
		w.brokers = map[string]brokers.Revoker{aTarget: b}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.keeper.Run(ctx) }()
		go func() { _, _ = w.keeper.Kill(t.Context(), "root", "incident") }()
		time.Sleep(time.Second)
		start := time.Now()
		cancel()
		<-ended
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s to end, want at most the part that was under way", took)
		}
		if _, err := w.keeper.Kill(t.Context(), "nobody", "incident"); err != nil {
			t.Errorf("killing after the end: %v", err)
		}
		w.start()
		w.run(time.Minute)
		w.nothing("after another minute of another process")
	})
}

// What was condemned before the ledger failed is not left to the claim of a kill that ended there.
func TestAKillThatTheLedgerBreaksOffHandsOnWhatItCondemned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 250 {
			l := lease.Lease{ID: fmt.Sprint(i), Ancestors: []string{"root"}, Target: aTarget, Name: fmt.Sprint("n", i), State: lease.Live, Expires: time.Now().Add(time.Hour), Due: time.Now().Add(time.Hour), Fingerprint: fmt.Sprint("p", i)}
			w.ledger.all[l.ID] = l
			w.up().set(l.Name, true)
		}
		updates := 0
		w.ledger.step = func(what string) error {
			if what == "before update" {
				if updates++; updates == 2 {
					return errInjected
				}
			}
			return nil
		}
		if _, err := w.keeper.Kill(t.Context(), "root", "incident"); !errors.Is(err, lease.ErrUnavailable) {
			t.Errorf("killing: %v, want ErrUnavailable", err)
		}
		w.run(5 * time.Second)
		if n := len(w.up().names()); n != 50 {
			t.Errorf("a few seconds later %d live, want the 50 that could not be condemned", n)
		}
	})
}

// What was killed when the service was asked to end is written down, or it would be killed again.
func TestWhatIsKilledAtTheEndIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("a"))
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			time.Sleep(3 * time.Second)
			return w.up().kill(h), nil
		}
		time.Sleep(time.Hour)
		w.run(time.Second)
		w.nothing("at the end")
		if n := len(w.endings()); n != 1 {
			t.Errorf("%d ends were told, want one", n)
		}
	})
}
