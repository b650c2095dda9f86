package redis_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// instant kills at once, so that what is measured is the ledger and its keeper.
type instant struct{ upstream }

func (*instant) Revoke(context.Context, brokers.Handle) (brokers.Receipt, error) {
	return brokers.Receipt{State: brokers.Dead, At: time.Now()}, nil
}

// BenchmarkExpiring measures leases of eight targets that all end in one second: SALLYPORT_LEASES of them, 100,000 unless it
// says otherwise; how many a second are brought to their end, and how long a new lease takes meanwhile, beside before.
func BenchmarkExpiring(b *testing.B) {
	n := 100_000
	if s := os.Getenv("SALLYPORT_LEASES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	s, err := redistest.Start(false)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	db, err := redis.Open(redis.Config{URL: secret.New(s.URL)})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	ledger, err := db.Leases(mac, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	seal, err := lease.NewSealer(mac)
	if err != nil {
		b.Fatal(err)
	}
	var ended atomic.Int64
	keeper, err := lease.NewKeeper(lease.Config{
		Store: ledger, Seal: seal, Now: time.Now, Log: zerolog.Nop(), Ended: func(lease.Lease, brokers.Receipt) { ended.Add(1) },
		Brokers: func(string) (brokers.Revoker, bool) { return &instant{}, true }, Dead: func(lease.Lease) (string, bool) { return "", false },
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		running.Go(func() { keeper.Run(ctx) }) // it leads before there is anything to do, as one does that has served for a while
		end := time.Now().Add(time.Hour)
		open := func(id string, due time.Time) time.Duration {
			l := newLease(id)
			l.Target, l.Opened, l.Expires, l.Due = fmt.Sprint("target-", len(id)%8), time.Now(), due, due
			start := time.Now()
			if err := ledger.Open(b.Context(), l, lease.Limits{}); err != nil {
				b.Error(err)
			}
			return time.Since(start)
		}
		var all sync.WaitGroup
		var next atomic.Int64
		filled := time.Now()
		ends := filled.Add(time.Duration(n/4000+5) * time.Second) // all before that
		for range 16 {
			all.Go(func() {
				for i := next.Add(1); i <= int64(n); i = next.Add(1) {
					id := fmt.Sprintf("lease-%d-%s", i, "xxxxxxxx"[:i%8])
					open(id, ends)
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(n)/time.Since(filled).Seconds(), "opened/s")
		p99 := func(while func() bool) float64 {
			var took []time.Duration
			for i := 0; while() || i < 200; i++ {
				took = append(took, open(fmt.Sprintf("late-%d-%d", time.Now().UnixNano(), i), end))
			}
			slices.Sort(took)
			return float64(took[len(took)*99/100].Microseconds()) / 1000
		}
		if !time.Now().Before(ends) {
			b.Fatal("leases ended before all were made; raise what a lease takes to make")
		}
		quiet := 0
		before := p99(func() bool { quiet++; return quiet < 2000 })
		time.Sleep(time.Until(ends))
		start := time.Now()
		meanwhile := p99(func() bool { return ended.Load() < int64(n) && time.Since(start) < 3*time.Minute })
		for ended.Load() < int64(n) && time.Since(start) < 3*time.Minute {
			time.Sleep(time.Millisecond)
		}
		took := time.Since(start)
		cancel()
		running.Wait()
		if left := int64(n) - ended.Load(); left > 0 {
			b.Errorf("%d leases stand after %s", left, took)
		}
		b.ReportMetric(float64(n)/took.Seconds(), "ended/s")
		b.ReportMetric(before, "open-p99-before-ms")
		b.ReportMetric(meanwhile, "open-p99-meanwhile-ms")
	}
}
