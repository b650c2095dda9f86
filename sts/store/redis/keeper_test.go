package redis_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// upstream holds credentials by their names.
type upstream struct {
	mu    sync.Mutex
	alive map[string]bool
}

func (u *upstream) Mint(_ context.Context, o brokers.Order) (brokers.Credential, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.alive[o.Name()] = true
	return brokers.Credential{Type: "fake", Value: secret.New("password of " + o.Name()), Expires: o.Grant().Expires(), Data: secret.New("data")}, nil
}

func (u *upstream) Revoke(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.alive[h.Name]
	delete(u.alive, h.Name)
	return brokers.Receipt{State: brokers.Dead, At: time.Now(), Gone: !was}, nil
}

func (u *upstream) left() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.alive)
}

// keeperOf is what one replica has.
func keeperOf(t *testing.T, ledger *redis.Leases, u *upstream, ended lease.Ended) *lease.Keeper {
	t.Helper()
	seal, err := lease.NewSealer(mac)
	if err != nil {
		t.Fatal(err)
	}
	k, err := lease.NewKeeper(lease.Config{
		Store: ledger, Seal: seal, Now: time.Now, Log: zerolog.Nop(), Ended: ended,
		Brokers: func(string) (brokers.Revoker, bool) { return u, true },
		Dead:    func(lease.Lease) (string, bool) { return "", false },
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What one replica minted another kills when it is asked to; what expires is killed once, by the one that leads, and when that
// one is gone by the other.
func TestKeepersOfTwoReplicasKeepOneLedger(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	u := &upstream{alive: map[string]bool{}}
	var mu sync.Mutex
	told := map[string]int{}
	ended := func(l lease.Lease, _ brokers.Receipt) {
		mu.Lock()
		defer mu.Unlock()
		told[l.ID]++
	}
	ledgers := []*redis.Leases{leases(t, open(t, s, "")), leases(t, open(t, s, ""))}
	keepers := []*lease.Keeper{keeperOf(t, ledgers[0], u, ended), keeperOf(t, ledgers[1], u, ended)}
	stop := make([]context.CancelFunc, 2)
	var all sync.WaitGroup
	for i, k := range keepers {
		var ctx context.Context
		ctx, stop[i] = context.WithCancel(t.Context())
		all.Go(func() { k.Run(ctx) })
	}
	defer all.Wait()
	defer stop[1]()

	first := brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
		Target: policy.Target{Name: "orders-db", Scopes: []string{"read"}, MaxLifetime: time.Hour}, Scopes: []string{"read"}, Lifetime: 10 * time.Minute,
	})
	for i := range 40 {
		o, err := brokers.NewOrder(first.Grant(), brokers.Lease{ID: fmt.Sprint("lease", i), Family: "f", Ancestors: []string{"root"}}, first.IssuedAt())
		if err != nil {
			t.Fatal(err)
		}
		c, err := keepers[0].Mint(t.Context(), u, o, "")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := keepers[1].Find(t.Context(), c.Value); err != nil || l.ID != o.Lease().ID {
			t.Fatalf("the other replica finds %q (%v)", l.ID, err)
		}
	}
	receipts, err := keepers[1].Kill(t.Context(), "root", "incident")
	dead := 0
	for _, r := range receipts {
		if r.State == "dead" {
			dead++
		}
	}
	if err != nil || dead != 40 || u.left() != 0 || len(keys(t, s)) > 1 {
		t.Errorf("%d of 40 are dead (%v), %d live, left are %v", dead, err, u.left(), keys(t, s))
	}

	expired := func(from, to int) {
		for i := from; i < to; i++ {
			l := newLease(fmt.Sprint("expired", i))
			l.Expires = time.Now()
			l.Due, l.Opened = l.Expires, l.Expires.Add(-time.Hour)
			u.mu.Lock()
			u.alive[l.Name] = true
			u.mu.Unlock()
			mustOpen(t, ledgers[0], l)
		}
		for deadline := time.Now().Add(patience); u.left() > 0 || len(keys(t, s)) > 1; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d that expired live, left are %v", u.left(), keys(t, s))
			}
		}
	}
	expired(0, 300)
	if a, b := keepers[0].Stats().Leads, keepers[1].Stats().Leads; a == b {
		t.Errorf("the first leads: %v, the second: %v", a, b)
	}
	stop[0]() // it does not give up the lead: it has died
	expired(300, 310)
	all350 := func() bool { mu.Lock(); defer mu.Unlock(); return len(told) >= 350 }
	for deadline := time.Now().Add(patience); !all350() && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		// whoever killed a lease tells of it after the ledger has forgotten it
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range told {
		if n != 1 {
			t.Errorf("the end of %s was told %d times", id, n)
		}
	}
	if len(told) != 350 {
		t.Errorf("the ends of %d were told, want 350", len(told))
	}
}
