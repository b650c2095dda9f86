package embedded

import (
	"math"
	"sync/atomic"
	"time"
)

// due is when the first of the entries can be dropped, so that a store with nothing to drop is not read. It may be too
// early, never too late. It is safe for concurrent use.
type due struct{ seconds atomic.Int64 }

const (
	unknown = math.MinInt64
	never   = math.MaxInt64
)

// forget makes it unknown: whoever asks has to look.
func (d *due) forget() { d.seconds.Store(unknown) }

// begin is called before all entries are read, each of them followed by lower.
func (d *due) begin() { d.seconds.Store(never) }

// lower counts an entry in.
func (d *due) lower(until time.Time) {
	for {
		old := d.seconds.Load()
		if until.Unix() >= old || d.seconds.CompareAndSwap(old, until.Unix()) {
			return
		}
	}
}

// reached reports whether an entry may be past its end.
func (d *due) reached(now time.Time) bool { return now.Unix() >= d.seconds.Load() }
