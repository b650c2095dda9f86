package minted

import (
	"encoding/binary"
	"testing"
	"time"
)

func token(n uint64) (t Token) { binary.BigEndian.PutUint64(t[:], n); return t }

// What was added is there, by its time; what was forgotten for want of room is not said to be missing.
func TestIndexForgetsTheOldestAndSaysSo(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0).Truncate(slot)
	x := NewIndex(start)
	x.most = 10
	for i := range uint64(12) {
		at := start.Add(time.Duration(i) * 20 * time.Second) // three in a minute
		x.Add(token(i), at, at.Add(time.Hour))
	}
	if x.Has(token(0), start) || x.Covers(start) {
		t.Error("the oldest minute is kept, or said to be whole")
	}
	later := start.Add(slot)
	if !x.Has(token(3), later) || !x.Covers(later) || x.n > 10 {
		t.Errorf("the second minute: has %v, covers %v, %d in all", x.Has(token(3), later), x.Covers(later), x.n)
	}
	if x.Has(token(3), start) || x.Has(token(99), later) {
		t.Error("a token is found at another time, or that was never added")
	}
	seen := 0
	x.Each(start.Add(time.Hour+100*time.Second), func(Token, int64, time.Time) { seen++ })
	if seen != 6 { // 6 to 11 live longer
		t.Errorf("%d live on, want 6", seen)
	}
	x.Add(token(100), start.Add(5*time.Hour), start.Add(6*time.Hour))
	if x.n != 1 || x.Covers(start) || !x.Covers(start.Add(4*time.Hour)) {
		t.Errorf("after hours there are %d, and what expired is not forgotten", x.n)
	}
}
