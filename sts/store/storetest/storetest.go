// Package storetest is the one suite that every store passes: what the server relies on, run against the
// real thing. A new store runs it before anything else.
package storetest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Opened is a store that was opened, and how to close it.
type Opened struct {
	Revocations revocation.Log
	Close       func() error
}

// Run runs the suite. open opens one and the same store each time it is called, after the one before was
// closed; fresh makes the next open start from nothing.
func Run(t *testing.T, fresh func(t *testing.T) (open func() (Opened, error))) {
	ctx := context.Background()
	entry := func(lease string, until time.Time) revocation.Entry {
		return revocation.Entry{Lease: lease, Decision: "decision-" + lease, At: time.Unix(1700000000, 0).UTC(), Until: until.UTC()}
	}
	far := time.Unix(4000000000, 0)

	t.Run("revocations come back in order after a restart", func(t *testing.T) {
		open := fresh(t)
		s := must(t, open)
		var want []revocation.Entry
		var last revocation.Position
		for i := range 20 {
			e := entry(fmt.Sprint("lease-", i), far)
			if i%2 == 1 {
				e = revocation.Entry{
					Selector: revocation.Selector{"attr.ref=refs/heads/main", "subject=spiffe://prod.example/ci/99"}, Lock: true, Decision: fmt.Sprint("lock-", i),
					Position: revocation.Position{Epoch: 3, N: uint64(i)}, At: e.At, Until: e.Until, Why: "stolen", By: "uid=0",
				}
			}
			p, err := s.Revocations.Append(ctx, e)
			if err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
			if !after(p, last) {
				t.Fatalf("position %v does not come after %v", p, last)
			}
			last = p
			want = append(want, e)
		}
		closed(t, s)
		s = must(t, open)
		defer closed(t, s)
		got, position := load(t, s)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("after a restart: %v\nwant %v", got, want)
		}
		if position != last {
			t.Errorf("position after a restart is %v, want %v", position, last)
		}
	})

	t.Run("concurrent appends all get a place of their own", func(t *testing.T) {
		s := must(t, fresh(t))
		defer closed(t, s)
		const n = 64
		positions := make([]revocation.Position, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				p, err := s.Revocations.Append(ctx, entry(fmt.Sprint("c-", i), far))
				if err != nil {
					t.Errorf("append: %v", err)
				}
				positions[i] = p
			})
		}
		wg.Wait()
		seen := map[revocation.Position]bool{}
		for _, p := range positions {
			if seen[p] {
				t.Errorf("position %v was given twice", p)
			}
			seen[p] = true
		}
		if got, _ := load(t, s); len(got) != n {
			t.Errorf("%d entries, want %d", len(got), n)
		}
	})

	t.Run("pruning drops what expired, keeps the rest, and positions never go back", func(t *testing.T) {
		open := fresh(t)
		s := must(t, open)
		now := time.Unix(1700000100, 0)
		for _, e := range []revocation.Entry{entry("old", now.Add(-time.Second)), entry("edge", now), entry("new", far)} {
			if _, err := s.Revocations.Append(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		n, err := s.Revocations.Prune(ctx, now)
		if err != nil || n != 1 {
			t.Fatalf("pruned %d (%v), want 1", n, err)
		}
		closed(t, s)
		s = must(t, open)
		defer closed(t, s)
		got, position := load(t, s)
		if len(got) != 2 || got[0].Lease != "edge" || got[1].Lease != "new" {
			t.Errorf("left: %v, want edge and new", got)
		}
		p, err := s.Revocations.Append(ctx, entry("next", far))
		if err != nil || !after(p, position) {
			t.Errorf("next position %v (%v) does not come after %v", p, err, position)
		}
	})
}

func must(t *testing.T, open func() (Opened, error)) Opened {
	t.Helper()
	s, err := open()
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	return s
}

func closed(t *testing.T, s Opened) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("closing the store: %v", err)
	}
}

func load(t *testing.T, s Opened) ([]revocation.Entry, revocation.Position) {
	t.Helper()
	var out []revocation.Entry
	position, err := s.Revocations.Load(context.Background(), func(_ revocation.Position, e revocation.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		t.Fatalf("loading: %v", err)
	}
	return out, position
}

func after(p, q revocation.Position) bool {
	return p.Epoch > q.Epoch || p.Epoch == q.Epoch && p.N > q.N
}
