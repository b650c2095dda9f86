package lease_test

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// reap has a keeper look at what stands upstream, and waits for it.
func (w *world) reap() {
	w.keeper.Reap(w.t.Context(), []string{aTarget, "not configured"})
	synctest.Wait()
}

// named is a name that an order has which ended so long ago.
func named(ago time.Duration, n int) string {
	return "sts_" + strconv.FormatInt(time.Now().Add(-ago).Unix(), 36) + fmt.Sprintf("_aaaaaaaaaaaa%c%c%c%c", 'a'+n/17576%26, 'a'+n/676%26, 'a'+n/26%26, 'a'+n%26)
}

// After the ledger was lost, what stands upstream is killed when it should have ended, and nothing else is touched.
func TestTheReaperKillsOnlyWhatIsOursAndHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustMint(w.order("known"))
		clear(w.ledger.all) // a store that lost everything
		stay := []string{
			"postgres", "sts_admin", "sts_", "sts_zzzzzz_short", "sts_" + strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 36) + "_AAAAAAAAAAAAAAAA",
			named(-time.Minute, 0), named(10*time.Second, 1), // alive, and ended by a clock that may be ahead
		}
		for _, name := range stay {
			w.up().set(name, true)
		}
		w.up().set(named(31*time.Second, 2), true)
		w.up().set(named(time.Hour, 3), true)
		w.reap()
		if names := w.up().names(); len(names) != len(stay)+1 {
			t.Errorf("left are %v, want %v and what was minted just now", names, stay)
		}
		s := w.keeper.Stats()
		if e := w.endings(); len(e) != 2 || e[0].lease.Why != lease.WhyOrphan || e[0].lease.ID != "" || s.Orphans[aTarget] != 2 {
			t.Errorf("told: %+v; counted: %v, want two orphans", e, s.Orphans)
		}
		time.Sleep(11 * time.Minute)
		w.reap()
		if names := w.up().names(); len(names) != 5 {
			t.Errorf("when all have ended %v are left, want what is not ours", names)
		}
	})
}

// What the ledger knows is killed by its lease, with what its broker needs for that, and is no orphan.
func TestTheReaperLeavesToTheLedgerWhatItKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("known")
		w.mustMint(o)
		time.Sleep(time.Hour)
		w.reap()
		if n := w.up().tries(o.Name()); n != 0 {
			t.Errorf("the reaper tried %d times to kill what has a lease", n)
		}
		w.run(time.Second)
		w.nothing("when the ledger is asked")
	})
}

// listing is an upstream whose list goes wrong.
type listing struct {
	*upstream
	list func(ctx context.Context, yield func(brokers.Handle, error) bool)
}

func (l *listing) List(ctx context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) { l.list(ctx, yield) }
}

// A list that cannot be had, or never ends, must not keep what expires from being killed.
func TestAListThatGoesWrongHoldsUpNothing(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]func(ctx context.Context, yield func(brokers.Handle, error) bool){
		"fails":  func(_ context.Context, yield func(brokers.Handle, error) bool) { yield(brokers.Handle{}, errDown) },
		"panics": func(context.Context, func(brokers.Handle, error) bool) { panic("secret") },
		"hangs": func(ctx context.Context, yield func(brokers.Handle, error) bool) {
			<-ctx.Done()
			yield(brokers.Handle{}, ctx.Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.brokers = map[string]brokers.Revoker{aTarget: &listing{w.up(), list}}
				w.mustMint(w.order("a"))
				time.Sleep(10*time.Minute - time.Second)
				w.reap()
				w.run(2 * time.Second)
				w.nothing("a second after its time")
			})
		})
	}
}

// Orphans that cannot be killed must not keep all others waiting.
func TestTheReaperGetsToAllOrphans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stuck := map[string]bool{}
		for i := range 1000 {
			name := named(time.Hour, i)
			stuck[name] = i < 300
			w.up().set(name, true)
		}
		w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
			if stuck[h.Name] {
				return brokers.Receipt{}, errDown
			}
			return w.up().kill(h), nil
		}
		start := time.Now()
		for len(w.up().names()) > 300 && time.Since(start) < time.Hour {
			w.reap()
			time.Sleep(5 * time.Second)
		}
		if took := time.Since(start); took > 15*time.Minute { // a minute, but for those that are drawn last
			t.Errorf("the orphans that can be killed took %s, want minutes", took)
		}
	})
}

func TestTheReaperLooksOnceAMinuteAndOnlyWhereItLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		looks := 0
		w.brokers = map[string]brokers.Revoker{aTarget: &listing{w.up(), func(context.Context, func(brokers.Handle, error) bool) { looks++ }}}
		for range 25 {
			w.reap()
			time.Sleep(5 * time.Second)
		}
		if looks != 3 {
			t.Errorf("it looked %d times in two minutes, want 3", looks)
		}
		w.ledger.follow = true
		time.Sleep(time.Hour)
		w.reap()
		if looks != 3 {
			t.Error("it looked though another replica leads")
		}
	})
}
