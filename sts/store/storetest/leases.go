package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

// RunLeases runs the suite of ledgers. open opens one and the same ledger each time; what it returns is closed before it
// is opened again.
func RunLeases(t *testing.T, open func(t *testing.T) (s lease.Store, closeIt func())) {
	for name, test := range map[string]func(*testing.T, lease.Store){
		"a lease is found by its fingerprint, by what it descends from, and when it is due": leasesAreFound,
		"a change writes, removes or leaves alone":                                          leasesChange,
		"changes of one lease are made one after the other":                                 leaseChangesAreAtomic,
		"limits refuse one more, and count what is there":                                   leaseLimits,
		"what is due longest comes first, of one target alone":                              leasesDue,
		"what is unknown is said to be":                                                     leaseUnknown,
	} {
		t.Run(name, func(t *testing.T) {
			s, closeIt := open(t)
			defer closeIt()
			test(t, s)
		})
	}
	t.Run("leases are there after a restart", func(t *testing.T) { leasesSurvive(t, open) })
}

var leaseTime = time.Date(2030, 1, 2, 3, 4, 5, 678000000, time.UTC)

func newLease(id string, change func(*lease.Lease)) lease.Lease {
	l := lease.Lease{
		ID: id, Family: "family", Target: "orders-db", Workload: "spiffe://prod.example/w", Name: "sts_x_" + id, Scopes: []string{"read"},
		Rule: "rule", Position: "1.2", State: lease.Minting, Opened: leaseTime, Expires: leaseTime.Add(time.Hour), Due: leaseTime.Add(time.Minute),
	}
	if change != nil {
		change(&l)
	}
	return l
}

func mustOpen(t *testing.T, s lease.Store, all ...lease.Lease) {
	t.Helper()
	for _, l := range all {
		if err := s.Open(t.Context(), l, lease.Limits{}); err != nil {
			t.Fatalf("opening lease %s: %v", l.ID, err)
		}
	}
}

