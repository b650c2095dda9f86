package audit

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// acked is what was acknowledged, and when.
type acked struct {
	mu sync.Mutex
	at map[int]time.Time
}

func (a *acked) add(i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[i] = time.Now()
}

func (a *acked) copy() map[int]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[int]time.Time{}
	for i, at := range a.at {
		out[i] = at
	}
	return out
}

// cutDuring writes to a log on a tape that holds files, from several goroutines, for a while, and returns
// what a power cut at a random moment leaves and what had been acknowledged before it.
func cutDuring(t *testing.T, cfg Config, files map[string][]byte, from int, kind leftover, rnd *rand.Rand) (map[string][]byte, map[int]time.Time, time.Time) {
	t.Helper()
	disk := newTape(files)
	disk.slow = napping(2 * time.Millisecond)
	cfg.FS = disk
	a := acked{at: map[int]time.Time{}}
	var left map[string][]byte
	var before map[int]time.Time
	var when time.Time
	var once sync.Once
	snapshot := func(d *tape) {
		once.Do(func() {
			before, when = a.copy(), time.Now()
			left = d.after(kind, rnd)
		})
	}
	disk.cut = snapshot
	disk.cutAt = 1 + rnd.IntN(150) // of the operations; sometimes while it opens
	pause := time.Duration(rnd.IntN(60)) * time.Millisecond
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var next atomic.Int64
	next.Store(int64(from))
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1))
				if err := l.Append(t.Context(), small(i)); err != nil {
					t.Errorf("Append: %v", err)
					return
				}
				a.add(i)
				if cfg.Durability == Process {
					time.Sleep(rand.N(300 * time.Microsecond))
				}
			}
		})
	}
	time.Sleep(pause)
	disk.mu.Lock()
	snapshot(disk) // if the operation was not reached
	disk.mu.Unlock()
	stop.Store(true)
	running.Wait()
	mustClose(t, l)
	return left, before, when
}

// A power cut at any moment, three in a row on one log: nothing acknowledged is lost in machine mode, at most the
// last 50 ms in process mode; the log verifies before and after it is opened again; it says what happened.
func TestPowerCutLosesNoMoreThanPromised(t *testing.T) {
	const runs, generations = 12, 3 // times six: 216 cuts
	for _, mode := range []Durability{Process, Machine} {
		for _, kind := range []leftover{nothing, prefix, sectors} {
			t.Run(fmt.Sprintf("%s/%s", mode, kind), func(t *testing.T) {
				t.Parallel()
				cuts := cutCounts{}
				defer func() { t.Logf("%+v", cuts) }()
				for run := range runs {
					rnd := rand.New(rand.NewPCG(uint64(run), uint64(kind)))
					cfg := testConfig("/")
					cfg.Durability, cfg.SegmentSize = mode, smallestSegment
					var files map[string][]byte
					must := map[int]bool{}
					for generation := range generations {
						left, before, when := cutDuring(t, cfg, files, generation*1_000_000, kind, rnd)
						checkAfterCut(t, cfg, left, before, when, must, &cuts)
						if t.Failed() {
							t.Fatalf("run %d, generation %d", run, generation)
						}
						files = left
					}
				}
			})
		}
	}
}

// slack is what a scheduler may add to 50 ms on a loaded machine that may also stand still. That appenders wait when
// syncs lag is tested by TestProcessModeWaitsForASlowDiskRatherThanLoseMore.
const slack = 20 * time.Second

func checkAfterCut(t *testing.T, cfg Config, left map[string][]byte, before map[int]time.Time, when time.Time, must map[int]bool, cuts *cutCounts) {
	t.Helper()
	root := t.TempDir()
	put(t, root, left)
	cfg.Dir, cfg.HeadFile, cfg.FS = filepath.Join(root, cfg.Dir), filepath.Join(root, cfg.HeadFile), nil
	began := false // a log of which not even the first head was synced is no log
	if r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), VerifyOptions{}); err == nil {
		wantOK(t, r)
		began = r.Records > 0
		cuts.tails += len(r.Tails)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open after a power cut: %v", err)
	}
	if err := l.Health(); err != nil {
		t.Errorf("Health after a power cut: %v", err)
	}
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
	if n := len(records(t, cfg.Dir, TypeRecovered)); began && n == 0 {
		t.Errorf("no recovered record after a power cut")
	}
	found := decisions(t, cfg.Dir)
	for i := range must {
		if found[decisionID(i)] != 1 {
			t.Fatalf("record %d was there after the power cut before, and stands there %d times now", i, found[decisionID(i)])
		}
	}
	cuts.cuts++
	cuts.acknowledged += len(before)
	for i, at := range before {
		switch n := found[decisionID(i)]; {
		case n == 1:
			must[i] = true
		case n > 1:
			t.Fatalf("record %d stands there %d times", i, n)
		case cfg.Durability == Machine:
			t.Fatalf("record %d of %d was acknowledged %v before the power cut and is lost", i, len(before), when.Sub(at))
		case when.Sub(at) > loss+slack:
			t.Fatalf("record %d was acknowledged %v before the power cut and is lost", i, when.Sub(at))
		default:
			cuts.lost++
		}
	}
	for id, n := range found {
		if n > 1 {
			t.Fatalf("decision %s stands there %d times", id, n)
		}
	}
}

// cutCounts shows that the test met what it is about.
type cutCounts struct{ cuts, acknowledged, lost, tails int }
