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
	if since, ok := x.Forgot(start.Add(time.Hour)); !ok || !since.Equal(later) {
		t.Errorf("forgot up to %v: %v", since, ok)
	}
	seen := 0
	x.Each(start.Add(time.Hour+90*time.Second), func(Token, int64, time.Time) { seen++ })
	if seen != 9 { // of the minutes that begin with 3, 6 and 9 something lives on
		t.Errorf("%d are told of, want 9", seen)
	}
	x.Add(token(100), start.Add(5*time.Hour), start.Add(6*time.Hour))
	if x.n != 1 || x.Covers(start) || !x.Covers(start.Add(4*time.Hour)) {
		t.Errorf("after hours there are %d, and what expired is not forgotten", x.n)
	}
	if _, ok := x.Forgot(start.Add(5 * time.Hour)); ok {
		t.Error("it speaks of what was forgotten when nothing of that time can live")
	}
}

// What has expired makes room before what lives, and then the index knows as far back as before.
func TestIndexForgetsWhatExpiredBeforeWhatLives(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0).Truncate(slot)
	x := NewIndex(start)
	x.most = 10
	x.Add(token(1000), start, start.Add(time.Hour)) // the oldest lives longest
	for i := range uint64(40) {
		at := start.Add(slot + time.Duration(i)*20*time.Second)
		x.Add(token(i), at, at.Add(time.Minute))
	}
	if _, ok := x.Forgot(start.Add(15 * time.Minute)); ok || !x.Covers(start) || !x.Has(token(1000), start) || x.n > 10 {
		t.Errorf("something that lives was forgotten: %v, covers %v, has %v, %d in all", ok, x.Covers(start), x.Has(token(1000), start), x.n)
	}
	for i := range uint64(40) { // what is added twice is there once
		at := start.Add(20 * time.Minute)
		x.Add(token(i%3), at, at.Add(time.Minute))
	}
	if n := len(x.slots[Slot(start.Add(20*time.Minute))].tokens); n != 3 {
		t.Errorf("%d tokens of three", n)
	}
}
