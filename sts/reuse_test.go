package sts_test

import (
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// reusing is a deployment whose target fruit may give a credential to more than one exchange.
func reusing(t *testing.T) *outside {
	t.Helper()
	d := deployOutside(t, lease.Limits{}, func(w *world) {
		w.policy.Rules = append(w.policy.Rules, allow("ci-fruit", "prod.example", "cluster", "ci", "fruit", 10*time.Minute, "pick"))
	})
	d.reload("config-1", func(*policy.Config) {})
	return d
}

// reload puts a changed policy in force, with the target reused.
func (d *outside) reload(hash string, change func(*policy.Config)) {
	d.t.Helper()
	w := *d.world
	w.policy.Rules = append([]policy.Rule(nil), w.policy.Rules...)
	change(&w.policy)
	d.state = d.build(&w, hash)
	d.state.Reuse = map[string]bool{"fruit": true}
	d.exchanger.Swap(d.state)
}

// The same workload, asking again for the same, may have the credential that it has; each exchange is decided and on record.
func TestReusedCredentialIsDecidedAndRecordedEachTime(t *testing.T) {
	t.Parallel()
	d := reusing(t)
	token, first := d.pick(d.checkout())
	again, second := d.pick(d.checkout())
	if again != token || d.orchard.count() != 1 || d.leases() != 2 || first.decision() == second.decision() {
		t.Fatalf("%d credentials, %d leases", d.orchard.count(), d.leases())
	}
	a, b := d.recorder.of(first.decision()), d.recorder.of(second.decision())
	if len(a) != 1 || len(b) != 1 || a[0].Lease.Fingerprint == "" || a[0].Lease.Fingerprint != b[0].Lease.Fingerprint || b[0].Lease.Expires.After(d.clock.now().Add(10*time.Minute)) {
		t.Errorf("recorded: %+v and %+v", a, b)
	}
	// Without the setting, as by default, each has its own.
	d.exchanger.Swap(&sts.State{Trust: d.state.Trust, Policy: d.state.Policy, Brokers: d.state.Brokers, Hash: d.state.Hash})
	if own, _ := d.pick(d.checkout()); own == token {
		t.Error("a credential is reused though nobody asked for it")
	}
}

// Attack: a workload gets, by a credential that is reused, what policy refuses it now, or what is another's.
func TestReusedCredentialGoesToNobodyElse(t *testing.T) {
	t.Parallel()
	d := reusing(t)
	token, _ := d.pick(d.checkout())
	if other, _ := d.pick(d.sign(d.cluster, "ci/runner", "ci")); other == token {
		t.Error("another workload has it")
	}
	if other, _ := d.pick(d.sign(d.cluster, "checkout/other", "checkout")); other == token {
		t.Error("another workload of the same rule has it")
	}
	d.reload("config-2", func(*policy.Config) {})
	if other, _ := d.pick(d.checkout()); other == token {
		t.Error("another configuration has it")
	}
	soon := d.checkout(set("exp", d.clock.now().Add(2*time.Minute).Unix()))
	if other, _ := d.pick(soon); other == token {
		t.Error("a subject token that ends sooner has it")
	}
	d.reload("config-3", func(c *policy.Config) {
		c.Rules = append(c.Rules, policy.Rule{Name: "no-fruit", Source: "policy/test.yaml:3", Effect: policy.Deny, Targets: []string{"fruit"}, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster"}})
	})
	d.wantRefusal("what policy refuses now", d.exchange(te(d.checkout(), "audience", "fruit")), 400, "invalid_target")
}

// Revoking one exchange kills the credential for all that have it, and nobody has it afterwards.
func TestReusedCredentialDiesForAll(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(d *outside, token string, second answer){
		"its holder": func(d *outside, token string, _ answer) { d.killed(token) },
		"an operator": func(d *outside, _ string, second answer) {
			_, ask := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
			if a := ask("POST", "/admin/v1/revocations", `{"selector":["lease=`+second.decision()+`"],"reason":"stolen"}`); a.status != 200 {
				d.t.Fatalf("%d %s", a.status, a.body)
			}
		},
		"an operator, by the subject": func(d *outside, _ string, _ answer) {
			_, ask := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
			if a := ask("POST", "/admin/v1/revocations", `{"selector":["subject=spiffe://prod.example/cluster/checkout/api"],"reason":"stolen"}`); a.status != 200 {
				d.t.Fatalf("%d %s", a.status, a.body)
			}
		},
	} {
		d := reusing(t)
		token, _ := d.pick(d.checkout())
		d.clock.advance(time.Second)
		_, second := d.pick(d.checkout())
		kill(d, token, second)
		if d.orchard.count() != 0 {
			t.Errorf("%s: it is alive", name)
		}
		d.clock.advance(time.Minute)
		if next, _ := d.pick(d.checkout()); next == token {
			t.Errorf("%s: the dead credential is given to another", name)
		}
	}
}

// Attack: a shared credential is asked for once more after what one of its sharers descends from was revoked.
func TestSharedCredentialGoesWithWhatEachSharerDescendsFrom(t *testing.T) {
	t.Parallel()
	for name, unkillable := range map[string]bool{"killed": false, "it cannot be killed": true} {
		d := deployOutside(t, lease.Limits{})
		d.reload("config-1", func(*policy.Config) {})
		first, second := d.mint(d.checkout(), "orders"), d.mint(d.checkout(), "orders")
		token, _ := d.pick(first.token)
		if again, _ := d.pick(second.token); again != token {
			t.Fatal("it is not shared, and the test shows nothing")
		}
		if unkillable {
			d.orchard.mu.Lock()
			d.orchard.dies = d.clock.now().Add(10 * time.Minute)
			d.orchard.mu.Unlock()
		}
		operate(t, d.deployment).revokes("lease=" + second.decision)
		if next, _ := d.pick(first.token); next == token {
			t.Errorf("%s: it is given out again", name)
		}
	}
}
