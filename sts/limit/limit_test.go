package limit

import (
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

// spend asks until it is refused, and returns how often it was allowed.
func spend[K comparable](l *Limiter[K], key K, now time.Time) int {
	for n := range 1_000_000 {
		if !l.Allow(key, now) {
			return n
		}
	}
	return -1
}

func TestEachKeyHasItsBurstAndThenItsRate(t *testing.T) {
	t.Parallel()
	l := New[string](Rate{PerSecond: 10, Burst: 30})
	for _, key := range []string{"a", "b"} {
		if n := spend(l, key, start); n != 30 {
			t.Errorf("%s was allowed %d at once, want 30", key, n)
		}
	}
	if n := spend(l, "a", start.Add(500*time.Millisecond)); n != 5 {
		t.Errorf("half a second later %d were allowed, want 5", n)
	}
	if n := spend(l, "a", start.Add(time.Hour)); n != 30 {
		t.Errorf("an hour later %d were allowed, want no more than the burst of 30", n)
	}
	if n := l.Refused(); n != 4 {
		t.Errorf("%d refusals were counted, want 4", n)
	}
}

func TestNoRateLimitsNothing(t *testing.T) {
	t.Parallel()
	l := New[int](Rate{})
	for range 10_000 {
		if !l.Allow(1, start) {
			t.Fatal("refused without a rate")
		}
	}
	if l.Refused() != 0 {
		t.Error("refusals were counted")
	}
}

// Whoever spent their bucket cannot get it back by making the table overflow with other keys.
func TestOverflowResetsNobodysLimit(t *testing.T) {
	t.Parallel()
	l := New[int](Rate{PerSecond: 1, Burst: 100})
	l.max = 1000
	spend(l, -1, start)
	now := start
	for i := range 20_000 {
		now = now.Add(time.Millisecond)
		l.Allow(i, now)
		if len(l.own) > l.max {
			t.Fatalf("%d buckets are kept, want at most %d", len(l.own), l.max)
		}
	}
	if n := spend(l, -1, now); n > 21 {
		t.Errorf("%d were allowed after 20 s of overflow, want what 1 a second gives", n)
	}
}

// Keys beyond the bound share what there is: all of them together get no more than the shared buckets hold.
func TestKeysBeyondTheBoundShareBuckets(t *testing.T) {
	t.Parallel()
	l := New[int](Rate{PerSecond: 1, Burst: 5})
	l.max = 100
	for i := range l.max {
		spend(l, i, start) // none can be forgotten
	}
	allowed := 0
	for i := range 100_000 {
		if l.Allow(1000+i, start) {
			allowed++
		}
	}
	if allowed != shared*5 || len(l.own) != l.max || len(l.rest) != shared {
		t.Errorf("strangers beyond the bound were allowed %d with %d and %d buckets, want %d with %d and %d",
			allowed, len(l.own), len(l.rest), shared*5, l.max, shared)
	}
	if n := spend(l, 3, start.Add(2*time.Second)); n != 2 {
		t.Errorf("a key that was known before the overflow was allowed %d after 2 s, want 2", n)
	}
	if later := start.Add(time.Minute); !l.Allow(5_000_000, later) || len(l.own) > 2 {
		t.Errorf("%d buckets are kept when all are full again, want them forgotten", len(l.own))
	}
}

func BenchmarkAllow(b *testing.B) {
	l := New[int](Rate{PerSecond: 1 << 30, Burst: 1 << 30})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			l.Allow(i%1000, time.Now())
		}
	})
}
