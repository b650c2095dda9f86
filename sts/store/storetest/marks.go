package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/replay"
)

// RunMarks runs the suite of single-use marks. Both values are the same marks: of two replicas, or twice the same one.
func RunMarks(t *testing.T, one, other replay.Marks) {
	ctx := context.Background()
	far := time.Now().Add(time.Hour)

	t.Run("of many who mark at once, one wins", func(t *testing.T) {
		for round := range 10 {
			k := replay.KeyOf(t.Name(), fmt.Sprint(round))
			var won atomic.Int32
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() {
					err := []replay.Marks{one, other}[i%2].Mark(ctx, k, fmt.Sprint("decision-", i), far)
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, replay.ErrUsed) {
						t.Errorf("marking: %v, want nil or ErrUsed", err)
					}
				})
			}
			all.Wait()
			if n := won.Load(); n != 1 {
				t.Fatalf("%d of 64 won, want exactly one", n)
			}
		}
	})

	t.Run("only the decision that set a mark lets go of it", func(t *testing.T) {
		k := replay.KeyOf(t.Name())
		if err := one.Mark(ctx, k, "mine", far); err != nil {
			t.Fatal(err)
		}
		if err := other.Release(ctx, k, "yours"); err != nil {
			t.Errorf("releasing another's mark: %v, want nothing", err)
		}
		if err := other.Mark(ctx, k, "yours", far); !errors.Is(err, replay.ErrUsed) {
			t.Errorf("after another's release: %v, want ErrUsed", err)
		}
		if err := one.Release(ctx, k, "mine"); err != nil {
			t.Fatal(err)
		}
		if err := one.Release(ctx, k, "mine"); err != nil {
			t.Errorf("releasing nothing: %v", err)
		}
		if err := other.Mark(ctx, k, "yours", far); err != nil {
			t.Errorf("after the release: %v", err)
		}
	})
}

// RunKeys runs the suite of the place where sealed keys are, which must be empty.
func RunKeys(t *testing.T, one, other keys.Store) {
	ctx := context.Background()
	if sealed, rev, err := one.Load(ctx); sealed != nil || rev != "" || err != nil {
		t.Fatalf("an empty store has %q at %q (%v)", sealed, rev, err)
	}
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			_, err := []keys.Store{one, other}[i%2].Swap(ctx, "", []byte{byte(i), 0, 0xff})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, keys.ErrConflict) {
				t.Errorf("creating: %v, want nil or ErrConflict", err)
			}
		})
	}
	all.Wait()
	if n := won.Load(); n != 1 {
		t.Fatalf("%d created the keys, want exactly one", n)
	}
	first, rev, err := other.Load(ctx)
	if err != nil || len(first) != 3 || rev == "" {
		t.Fatalf("loaded %q at %q (%v)", first, rev, err)
	}
	next, err := one.Swap(ctx, rev, []byte("second"))
	if err != nil || next == rev || next == "" {
		t.Fatalf("swapping: %q after %q (%v)", next, rev, err)
	}
	if _, err := other.Swap(ctx, rev, []byte("late")); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("swapping an old revision: %v, want ErrConflict", err)
	}
	if got, at, err := other.Load(ctx); string(got) != "second" || at != next || err != nil {
		t.Errorf("loaded %q at %q (%v), want the second at %q", got, at, err, next)
	}
}
