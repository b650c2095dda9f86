package main

import "testing"

// A small service collects seldom, and a large one does not double several times over.
func TestGarbageHasTheSameRoomHoweverMuchIsLive(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: 400, 1: 400, 6 << 20: 400, 8 << 20: 400, 9 << 20: 340, 16 << 20: 200, 20 << 20: 160, 32 << 20: 100, 40 << 20: 100, 4 << 30: 100,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d MiB live: %d percent, want %d", live>>20, got, want)
		}
	}
}
