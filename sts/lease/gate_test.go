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

// A target that fails is given a rest, and only what its upstream answers ends that: not what never got there.
func TestATargetThatFailsRestsUntilItAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.limits.Workload = 3
		w.start()
		w.mustMint(w.order("stays"))
		asked, fault := 0, error(errDown)
		w.up().onMint = func(_ context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
			asked++
			if fault != nil {
				return brokers.Credential{}, fault
			}
			make()
			return credential(o), nil
		}
		n := 0
		try := func() error { n++; _, err := w.mint(w.order(fmt.Sprint(n))); return err }
		for range 3 {
			if err := try(); !errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, lease.ErrPaused) {
				t.Errorf("while it fails: %v", err)
			}
		}
		if err := try(); !errors.Is(err, lease.ErrPaused) || asked != 3 {
			t.Errorf("after three failures: %v, asked %d times, want ErrPaused without asking", err, asked)
		}
		time.Sleep(time.Second)
		fault = brokers.ErrInput // found before the upstream is asked
		if err := try(); !errors.Is(err, brokers.ErrInput) || asked != 4 {
			t.Errorf("after a rest: %v, asked %d times, want that one is let through", err, asked)
		}
		if err := try(); !errors.Is(err, lease.ErrPaused) {
			t.Errorf("after one that said nothing of the upstream: %v, want ErrPaused", err)
		}
		time.Sleep(2 * time.Second)
		full := lease.Lease{ID: "full", Target: "x", Workload: w.order("x").Grant().Workload().ID()}
		w.ledger.all["full"], w.ledger.all["fuller"] = full, full
		if err := try(); !errors.Is(err, lease.ErrLimit) {
			t.Errorf("over a limit: %v", err)
		}
		delete(w.ledger.all, "full")
		delete(w.ledger.all, "fuller")
		if err := try(); !errors.Is(err, lease.ErrPaused) {
			t.Errorf("after a limit refused one: %v, want ErrPaused", err)
		}
		time.Sleep(time.Minute)
		fault = nil
		for range 2 {
			if err := try(); err != nil {
				t.Errorf("when it answers: %v", err)
			}
		}
	})
}
