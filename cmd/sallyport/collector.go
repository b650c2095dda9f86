package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage gathers before it is collected. An exchange allocates some 20 KiB and keeps nothing: with Go's default,
// as much garbage as there is live memory, a service that holds little would collect all the time, which is a tenth of
// its CPU; with four times as much, one that holds a million revocations would grow by more than it holds.
const (
	headroom = 32 << 20 // bytes of garbage
	leastGC  = 100      // percent of what is live: Go's default
	mostGC   = 400
)

// collector sets the collector's percentage by what is live. GOGC in the environment has the last word.
type collector struct {
	fixed   bool
	percent int
}

func newCollector() *collector {
	c := &collector{fixed: os.Getenv("GOGC") != "", percent: leastGC}
	c.adjust()
	return c
}

// adjust follows what is live now. It is called by one goroutine at a time.
func (c *collector) adjust() {
	if c.fixed {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	if p := gcPercent(live[0].Value.Uint64()); p != c.percent { // setting it stops the world
		c.percent = p
		debug.SetGCPercent(p)
	}
}

// gcPercent returns the percentage that gives live bytes their headroom, in steps of 20.
func gcPercent(live uint64) int {
	p := int(headroom * 100 / max(live, 1) / 20 * 20)
	return min(max(p, leastGC), mostGC)
}
