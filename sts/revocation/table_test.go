package revocation_test

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// leaseOf is the text of 128 bits.
func leaseOf(high, low uint64) string {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, high), low)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// names are leases that a careless comparison would take for one another.
func names() []string {
	var out []string
	for i := range uint64(24) {
		out = append(out, leaseOf(0, i), leaseOf(i<<56, 0), leaseOf(i, i))
	}
	plain := leaseOf(1, 1<<62)
	for _, last := range "abcdefgh234567" { // the two bits too many
		out = append(out, plain[:25]+string(last))
	}
	return append(out, plain, strings.ToUpper(plain), plain+"a", plain[:25], " "+plain[1:], plain[:25]+"\n", "\n"+plain[:25], "lease", "Lease", "8"+plain[1:])
}

// The set does what a map from names to ends does.
func TestSetIsAMapFromLeasesToTheirEnds(t *testing.T) {
	t.Parallel()
	all := names()
	start := time.Unix(1_700_000_000, 0)
	rapid.Check(t, func(t *rapid.T) {
		s, err := revocation.New(context.Background(), new(memory), mac)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Time{}
		now := start
		check := func() {
			if s.Len() != len(want) {
				t.Fatalf("%d are live, want %d", s.Len(), len(want))
			}
			for _, name := range all {
				e, dead := s.Dead(revocation.Facts{Lease: name})
				if until, ok := want[name]; dead != ok || dead && !e.Until.Equal(until) {
					t.Fatalf("%q: dead %v until %s, want %v until %s", name, dead, e.Until, ok, until)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"revoke": func(t *rapid.T) {
				e := revocation.Entry{Lease: rapid.SampledFrom(all).Draw(t, "lease"), Until: start.Add(time.Duration(rapid.IntRange(1, 50).Draw(t, "ends")) * time.Second)}
				_, had := want[e.Lease]
				if _, news, err := s.Revoke(context.Background(), e); err != nil || news == had {
					t.Fatalf("revoking %q: news is %v (%v), want %v", e.Lease, news, err, !had)
				}
				if !had {
					want[e.Lease] = e.Until
				}
			},
			"prune": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
				if err := s.Prune(context.Background(), now); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(want, func(_ string, until time.Time) bool { return now.After(until) })
			},
			"": func(*rapid.T) { check() },
		})
	})
}

// The same at a size at which every part of the set grows, shrinks and grows again.
func TestSetOfManyIsAMapToo(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1_700_000_000, 0)
	s := newSet(t, new(memory))
	want := map[string]time.Time{}
	for round := range 8 {
		now := start.Add(time.Duration(round) * time.Minute)
		for range 20_000 {
			e := revocation.Entry{Lease: leaseOf(rng.Uint64(), rng.Uint64()), Until: now.Add(time.Duration(rng.IntN(240)) * time.Second)}
			if _, _, err := s.Revoke(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			want[e.Lease] = e.Until
		}
		gone := map[string]bool{}
		for lease, until := range want {
			if now.After(until) {
				gone[lease] = true
				delete(want, lease)
			}
		}
		if err := s.Prune(context.Background(), now); err != nil {
			t.Fatal(err)
		}
		if s.Len() != len(want) {
			t.Fatalf("round %d: %d are live, want %d", round, s.Len(), len(want))
		}
		for lease, until := range want {
			if e, dead := s.Dead(revocation.Facts{Lease: lease}); !dead || !e.Until.Equal(until) {
				t.Fatalf("round %d: %s is dead: %v until %s, want until %s", round, lease, dead, e.Until, until)
			}
		}
		for lease := range gone {
			if _, dead := s.Dead(revocation.Facts{Lease: lease}); dead {
				t.Fatalf("round %d: %s is dead past its end", round, lease)
			}
		}
		if round > 1 && s.Slots() > 2*len(want) {
			t.Errorf("round %d: %d slots for %d entries", round, s.Slots(), len(want))
		}
	}
}

// Whoever chose ids could not make look-ups long: where they stand is keyed.
func TestChosenLeasesDoNotMeet(t *testing.T) {
	t.Parallel()
	for name, lease := range map[string]func(i uint64) string{
		"one after the other": func(i uint64) string { return leaseOf(0, i) },
		"the same end":        func(i uint64) string { return leaseOf(i, 0) },
		"the same beginning":  func(i uint64) string { return leaseOf(1<<60, i<<40) },
	} {
		s := newSet(t, new(memory))
		for i := range uint64(50_000) {
			if _, _, err := s.Revoke(context.Background(), entry(lease(i))); err != nil {
				t.Fatal(err)
			}
		}
		if s.Run() > 1000 {
			t.Errorf("%s: a look-up can see %d of %d entries", name, s.Run(), s.Len())
		}
	}
}

// Whoever asks while others revoke and prune sees what was acknowledged before, and never what was not.
func TestSetIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := newSet(t, new(memory))
	const writers, each = 4, 2000
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for i := range uint64(each) {
				lease := leaseOf(w, i)
				if _, dead := s.Dead(revocation.Facts{Lease: lease}); dead {
					t.Errorf("%s is dead before anybody revoked it", lease)
				}
				if _, _, err := s.Revoke(context.Background(), entry(lease)); err != nil {
					t.Error(err)
				}
				if _, dead := s.Dead(revocation.Facts{Lease: lease, Ancestors: []string{leaseOf(w, i/2)}}); !dead {
					t.Errorf("%s lives after it was revoked", lease)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			if err := s.Prune(context.Background(), time.Unix(1999, 0)); err != nil {
				t.Error(err)
			}
			s.Len()
		}
	})
	wg.Wait()
	if s.Len() != writers*each {
		t.Errorf("%d are live, want %d", s.Len(), writers*each)
	}
}

// BenchmarkProbe asks a million live revocations for one lease.
func BenchmarkProbe(b *testing.B) {
	log := &many{n: 1_000_000, keep: 1 << 16}
	used := allocated()
	s, err := revocation.New(b.Context(), log, mac)
	if err != nil {
		b.Fatal(err)
	}
	perEntry := float64(allocated()-used-int64(log.keep)*48) / float64(s.Len())
	unknown := make([]string, 1<<16)
	for i := range unknown {
		unknown[i] = leaseID()
	}
	for name, leases := range map[string][]string{"dead": log.kept, "live": unknown} {
		b.Run(name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				if _, dead := s.Dead(revocation.Facts{Lease: leases[i&(1<<16-1)]}); dead != (name == "dead") {
					b.Fatal(fmt.Sprint("dead is ", dead))
				}
				i++
			}
			b.ReportMetric(perEntry, "B/entry")
		})
	}
}
