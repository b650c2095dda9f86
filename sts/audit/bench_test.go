package audit

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func benchmarkAppend(b *testing.B, d Durability, goroutines int, rec func(int) *Record) {
	cfg := testConfig(b.TempDir())
	cfg.Durability = d
	l := mustOpen(b, cfg)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	spent := cpu(b)
	var running sync.WaitGroup
	for range goroutines {
		running.Go(func() {
			r := rec(1)
			for left.Add(-1) >= 0 {
				if err := l.Append(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-spent)/float64(b.N), "cpu-ns/op") // of the whole process: sync, signing and collector too
	s := l.Stats()
	b.ReportMetric(float64(s.Syncs)/float64(b.N), "syncs/op")
	b.ReportMetric(float64(s.Bytes)/float64(s.Appended), "bytes/record")
}

// cpu is what this process has used so far, user and system.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkAppend(b *testing.B) {
	medium := func(i int) *Record {
		r := exchange(i)
		r.Requested, r.Granted, r.Subject.Attributes = nil, nil, nil
		r.Subject.Iss, r.Subject.Sub, r.Reasons, r.Lease.Fingerprint = "", "", nil, ""
		return r
	}
	for _, d := range []Durability{Process, Machine} {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d/medium", d, n), func(b *testing.B) { benchmarkAppend(b, d, n, medium) })
			b.Run(fmt.Sprintf("%s/%d/full", d, n), func(b *testing.B) { benchmarkAppend(b, d, n, exchange) })
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var p lines
	var prev sum
	r, h := exchange(1), sha256.New()
	b.ReportAllocs()
	for b.Loop() {
		l := p.take()
		if err := l.encode(r); err != nil {
			b.Fatal(err)
		}
		_, prev = l.chain(h, &prev, 12345)
		p.give(l)
	}
}

func BenchmarkJunk(b *testing.B) {
	l := mustOpen(b, testConfig(b.TempDir()))
	r := exchange(1)
	b.ReportAllocs()
	for b.Loop() {
		l.Junk("malformed", r)
	}
}
