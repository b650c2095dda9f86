package audit

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// An appender that found the segment full just before Close comes to begin the next one just after it: by then another
// process may hold the log.
func TestNoSegmentIsBegunAfterClose(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 0, 5)
	mustClose(t, l)
	if err := l.rotate(l.first); !errors.Is(err, ErrUnavailable) {
		t.Errorf("rotate after Close: %v", err)
	}
	if err := l.Accept(t.Context(), "bob"); err != nil {
		t.Errorf("Accept without a contradiction: %v", err)
	}
	if got := mustList(t, cfg.Dir); len(got) != 1 {
		t.Errorf("%d segments", len(got))
	}
	wantOK(t, mustVerify(t, cfg))
}

// Appenders that are about to begin a segment, or wait for a sync, while the log closes: each is told the truth, and
// nothing is written once Close has returned.
func TestCloseWhileOthersAppendLeavesAWholeLog(t *testing.T) {
	for _, mode := range []Durability{Process, Machine} {
		t.Run(string(mode), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Durability, cfg.SegmentSize = mode, smallestSegment
			a := acked{at: map[int]time.Time{}}
			for round := range 10 {
				l := mustOpen(t, cfg)
				var running sync.WaitGroup
				for g := range 16 {
					running.Go(func() {
						for i := 0; ; i++ {
							id := round*1_000_000 + g*10_000 + i
							err := l.Append(t.Context(), small(id))
							if err != nil {
								if !errors.Is(err, ErrUnavailable) {
									t.Error(err)
								}
								return
							}
							a.add(id)
						}
					})
				}
				time.Sleep(time.Duration(round) * time.Millisecond)
				mustClose(t, l)
				segments := mustList(t, cfg.Dir)
				running.Wait()
				if got := mustList(t, cfg.Dir); len(got) != len(segments) {
					t.Fatalf("%d segments were begun after Close", len(got)-len(segments))
				}
			}
			r := mustVerify(t, cfg)
			wantOK(t, r)
			if r.Recovered > 0 {
				t.Errorf("%d unclean ends", r.Recovered)
			}
			found := decisions(t, cfg.Dir)
			for i := range a.copy() {
				if found[decisionID(i)] != 1 {
					t.Fatalf("record %d stands there %d times", i, found[decisionID(i)])
				}
			}
		})
	}
}
