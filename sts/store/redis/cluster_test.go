package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

// Marks, keys, leases and what was minted do in a cluster what they do on one Redis, whichever node has their keys.
func TestStoresOfACluster(t *testing.T) {
	t.Parallel()
	c, err := redistest.StartCluster(false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s := &redistest.Server{URL: c.URL}
	t.Run("marks", func(t *testing.T) {
		storetest.RunMarks(t, open(t, s, "m").Marks(time.Now), open(t, s, "m").Marks(time.Now))
	})
	t.Run("keys", func(t *testing.T) { storetest.RunKeys(t, open(t, s, "k").Keys(), open(t, s, "k").Keys()) })
	t.Run("leases", func(t *testing.T) {
		prefix := map[*testing.T]string{}
		storetest.RunLeases(t, func(t *testing.T) (lease.Store, func()) {
			if prefix[t] == "" {
				prefix[t] = fmt.Sprint("l", len(prefix)) // another node, mostly
			}
			ledger := leases(t, open(t, s, prefix[t]))
			return ledger, func() {
				if err := ledger.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Run("minted", func(t *testing.T) {
		m := open(t, s, "t").Minted(minted.NewIndex(time.Now().Add(-time.Hour)), time.Second, time.Time{}, time.Now)
		m.Add(someToken(), time.Now(), time.Now().Add(time.Minute))
		if err := m.Tell(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
