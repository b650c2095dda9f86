package sts_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// others is what replicas share, reachable or not.
type others struct {
	gone, silent atomic.Bool // silent: it takes what is pushed, and is gone when asked who has it
}

func (o *others) Push(context.Context, revocation.Entry, bool) error {
	if o.gone.Load() {
		return fmt.Errorf("no way to the others")
	}
	return nil
}

func (o *others) Fresh() error {
	if o.gone.Load() {
		return fmt.Errorf("%w: not heard for long", revocation.ErrStale)
	}
	return nil
}

func (*others) Prune(context.Context, time.Time) error { return nil }

func (o *others) Replicas(context.Context) ([]revocation.Replica, error) {
	if o.gone.Load() || o.silent.Load() {
		return nil, fmt.Errorf("no way to the others")
	}
	return nil, nil
}

// A replica that may have missed a revocation calls nothing alive, and serves what does not depend on it.
func TestStaleReplicaNeitherExchangesNorIntrospects(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := new(others)
	d.revocations.Share(o)
	m, caller := d.mint(d.checkout(), "orders"), d.gateway()
	o.gone.Store(true)
	d.refused("exchange", 503, "temporarily_unavailable", func() answer { return d.exchange(te(d.checkout(), "audience", "orders")) })
	d.refused("introspection", 503, "temporarily_unavailable", func() answer { return d.ask(caller, m.token) })
	if a := d.revoke(m.token); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("a revocation that the others do not know: %d, want 503 with Retry-After (RFC 7009 section 2.2.1)", a.status)
	}
	if _, dead := d.revocations.Dead(revocation.Facts{Lease: m.decision}); !dead {
		t.Error("the revocation is not in force where it was asked for")
	}
	for _, path := range []string{"/jwks", "/.well-known/openid-configuration"} {
		if a := d.send("GET", path, ""); a.status != 200 {
			t.Errorf("GET %s: %d, want 200", path, a.status)
		}
	}
	o.gone.Store(false)
	d.killed(m.token)
	if d.active(caller, m.token) {
		t.Error("alive after the replica caught up")
	}
}
