package sts_test

import (
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// 64 callers exchange, introspect and revoke while the configuration is swapped under them: every answer is one of
// those that the old or the new configuration gives, nothing revoked is handed out alive, and every token that
// left is on record with the configuration it was decided by.
func TestExchangesWhileStateIsSwappedAndTokensAreRevoked(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	with := d.state
	less := *d.world
	less.policy.Rules = less.policy.Rules[1:] // checkout may not have orders
	without := d.build(&less, "config-2")
	roots := make([]minted, 4)
	for i := range roots {
		roots[i] = d.mint(d.checkout(), "orders")
	}
	caller := d.gateway()
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				if i%2 == 0 {
					d.exchanger.Swap(without)
				} else {
					d.exchanger.Swap(with)
				}
			}
		}
	})
	var mu sync.Mutex
	var issued []minted
	refused := 0
	var callers sync.WaitGroup
	for i := range 64 {
		callers.Go(func() {
			root := roots[i%len(roots)]
			for j := range 6 {
				form := te(d.checkout())
				switch j % 3 {
				case 1:
					form = te(root.token, "audience", "orders")
				case 2:
					form = te(root.token, "audience", "billing")
				}
				a := d.exchange(form)
				switch a.status {
				case 200:
					m := d.issued(a)
					mu.Lock()
					issued = append(issued, m)
					mu.Unlock()
				case 400:
					mu.Lock()
					refused++
					mu.Unlock()
				default:
					t.Errorf("answer %d %s", a.status, a.body)
				}
				if i < len(roots)/2 && j == 3 {
					d.killed(roots[i].token)
				}
				if i%16 == 15 {
					d.ask(caller, root.token)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	swapping.Wait()
	d.exchanger.Swap(with)
	if len(issued) == 0 || refused == 0 {
		t.Errorf("%d issued, %d refused: the test shows nothing", len(issued), refused)
	}
	dead := map[string]bool{roots[0].decision: true, roots[1].decision: true}
	ids := map[string]bool{}
	for _, m := range issued {
		recs := d.recorder.of(m.decision)
		if len(recs) != 1 || recs[0].Outcome != audit.Issued || recs[0].Lease.ID != m.claims["jti"] {
			t.Errorf("token %s: recorded %+v", m.decision, recs)
			continue
		}
		if g := recs[0].Granted; recs[0].Config == "config-2" && g.Rule == "checkout-orders" {
			t.Errorf("token %s was granted by a rule that its configuration does not have", m.decision)
		}
		if ids[m.decision] {
			t.Errorf("decision id %s twice", m.decision)
		}
		ids[m.decision] = true
		_, ancestors := lineageOf(m)
		want := true
		for _, a := range ancestors {
			want = want && !dead[a]
		}
		if m.claims["aud"] == "https://orders.example/api" && d.active(caller, m.token) != want {
			t.Errorf("token %s with ancestors %v: active is not %v", m.decision, ancestors, want)
		}
	}
	if n := d.recorder.count(audit.Issued); n != len(issued)+len(roots)+1 {
		t.Errorf("%d on record as issued, %d left", n, len(issued)+len(roots)+1)
	}
}
