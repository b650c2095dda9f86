package audit

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// badDisk is the real disk with faults that can be switched on.
type badDisk struct {
	Disk
	mu       sync.Mutex
	left     int64 // bytes that can still be written to segments, -1: any number
	sync     error // of segments
	head     error // writing the head file
	truncate error
	free     int64
	slow     time.Duration // of a sync
}

func newBadDisk() *badDisk { return &badDisk{left: -1, free: 1 << 40} }

func (d *badDisk) set(change func(*badDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *badDisk) Free(string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free, nil
}

func (d *badDisk) OpenFile(name string, flag int) (File, error) {
	f, err := d.Disk.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return &badFile{File: f, d: d, head: filepath.Base(name) == "head"}, nil
}

type badFile struct {
	File
	d    *badDisk
	head bool
}

func (f *badFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	head, left := f.d.head, f.d.left
	if !f.head && left >= 0 {
		f.d.left -= min(left, int64(len(b)))
	}
	f.d.mu.Unlock()
	if f.head {
		if head != nil {
			return 0, head
		}
		return f.File.WriteAt(b, off)
	}
	if left < 0 || left >= int64(len(b)) {
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[:left], off)
	return n, errors.Join(unix.ENOSPC, err)
}

func (f *badFile) Truncate(size int64) error {
	f.d.mu.Lock()
	err := f.d.truncate
	f.d.mu.Unlock()
	return errors.Join(err, f.File.Truncate(size))
}

func (f *badFile) Sync() error {
	f.d.mu.Lock()
	err, slow := f.d.sync, f.d.slow
	f.d.mu.Unlock()
	if f.head {
		return f.File.Sync()
	}
	time.Sleep(slow)
	if err != nil {
		return err
	}
	return f.File.Sync()
}

// eventually waits until done says nil.
func eventually(t *testing.T, done func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFullDiskRefusesAndRecoversByItself(t *testing.T) {
	for _, truncates := range []bool{true, false} {
		t.Run(fmt.Sprintf("truncate works %t", truncates), func(t *testing.T) {
			cfg, disk := testConfig(t.TempDir()), newBadDisk()
			cfg.FS = disk
			l := mustOpen(t, cfg)
			mustAppendSmall(t, l, 0, 10)
			for _, left := range []int64{0, 1, 64, 100, 600} { // short writes of all lengths
				disk.set(func(d *badDisk) {
					d.left = left
					if !truncates {
						d.truncate = unix.EIO
					}
				})
				long := small(999)
				long.Reason = strings.Repeat("x", 500) // what is left of it would stand after the next, shorter one
				if err := l.Append(t.Context(), long); !errors.Is(err, ErrUnavailable) || !errors.Is(err, unix.ENOSPC) {
					t.Fatalf("Append to a full disk: %v", err)
				}
				if err := l.Health(); !errors.Is(err, ErrUnavailable) {
					t.Errorf("Health on a full disk: %v", err)
				}
				disk.set(func(d *badDisk) { d.left, d.truncate = -1, nil })
				eventually(t, func() error { return l.Append(t.Context(), small(int(left)+100)) })
				if err := l.Health(); err != nil {
					t.Errorf("Health when there is space again: %v", err)
				}
			}
			mustClose(t, l)
			wantOK(t, mustVerify(t, cfg))
			found := decisions(t, cfg.Dir)
			if len(found) != 15 || found[decisionID(999)] != 0 {
				t.Errorf("found %v", found)
			}
			if n := len(records(t, cfg.Dir, TypeRecovered)); (n > 0) == truncates {
				t.Errorf("%d recovered records", n)
			}
		})
	}
}

func TestFullDiskWhileASegmentEnds(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS, cfg.SegmentSize = disk, smallestSegment
	l := mustOpen(t, cfg)
	next, failed, full := 0, 0, -1
	for next < 200 {
		if next%10 == 3 && full != next {
			full = next
			disk.set(func(d *badDisk) { d.left = int64(next * 7 % 700) })
		}
		err := l.Append(t.Context(), small(next))
		if err == nil {
			next++
			continue
		}
		failed++
		if !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		disk.set(func(d *badDisk) { d.left = -1 })
		time.Sleep(time.Millisecond)
	}
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
	found := decisions(t, cfg.Dir)
	for i := range next {
		if found[decisionID(i)] != 1 {
			t.Fatalf("record %d is lost", i)
		}
	}
	if failed == 0 || len(mustList(t, cfg.Dir)) < 5 {
		t.Errorf("%d failures, %d segments: the test met nothing", failed, len(mustList(t, cfg.Dir)))
	}
}

func TestReserveOfDiskBelongsToRevocations(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS, cfg.Reserve = disk, 1<<20
	l := mustOpen(t, cfg)
	disk.set(func(d *badDisk) { d.free = 1<<20 - 1 })
	eventually(t, func() error { // until the log has looked again
		if err := l.Append(t.Context(), &Record{Type: TypeIntrospection}); err != nil {
			return nil
		}
		return errors.New("the log still writes below the reserve")
	})
	for _, typ := range []Type{TypeExchange, TypeIntrospection} {
		if err := l.Append(t.Context(), &Record{Type: typ}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s below the reserve: %v", typ, err)
		}
	}
	if err := l.Append(t.Context(), &Record{Type: TypeRevocation, Revocation: &Revocation{ID: "r", Action: "lock"}}); err != nil {
		t.Errorf("revocation below the reserve: %v", err)
	}
	if err := l.Health(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Health below the reserve: %v", err)
	}
	disk.set(func(d *badDisk) { d.free = 1 << 20 })
	eventually(t, func() error { return l.Append(t.Context(), small(0)) })
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}

func TestFailedSyncStopsTheLogUntilANewSegment(t *testing.T) {
	for _, mode := range []Durability{Process, Machine} {
		t.Run(string(mode), func(t *testing.T) {
			cfg, disk := testConfig(t.TempDir()), newBadDisk()
			cfg.FS, cfg.Durability = disk, mode
			l := mustOpen(t, cfg)
			mustAppendSmall(t, l, 0, 10)
			disk.set(func(d *badDisk) { d.sync = unix.EIO })
			acknowledged := map[int]bool{}
			eventually(t, func() error { // until the failure is seen
				i := 10 + len(acknowledged)
				if err := l.Append(t.Context(), small(i)); err != nil {
					if !errors.Is(err, ErrUnavailable) {
						t.Fatal(err)
					}
					return nil
				}
				acknowledged[i] = true
				return errors.New("still acknowledged")
			})
			if mode == Machine && len(acknowledged) > 0 {
				t.Errorf("%d records were acknowledged without a sync", len(acknowledged))
			}
			for range 20 { // down means down: no record is acknowledged while no segment can be begun
				if err := l.Append(t.Context(), small(777)); !errors.Is(err, ErrUnavailable) {
					t.Fatalf("Append while the disk fails: %v", err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := l.Health(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("Health: %v", err)
			}
			disk.set(func(d *badDisk) { d.sync = nil })
			eventually(t, func() error { return l.Append(t.Context(), small(5000)) })
			mustClose(t, l)
			wantOK(t, mustVerify(t, cfg))
			found := decisions(t, cfg.Dir)
			for i := range acknowledged {
				if found[decisionID(i)] != 1 {
					t.Errorf("acknowledged record %d stands there %d times", i, found[decisionID(i)])
				}
			}
			if found[decisionID(5000)] != 1 || found[decisionID(777)] != 0 {
				t.Errorf("records after and during the failure: %v", found)
			}
			rec := records(t, cfg.Dir, TypeRecovered)
			if len(rec) == 0 || rec[0].Recovered.Cause != CauseSync || (rec[0].Recovered.Rewrote < len(acknowledged)) || (mode == Machine && rec[0].Recovered.Rewrote > 0) {
				t.Errorf("recovered: %+v", rec)
			}
		})
	}
}

// After a failed sync the kernel may have dropped what it could not write. Nothing acknowledged may depend on it.
func TestFailedSyncLosesNothingEvenWhenTheOldBytesAreGone(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS = disk
	l := mustOpen(t, cfg)
	disk.set(func(d *badDisk) { d.sync = unix.EIO })
	acknowledged := 0
	for l.Append(t.Context(), small(acknowledged)) == nil {
		if acknowledged++; acknowledged > 1_000_000 {
			t.Fatal("the failed sync has no effect")
		}
	}
	disk.set(func(d *badDisk) { d.sync = nil })
	eventually(t, func() error { return l.Append(t.Context(), small(10_000_000)) })
	mustClose(t, l)
	rec := records(t, cfg.Dir, TypeRecovered)[0].Recovered
	first := segmentName(rec.Void[0].Segment)
	b := readAll(t, cfg.Dir, first)
	for i := rec.Void[0].Offset; i < int64(len(b)); i++ {
		b[i] = 0
	}
	writeAll(t, cfg.Dir, first, b)
	wantOK(t, mustVerify(t, cfg))
	writeAll(t, cfg.Dir, first, b[:rec.Void[0].Offset])
	wantOK(t, mustVerify(t, cfg))
	found := decisions(t, cfg.Dir)
	for i := range acknowledged {
		if found[decisionID(i)] != 1 {
			t.Fatalf("record %d of %d stands there %d times", i, acknowledged, found[decisionID(i)])
		}
	}
}

func TestProcessModeWaitsForASlowDiskRatherThanLoseMore(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS = disk
	l := mustOpen(t, cfg)
	disk.set(func(d *badDisk) { d.slow = 400 * time.Millisecond })
	begin := time.Now()
	var longest time.Duration
	acknowledged := 0
	// An Append that waits for a sync comes sooner or later; that many without one take seconds.
	for longest < 200*time.Millisecond && acknowledged < 5000 {
		at := time.Now()
		mustAppendSmall(t, l, acknowledged, acknowledged+1)
		acknowledged++
		longest = max(longest, time.Since(at))
		time.Sleep(time.Millisecond)
	}
	if longest < 200*time.Millisecond {
		t.Errorf("for %v every Append returned within %v though no sync had ended: a power cut would take more than %v", time.Since(begin), longest, loss)
	}
	disk.set(func(d *badDisk) { d.slow = 0 })
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}

func TestMachineModeSharesSyncs(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS, cfg.Durability = disk, Machine
	disk.slow = time.Millisecond
	l := mustOpen(t, cfg)
	const goroutines, each = 64, 40
	var running sync.WaitGroup
	for g := range goroutines {
		running.Go(func() {
			for i := range each {
				if err := l.Append(t.Context(), small(g*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	s := l.Stats()
	if s.Appended < goroutines*each || s.Syncs*8 > s.Appended || s.Syncs == 0 {
		t.Errorf("%d syncs for %d records", s.Syncs, s.Appended)
	}
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
	if n := len(decisions(t, cfg.Dir)); n != goroutines*each {
		t.Errorf("%d of %d records", n, goroutines*each)
	}
}

func TestHeadFileThatCannotBeWrittenIsReportedAndCaughtUp(t *testing.T) {
	cfg, disk := testConfig(t.TempDir()), newBadDisk()
	cfg.FS = disk
	l := mustOpen(t, cfg)
	disk.set(func(d *badDisk) { d.head = unix.ENOSPC })
	mustAppendSmall(t, l, 0, 10)
	eventually(t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.faults.head == nil {
			return errors.New("not noticed")
		}
		l.faults.headSince = time.Now().Add(-2 * headPatience)
		return nil
	})
	if err := l.Health(); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("Health: %v", err)
	}
	disk.set(func(d *badDisk) { d.head = nil })
	eventually(t, l.Health)
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}

// A line is never torn by a concurrent reader's eye: every line but the last of a live log is whole.
func TestLinesOfALiveLogAreWhole(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	var running sync.WaitGroup
	for g := range 8 {
		running.Go(func() {
			for i := range 100 {
				r := small(g*100 + i)
				r.Reason = strings.Repeat("x", i*20)
				if err := l.Append(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	b := readAll(t, cfg.Dir, segmentName(1))
	for i, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		var e entry
		if !e.parse(line) || e.n != uint64(i+1) {
			t.Fatalf("line %d: %.80s", i+1, line)
		}
	}
}
