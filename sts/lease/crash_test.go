package lease_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// fuse ends a process after so many steps: whatever does one more step does not return from it, as nothing does when the
// process is killed.
type fuse struct {
	mu    sync.Mutex
	left  int // negative: it does not burn
	burnt bool
	steps []string
}

func (f *fuse) step(what string) error {
	f.mu.Lock()
	f.steps = append(f.steps, what)
	if f.left == 0 {
		f.burnt = true
		f.mu.Unlock()
		runtime.Goexit()
	}
	f.left--
	f.mu.Unlock()
	return nil
}

func (f *fuse) set(left int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.burnt, f.steps = left, false, nil
}

// burn puts f before and after everything that the ledger keeps and an upstream does, and in the middle of it.
func (w *world) burn(f *fuse) {
	w.ledger.step = f.step
	w.up().onMint = func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
		_ = f.step("before mint")
		if err := o.Note(ctx, secret.New("note of "+o.Name())); err != nil {
			return brokers.Credential{}, err
		}
		_ = f.step("before it is made")
		make()
		_ = f.step("after it is made")
		return credential(o), nil
	}
	w.up().onRevoke = func(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
		_ = f.step("before revoke")
		r := w.up().kill(h)
		_ = f.step("after revoke")
		return r, nil
	}
}

// process runs do until it ends or the fuse does, and reports whether it ended by itself.
func process(do func()) (whole bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
		whole = true
	}()
	<-done
	synctest.Wait()
	return whole
}

// A process that is killed at any step of a mint leaves nothing alive: the next takes over what it began.
func TestACrashAtAnyStepOfAMintLeavesNothingAlive(t *testing.T) {
	t.Parallel()
	crashes := 0
	for n := 0; ; n++ {
		whole := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f := &fuse{left: n}
			w.burn(f)
			o := w.order("a", "root")
			whole = process(func() { w.mustMint(o) })
			at := fmt.Sprintf("killed at step %d of %v", n, f.steps)
			f.set(-1)
			if names := w.up().names(); !whole && len(names) == 1 {
				if _, known := w.lease("a"); !known {
					t.Errorf("%s: %v lives and nobody knows", at, names)
				}
			}
			w.start()
			if err := w.keeper.Adopt(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.run(20 * time.Second)
			if l, ok := w.lease("a"); ok && l.State == lease.Live && !whole { // completed, and nobody got it: it expires, or is
				w.run(10 * time.Minute) // withdrawn by the exchange's own record
			}
			if !whole {
				w.nothing(at)
				return
			}
			if l, ok := w.lease("a"); !ok || l.State != lease.Live {
				t.Errorf("a mint that ended was taken back: %+v (%v)", l, ok)
			}
		})
		if whole {
			break
		}
		crashes++
	}
	if crashes != 9 {
		t.Errorf("it was killed at %d steps, want 9; does the fuse stand everywhere?", crashes)
	}
}

// The same for what is killed, failed or revoked meanwhile.
func TestACrashAtAnyStepOfAKillLeavesNothingAlive(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]func(w *world, f *fuse, left int){
		"kill": func(w *world, f *fuse, left int) {
			w.mustMint(w.order("a", "root"))
			f.set(left)
			_, _ = w.keeper.Kill(w.t.Context(), "root", "incident")
		},
		"expiry": func(w *world, f *fuse, left int) {
			w.mustMint(w.order("a", "root"))
			time.Sleep(time.Hour)
			f.set(left)
			w.run(time.Second)
		},
		"withdrawal": func(w *world, f *fuse, left int) {
			w.mustMint(w.order("a", "root"))
			f.set(left)
			w.keeper.Withdraw(w.t.Context(), "a")
			w.run(time.Second)
		},
		"uncertain mint": func(w *world, f *fuse, left int) {
			mint := w.up().onMint
			w.up().onMint = func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
				_, err := mint(ctx, o, make)
				return brokers.Credential{}, errors.Join(err, brokers.ErrUncertain)
			}
			f.set(left)
			_, _ = w.mint(w.order("a", "root"))
			w.run(20 * time.Second)
		},
		"revoked while minting": func(w *world, f *fuse, left int) {
			mint := w.up().onMint
			w.up().onMint = func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error) {
				short, cancel := context.WithTimeout(w.t.Context(), 5*time.Millisecond) // it would wait for this mint
				defer cancel()
				_, _ = w.keeper.Kill(short, "root", "incident")
				return mint(ctx, o, make)
			}
			f.set(left)
			_, _ = w.mint(w.order("a", "root"))
			w.run(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for whole := false; !whole; n++ {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					f := &fuse{left: -1}
					w.burn(f)
					process(func() { story(w, f, n) })
					f.mu.Lock()
					whole = !f.burnt
					at := fmt.Sprintf("killed at step %d of %v", n, f.steps)
					f.mu.Unlock()
					f.set(-1)
					w.revoked["root"] = name == "kill" || name == "revoked while minting"
					if len(w.up().names()) == 1 && len(w.ledger.all) == 0 {
						t.Errorf("%s: it lives and nobody knows", at)
					}
					w.start()
					if err := w.keeper.Adopt(t.Context()); err != nil {
						t.Fatal(err)
					}
					w.run(20 * time.Second)
					if name == "withdrawal" && n == 0 { // it was not begun
						w.run(time.Hour)
					}
					w.nothing(at)
				})
				if n > 60 {
					t.Fatal("it does not end")
				}
			}
			t.Logf("killed at %d steps", n-1)
		})
	}
}

// Of one replica nobody else can be minting: what a crash left is killed at once when it starts again, not when it is due.
func TestAdoptTakesOverAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &fuse{left: -1}
		w.burn(f)
		o := w.order("a")
		f.set(7) // after it is made
		process(func() { _, _ = w.mint(o) })
		f.set(-1)
		if names := w.up().names(); len(names) != 1 {
			t.Fatalf("%v live; the test looks at nothing", names)
		}
		w.start()
		if err := w.keeper.Adopt(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.run(time.Second)
		if names := w.up().names(); len(names) != 0 {
			t.Errorf("a second after the start %v live", names)
		}
	})
}
