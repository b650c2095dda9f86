package revocation_test

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

func leaseID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// many is a log of n entries that keeps none.
type many struct {
	memory
	n    int
	last string

	keep int // how many leases are kept, for asking
	kept []string
}

func (m *many) Load(_ context.Context, each func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	p := revocation.Position{Epoch: 1}
	for range m.n {
		p.N++
		if m.last = leaseID(); len(m.kept) < m.keep {
			m.kept = append(m.kept, m.last)
		}
		if err := each(p, revocation.Entry{Lease: m.last, Decision: leaseID(), At: time.Unix(1000, 0), Until: time.Unix(2000, 0)}); err != nil {
			return p, err
		}
	}
	return p, nil
}

// A million live revocations fit into 64 MiB. // design section 6
func TestMillionRevocationsFitInto64MiB(t *testing.T) {
	before := allocated()
	log := &many{n: 1_000_000}
	s := newSet(t, log)
	if used := allocated() - before; used > 32<<20 {
		t.Errorf("%d MiB, want at most 32, so that the rest of a replica has room", used>>20)
	} else {
		t.Logf("%d MiB", used>>20)
	}
	if _, dead := s.Dead(revocation.Facts{Lease: log.last}); !dead || s.Len() != log.n {
		t.Errorf("%d are held, the last one is dead: %v", s.Len(), dead)
	}
}

// allocated is what is in use of the heap, in bytes.
func allocated() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkDead(b *testing.B) {
	s, err := revocation.New(b.Context(), &many{n: 1_000_000}, mac)
	if err != nil {
		b.Fatal(err)
	}
	lease, ancestors := leaseID(), []string{leaseID()}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, dead := s.Dead(revocation.Facts{Lease: lease, Ancestors: ancestors}); dead {
				b.Error("dead")
			}
		}
	})
}
