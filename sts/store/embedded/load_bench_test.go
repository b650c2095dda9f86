package embedded_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

// BenchmarkLoad reads 100,000 revocations, as every start does.
func BenchmarkLoad(b *testing.B) {
	db, err := embedded.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	r, err := db.Revocations(mac)
	if err != nil {
		b.Fatal(err)
	}
	const n = 100_000
	entries := make([]revocation.Entry, n)
	for i := range entries {
		entries[i] = revocation.Entry{Lease: fmt.Sprintf("%026d", i), Decision: fmt.Sprintf("%026d", i), At: time.Now(), Until: time.Now().Add(time.Hour)}
	}
	if err := r.AppendAll(context.Background(), entries); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Load(context.Background(), func(revocation.Position, revocation.Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}
