package redis_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// The primary is killed while both replicas of ours revoke: a Sentinel promotes its replica, which need not have what was written
// last. What was acknowledged is dead everywhere before anybody serves, also where nothing was known before.
func TestFailoverBySentinelLosesNoAcknowledgedRevocation(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := redistest.StartFailover(secure)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			failoverLosesNothing(t, &redistest.Server{URL: f.URL, CAFile: f.CAFile}, f.Nodes[0].Kill)
		})
	}
}

// The same for the node of a cluster that has our keys: its replica takes over.
func TestFailoverOfAClusterLosesNoAcknowledgedRevocation(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := redistest.StartCluster(secure, documentedRules(t, "{test}")...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			failoverLosesNothing(t, &redistest.Server{URL: c.URL, CAFile: c.CAFile}, func() {
				holder, err := c.Holder(t.Context(), "{test}:x")
				if err != nil {
					t.Fatal(err)
				}
				holder.Kill()
			})
		})
	}
}

// failoverLosesNothing revokes from two replicas while the primary is killed.
func failoverLosesNothing(t *testing.T, s *redistest.Server, kill func()) {
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	var mu sync.Mutex
	var acknowledged []string
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, n := range []*node{a, b} {
		all.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				if lease := fmt.Sprintf("r%d-%d", i, j); n.revoke(lease) == nil {
					mu.Lock()
					acknowledged = append(acknowledged, lease)
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	kill()
	time.Sleep(time.Second)
	close(stop)
	all.Wait()
	if len(acknowledged) < 10 {
		t.Fatalf("only %d revocations were acknowledged; the test looks at nothing", len(acknowledged))
	}
	a.fresh()
	b.fresh()
	c := start(t, s, t.TempDir())
	c.servesOnlyWith(acknowledged...)
	for _, lease := range acknowledged {
		for _, n := range []*node{a, b} {
			if err := n.dead(lease); err != nil {
				t.Error(err)
			}
		}
	}
	a.revoked("after")
	b.knows("after")
	c.knows("after")
	t.Logf("%d revocations were acknowledged around the failover", len(acknowledged))
}
