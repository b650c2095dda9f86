package lease

import (
	"fmt"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of what one target may take up.
const (
	maxMints    = 64               // that run at once for one target
	tripAfter   = 3                // mints in a row that found the upstream unavailable
	firstPause  = time.Second      // and then twice as long each time
	longestRest = 30 * time.Second // between two attempts
)

// gate keeps a target that fails from taking callers, connections and time from the others: so many mints at once, and
// none for a moment after several have failed in a row.
type gate struct {
	mu      sync.Mutex
	running int
	failed  int       // in a row
	until   time.Time // no mint before
}

// answer is what a mint showed of its target's upstream.
type answer int

const (
	unasked  answer = iota // nothing: it was not asked, as far as we know
	answered               // it is there
	silent                 // it is not
)

// enter admits one mint. Whoever was admitted says how it went.
func (g *gate) enter(now time.Time) (leave func(now time.Time, a answer), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.running >= maxMints:
		return nil, fmt.Errorf("%w: %w (%d)", brokers.ErrUnavailable, ErrBusy, maxMints)
	case now.Before(g.until):
		return nil, fmt.Errorf("%w: %w", brokers.ErrUnavailable, ErrPaused)
	case g.failed >= tripAfter:
		g.until = now.Add(pause(g.failed - tripAfter)) // one goes and looks; the others wait for what it finds
	}
	g.running++
	return g.leave, nil
}

func (g *gate) leave(now time.Time, a answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	switch a {
	case unasked:
	case answered:
		g.failed, g.until = 0, time.Time{}
	case silent:
		if g.failed++; g.failed >= tripAfter {
			g.until = now.Add(pause(g.failed - tripAfter))
		}
	}
}

// pause doubles with each failure, up to longestRest.
func pause(failures int) time.Duration {
	return min(firstPause<<min(failures, 10), longestRest)
}
