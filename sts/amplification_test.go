package sts_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// A broker that makes more than was granted is a fault of ours, and nothing of it leaves. // failures 15, 25
func TestBrokerThatAmplifiesIsStopped(t *testing.T) {
	t.Parallel()
	const marker = "a-credential-that-must-not-leave-this-process"
	for name, change := range map[string]func(*brokers.Credential){
		"a second too long":   func(c *brokers.Credential) { c.Expires = c.Expires.Add(time.Second) },
		"a nanosecond more":   func(c *brokers.Credential) { c.Expires = c.Expires.Add(1) },
		"for ever":            func(c *brokers.Credential) { c.Expires = time.Time{} },
		"another scope":       func(c *brokers.Credential) { c.Scopes = []string{"admin"} },
		"one scope more":      func(c *brokers.Credential) { c.Scopes = append(c.Scopes, "admin") },
		"scope in other case": func(c *brokers.Credential) { c.Scopes = []string{"READ"} },
		"an empty credential": func(c *brokers.Credential) { c.Value = secret.Value{} },
		"for another target":  func(c *brokers.Credential) { c.Audience = "billing" },
		"for a name like it":  func(c *brokers.Credential) { c.Audience = "Orders" },
		"a bearer for nobody": func(c *brokers.Credential) { c.Audience = "" },
		"a token of ours for another target": func(c *brokers.Credential) {
			c.Fingerprint, c.Audience = "f", "billing"
		},
		"a token of ours for its name, where its aud is another": func(c *brokers.Credential) { c.Fingerprint = "f" },
		"a token of ours for nobody":                             func(c *brokers.Credential) { c.Fingerprint, c.Audience, c.TokenType = "f", "", "N_A" },
	} {
		d := deploy(t, func(w *world) {
			w.brokers["orders"] = brokerFunc(func(_ context.Context, o brokers.Order) (brokers.Credential, error) {
				c := brokers.Credential{
					Type: accessType, TokenType: "Bearer", Value: secret.New(marker), Audience: "orders",
					Scopes: o.Grant().Scopes(), Expires: o.Grant().Expires(),
				}
				change(&c)
				return c, nil
			})
		})
		a := d.exchange(te(d.checkout(), "scope", "read"))
		d.wantRefusal(name, a, 500, "server_error")
		recs := d.recorder.of(a.decision())
		if len(recs) != 1 || recs[0].Outcome != audit.Failed || recs[0].Lease != nil || recs[0].Granted == nil {
			t.Errorf("%s: recorded %+v, want one failed attempt that was granted", name, recs)
		}
		if d.recorder.count(audit.Issued) != 0 {
			t.Errorf("%s: recorded as issued", name)
		}
	}
}

// What was configured for one target and stands where another's broker belongs would sign tokens for the wrong one.
func TestBrokerOfAnotherTargetIsStopped(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	state := d.build(d.world, "config-2")
	state.Brokers["orders"] = state.Brokers["billing"]
	d.exchanger.Swap(state)
	d.wantRefusal("the broker of billing at orders", d.exchange(te(d.checkout(), "scope", "read")), 500, "server_error")
	if d.recorder.count(audit.Issued) != 0 {
		t.Error("recorded as issued")
	}
}

// A broker that makes exactly what was granted, or less, is believed; less is said. // standards 1.23
func TestBrokerMayMakeLess(t *testing.T) {
	t.Parallel()
	d := deploy(t, func(w *world) {
		w.brokers["orders"] = brokerFunc(func(_ context.Context, o brokers.Order) (brokers.Credential, error) {
			return brokers.Credential{
				Type: "urn:example:lease", TokenType: "N_A", Value: secret.New("0123456789abcdef0123"), Scopes: []string{"read"},
				Expires: o.Grant().Expires().Add(-time.Minute),
			}, nil
		})
	})
	a := d.exchange(te(d.checkout(), "scope", "read write"))
	want := `{"access_token":"0123456789abcdef0123","issued_token_type":"urn:example:lease","token_type":"N_A","expires_in":540,"scope":"read"}`
	if a.status != 200 || a.body != want { // standards 1.31
		t.Errorf("answer %d %s, want %s", a.status, a.body, want)
	}
}

// A target's upstream that is down is worth a retry, and only after an allow; any other fault is ours.
func TestBrokerThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"upstream down": {fmt.Errorf("dialling db.internal: %w", brokers.ErrUnavailable), 503, "temporarily_unavailable"},
		"anything else": {fmt.Errorf("password authentication failed for user admin"), 500, "server_error"},
		"no grant":      {brokers.ErrZeroOrder, 500, "server_error"},
	} {
		d := deploy(t, func(w *world) {
			w.brokers["orders"] = brokerFunc(func(context.Context, brokers.Order) (brokers.Credential, error) {
				return brokers.Credential{}, tc.err
			})
		})
		a := d.exchange(te(d.checkout()))
		d.wantRefusal(name, a, tc.status, tc.code)
		if recs := d.recorder.of(a.decision()); len(recs) != 1 || recs[0].Outcome != audit.Failed || recs[0].Reason == "" {
			t.Errorf("%s: recorded %+v, want one failure with its reason", name, recs)
		}
		if d.refused("not granted", 400, "invalid_scope", func() answer { return d.exchange(te(d.checkout(), "scope", "admin")) }); d.mints.Load() != 1 {
			t.Errorf("%s: %d calls of the broker, want one: only after an allow", name, d.mints.Load())
		}
	}
}

// A target that policy grants and nobody can serve is a fault of ours.
func TestTargetWithoutBrokerIsAFault(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	state := d.build(d.world, "config-2")
	delete(state.Brokers, "orders")
	d.exchanger.Swap(state)
	d.refused("no broker", 500, "server_error", func() answer { return d.exchange(te(d.checkout())) })
}
