package sts_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/replay"
)

func singleUse(w *world) { w.issuers[0].SingleUse = true }

// A token that may be used once is exchanged once for each target; the second use is a theft signal. A refusal uses
// nothing up. // standards 4.31
func TestSingleUseTokenIsExchangedOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t, singleUse)
	token := d.checkout()
	d.refused("refused by policy", 400, "invalid_target", func() answer { return d.exchange(te(token, "audience", "ledger")) })
	d.mint(token, "orders")
	a := d.refused("second use", 400, "invalid_request", func() answer { return d.exchange(te(token)) })
	if rec := d.recorder.of(a.decision())[0]; rec.Signal != audit.SignalReuse {
		t.Errorf("the second use is recorded with signal %q", rec.Signal)
	}
	d.mint(token, "plain")
}

// The mark is let go only when nothing was made. // design section 3
func TestMarkIsReleasedOnlyWhenNothingWasMade(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mint func(brokers.Order) (brokers.Credential, error)
		kept bool
	}{
		"upstream down": {func(brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{}, fmt.Errorf("x: %w", brokers.ErrUnavailable)
		}, false},
		"upstream unclear": {func(brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{}, fmt.Errorf("x: %w", brokers.ErrUncertain)
		}, true},
		"both": {func(brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, brokers.ErrUnavailable)
		}, true},
		"a fault": {func(brokers.Order) (brokers.Credential, error) { return brokers.Credential{}, fmt.Errorf("x") }, true},
		"amplified": {func(o brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{Value: secret.New("credential-0123456789"), Expires: o.Grant().Expires().Add(1)}, nil
		}, true},
		"panic": {func(brokers.Order) (brokers.Credential, error) { panic(panicText) }, true},
		"scopes of several": {func(brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{}, fmt.Errorf("x: %w", brokers.ErrScopes)
		}, false},
	} {
		d := deploy(t, singleUse, func(w *world) {
			w.brokers["orders"] = brokerFunc(func(_ context.Context, o brokers.Order) (brokers.Credential, error) { return tc.mint(o) })
		})
		if a := d.exchange(te(d.checkout())); a.status < 400 {
			t.Errorf("%s: %d", name, a.status)
		}
		if kept := len(d.marks.(*marks).held) == 1; kept != tc.kept {
			t.Errorf("%s: mark kept %v, want %v", name, kept, tc.kept)
		}
	}
}

// Where marks cannot be set, nothing that needs one is minted, and what needs none is. // standards 4.31
func TestNothingIsMintedWithoutItsMark(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]replay.Marks{"none": nil, "down": &marks{fail: replay.ErrUnavailable}} {
		d := deploy(t, singleUse, func(w *world) { w.marks = store })
		d.refused(name, 503, "temporarily_unavailable", func() answer { return d.exchange(te(d.checkout())) })
		d.mint(d.sign(d.ci, "deploy", "deploy"), "orders")
	}
}

// A broker that panics leaves a record under the decision id that the caller was told, with the lease, of which
// something may exist.
func TestPanickingBrokerLeavesARecord(t *testing.T) {
	t.Parallel()
	d := deploy(t, func(w *world) {
		w.brokers["orders"] = brokerFunc(func(context.Context, brokers.Order) (brokers.Credential, error) { panic(panicText) })
	})
	a := d.exchange(te(d.checkout()))
	d.wantRefusal("panic", a, 500, "server_error")
	recs := d.recorder.of(a.decision())
	if len(recs) != 1 || recs[0].Outcome != audit.Failed || recs[0].Lease == nil || recs[0].Subject == nil {
		t.Errorf("recorded %+v", recs)
	}
}
