package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestJunkFloodIsBounded(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	rec := exchange(1)
	rec.Reason = strings.Repeat("x", 8<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const goroutines, each = 8, 125_000
	begin := time.Now()
	var running sync.WaitGroup
	for g := range goroutines {
		running.Go(func() {
			for i := range each {
				l.Junk(fmt.Sprintf("reason %d", (g*each+i)%1000), rec)
			}
		})
	}
	running.Wait()
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	stats := l.Stats()
	mustClose(t, l)
	var total uint64
	for _, n := range stats.Junk {
		total += n
	}
	if total != goroutines*each || len(stats.Junk) > junkReasons+1 {
		t.Errorf("Stats: %d attempts in %d reasons", total, len(stats.Junk))
	}
	total = 0
	inChain := records(t, cfg.Dir, TypeJunk)
	for _, r := range inChain {
		for _, n := range r.Junk.Counts {
			total += n
		}
	}
	if most := 2 + int(took/junkEvery); total != goroutines*each || len(inChain) > most {
		t.Errorf("chain: %d attempts in %d records, want %d in at most %d", total, len(inChain), goroutines*each, most)
	}
	var size int64
	for _, name := range junkNames {
		info, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if most := int64(2+took.Seconds()) * junkRate * (10 << 10); size > most || size == 0 {
		t.Errorf("samples: %d bytes after %v, want at most %d", size, took, most)
	}
	wantOK(t, mustVerify(t, cfg))
	if _, ok, err := Find(cfg.Dir, decisionID(1)); !ok || err != nil {
		t.Errorf("a sample is not found: %v", err)
	}
}

func TestJunkSamplesStayWithinTwoFiles(t *testing.T) {
	cfg := testConfig(t.TempDir())
	for session := range 3 {
		l := mustOpen(t, cfg)
		asKeeper(l, func() {
			for range 1500 {
				l.writeSample([]byte(strings.Repeat("x", 7999) + "\n"))
			}
		})
		for i, size := range l.junk.sizes {
			info, err := os.Stat(filepath.Join(cfg.Dir, junkNames[i]))
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() != size || size > junkFile {
				t.Errorf("session %d: %s has %d bytes, believed %d, want at most %d", session, junkNames[i], info.Size(), size, junkFile)
			}
		}
		mustClose(t, l)
	}
}

func TestJunkCountsReachTheChainWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		l := mustOpen(t, cfg)
		l.Junk("malformed", nil)
		l.Junk("malformed", nil)
		time.Sleep(2 * junkEvery)
		l.Junk("unknown issuer", nil)
		time.Sleep(2 * junkEvery)
		got := records(t, cfg.Dir, TypeJunk)
		if len(got) != 2 || got[0].Junk.Counts["malformed"] != 2 || got[1].Junk.Counts["unknown issuer"] != 1 || len(got[1].Junk.Counts) != 1 {
			t.Errorf("junk records: %+v", got)
		}
		mustClose(t, l)
		wantOK(t, mustVerify(t, cfg))
	})
}

// Heads go into the chain about once a second while there is something new, and never when there is not.
func TestHeadsAreSignedWhileRecordsArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		l := mustOpen(t, cfg)
		for i := range 100 {
			mustAppendSmall(t, l, i, i+1)
			time.Sleep(100 * time.Millisecond)
			if s := l.Stats(); s.Unsynced > 0 || s.Signed < s.Last {
				t.Errorf("100 ms after record %d: %+v", s.Last, s)
			}
		}
		heads := len(records(t, cfg.Dir, TypeHead))
		if heads < 9 || heads > 12 {
			t.Errorf("%d heads in 10 s", heads)
		}
		time.Sleep(30 * time.Minute)
		if n := len(records(t, cfg.Dir, TypeHead)); n > heads+1 {
			t.Errorf("%d more heads while nothing happened", n-heads)
		}
		r := mustVerify(t, cfg)
		wantOK(t, r)
		if r.Unsigned > 1 {
			t.Errorf("%d records are not signed", r.Unsigned)
		}
		mustClose(t, l)
	})
}