func every(t *testing.T, s lease.Store) map[string]lease.Lease {
	t.Helper()
	out := map[string]lease.Lease{}
	if err := s.Each(t.Context(), func(l lease.Lease) error { out[l.ID] = l; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func leasesAreFound(t *testing.T, s lease.Store) {
	ctx := t.Context()
	full := newLease("b", func(l *lease.Lease) {
		l.State, l.Fingerprint, l.Handle, l.Ancestors = lease.Live, "print-b", []byte{0, 1, 255}, []string{"root", "mid"}
		l.Why, l.Tries, l.Fault, l.Dies, l.Stays = "why", 3, "fault", "dies", "stays"
	})
	mustOpen(t, s, newLease("a", func(l *lease.Lease) { l.Ancestors = []string{"root"} }), full, newLease("c", nil))
	got, err := s.Find(ctx, "print-b")
	if diff := cmp.Diff(full, got); err != nil || diff != "" {
		t.Errorf("Find: %v (-want +got):\n%s", err, diff)
	}
	for id, want := range map[string][]string{"root": {"a", "b"}, "mid": {"b"}, "b": {"b"}, "c": {"c"}, "nobody": nil} {
		got, err := s.Below(ctx, id)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("below %s: got %v (%v), want %v", id, got, err, want)
		}
	}
	if diff := cmp.Diff(full, every(t, s)["b"]); diff != "" {
		t.Errorf("Each (-want +got):\n%s", diff)
	}
	counts, err := s.Counts(ctx)
	if err != nil || counts["orders-db"] != 3 || len(counts) != 1 {
		t.Errorf("counts are %v (%v), want 3 of orders-db", counts, err)
	}
	if err := s.Open(ctx, newLease("a", nil), lease.Limits{}); err == nil {
		t.Error("a lease was opened twice")
	}
	if lead, err := s.Lead(ctx); !lead || err != nil {
		t.Errorf("the only one does not lead: %v, %v", lead, err)
	}
}

func leasesChange(t *testing.T, s lease.Store) {
	ctx := t.Context()
	mustOpen(t, s, newLease("a", nil), newLease("b", func(l *lease.Lease) { l.Fingerprint, l.Ancestors = "print-b", []string{"root"} }), newLease("c", nil))
	seen := map[string]int{}
	done, err := s.Update(ctx, []string{"a", "b", "c", "gone"}, func(l *lease.Lease) lease.Verdict {
		seen[l.ID]++
		switch l.ID {
		case "a":
			l.State, l.Fingerprint, l.Due = lease.Live, "print-a", leaseTime.Add(2*time.Hour)
			return lease.Write
		case "b":
			return lease.Remove
		default:
			l.State = lease.Dying
			return lease.Leave
		}
	})
	if err != nil || len(seen) != 3 {
		t.Fatalf("Update: %v, asked about %v", err, seen)
	}
	slices.SortFunc(done, func(a, b lease.Lease) int { return strings.Compare(a.ID, b.ID) })
	if len(done) != 2 || done[0].ID != "a" || done[0].Fingerprint != "print-a" || done[1].ID != "b" {
		t.Errorf("Update says that it changed %v, want a and b, as they are now", done)
	}
	all := every(t, s)
	if len(all) != 2 || all["a"].State != lease.Live || all["c"].State != lease.Minting {
		t.Errorf("afterwards there are %v", all)
	}
	if l, err := s.Find(ctx, "print-a"); err != nil || l.ID != "a" {
		t.Errorf("a fingerprint that came later is not found: %v", err)
	}
	if _, err := s.Find(ctx, "print-b"); !errors.Is(err, lease.ErrUnknown) {
		t.Errorf("the fingerprint of what was removed: %v, want ErrUnknown", err)
	}
	if below, err := s.Below(ctx, "root"); err != nil || len(below) != 0 {
		t.Errorf("below root there is %v (%v), want nothing", below, err)
	}
	if counts, _ := s.Counts(ctx); counts["orders-db"] != 2 {
		t.Errorf("counts are %v, want 2", counts)
	}
	if due, err := s.Due(ctx, "orders-db", leaseTime.Add(90*time.Minute), 10); err != nil || len(due) != 1 || due[0].ID != "c" {
		t.Errorf("due is %v (%v), want c alone", due, err)
	}
}

func leaseChangesAreAtomic(t *testing.T, s lease.Store) {
	const callers, times = 8, 10
	mustOpen(t, s, newLease("a", nil), newLease("b", nil))
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range times {
				if _, err := s.Update(context.Background(), []string{"a", "b"}, func(l *lease.Lease) lease.Verdict { l.Tries++; return lease.Write }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for id, l := range every(t, s) {
		if l.Tries != callers*times {
			t.Errorf("lease %s was changed %d times, want %d", id, l.Tries, callers*times)
		}
	}
}

func leaseLimits(t *testing.T, s lease.Store) {
	ctx := t.Context()
	max := lease.Limits{Total: 4, Target: 3, Workload: 2}
	other := func(target, workload string) func(*lease.Lease) {
		return func(l *lease.Lease) { l.Target, l.Workload = target, workload }
	}
	for i, step := range []struct {
		lease lease.Lease
		fits  bool
	}{
		{newLease("1", other("t1", "w1")), true},
		{newLease("2", other("t1", "w1")), true},
		{newLease("3", other("t2", "w1")), false}, // of the workload
		{newLease("4", other("t1", "w2")), true},
		{newLease("5", other("t1", "w3")), false}, // of the target
		{newLease("6", other("t2", "w3")), true},
		{newLease("7", other("t3", "w4")), false}, // in total
	} {
		if err := s.Open(ctx, step.lease, max); (err == nil) != step.fits || err != nil && !errors.Is(err, lease.ErrLimit) {
			t.Errorf("step %d: %v, fits should be %v", i, err, step.fits)
		}
	}
	if _, err := s.Update(ctx, []string{"1"}, func(*lease.Lease) lease.Verdict { return lease.Remove }); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(ctx, newLease("8", other("t1", "w1")), max); err != nil {
		t.Errorf("after one is gone, another does not fit: %v", err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	opened := 0
	for i := range 20 {
		all.Go(func() {
			err := s.Open(context.Background(), newLease(fmt.Sprintf("many-%d", i), other("t9", "w9")), lease.Limits{Target: 5})
			if err == nil {
				mu.Lock()
				opened++
				mu.Unlock()
			} else if !errors.Is(err, lease.ErrLimit) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if opened != 5 {
		t.Errorf("%d of 20 at once were opened, with a limit of 5", opened)
	}
}

func leasesDue(t *testing.T, s lease.Store) {
	ctx := t.Context()
	for i := range 5 {
		mustOpen(t, s, newLease(fmt.Sprint(i), func(l *lease.Lease) { l.Due = leaseTime.Add(time.Duration(5-i) * time.Second) }))
	}
	mustOpen(t, s, newLease("other", func(l *lease.Lease) { l.Target, l.Due = "other", leaseTime }))
	for range 2 { // looking takes nothing away
		due, err := s.Due(ctx, "orders-db", leaseTime.Add(3*time.Second), 2)
		if err != nil || len(due) != 2 || due[0].ID != "4" || due[1].ID != "3" {
			t.Errorf("due is %v (%v), want 4 and 3", due, err)
		}
	}
	if _, err := s.Update(ctx, []string{"4"}, func(l *lease.Lease) lease.Verdict { l.Due = leaseTime.Add(time.Hour); return lease.Write }); err != nil {
		t.Fatal(err)
	}
	due, err := s.Due(ctx, "orders-db", leaseTime.Add(3*time.Second), 10)
	if err != nil || len(due) != 2 || due[0].ID != "3" || due[1].ID != "2" {
		t.Errorf("due is %v (%v), want 3 and 2", due, err)
	}
	if due, err := s.Due(ctx, "nothing", leaseTime.Add(time.Hour), 10); err != nil || len(due) != 0 {
		t.Errorf("a target without leases: %v (%v)", due, err)
	}
}

func leaseUnknown(t *testing.T, s lease.Store) {
	for _, print := range []string{"", "nobody"} {
		if _, err := s.Find(t.Context(), print); !errors.Is(err, lease.ErrUnknown) {
			t.Errorf("fingerprint %q: %v, want ErrUnknown", print, err)
		}
	}
	if _, err := s.Update(t.Context(), []string{"nobody"}, func(*lease.Lease) lease.Verdict { t.Error("asked about nothing"); return lease.Write }); err != nil {
		t.Errorf("changing what is gone: %v, want nil", err)
	}
	if len(every(t, s)) != 0 {
		t.Error("something came to be")
	}
}

func leasesSurvive(t *testing.T, open func(*testing.T) (lease.Store, func())) {
	s, closeIt := open(t)
	full := newLease("b", func(l *lease.Lease) {
		l.State, l.Fingerprint, l.Handle, l.Ancestors = lease.Dying, "print-b", []byte{0, 1, 255}, []string{"root"}
	})
	mustOpen(t, s, newLease("a", nil), full, newLease("c", nil))
	if _, err := s.Update(t.Context(), []string{"c"}, func(*lease.Lease) lease.Verdict { return lease.Remove }); err != nil {
		t.Fatal(err)
	}
	closeIt()
	s, closeIt = open(t)
	defer closeIt()
	all := every(t, s)
	if diff := cmp.Diff(map[string]lease.Lease{"a": newLease("a", nil), "b": full}, all); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if below, err := s.Below(t.Context(), "root"); err != nil || !slices.Equal(below, []string{"b"}) {
		t.Errorf("below root there is %v (%v), want b", below, err)
	}
	if due, err := s.Due(t.Context(), "orders-db", leaseTime.Add(time.Hour), 10); err != nil || len(due) != 2 {
		t.Errorf("%d are due (%v), want 2", len(due), err)
	}
	if err := s.Open(t.Context(), newLease("d", nil), lease.Limits{Target: 2}); !errors.Is(err, lease.ErrLimit) {
		t.Errorf("one too many after a restart: %v, want ErrLimit", err)
	}
}
