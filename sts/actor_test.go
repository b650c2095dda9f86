package sts_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// badge is the target whose tokens agents may present as actor tokens; they are for nothing else.
const badge = "badge"

// delegating adds rules by which agents (of ci) and helpers (of partner.example) act for checkout.
func delegating(w *world) {
	agent := func(td, issuer, team string) *policy.Workloads {
		out := &policy.Workloads{TrustDomain: td, Issuer: issuer}
		if team != "" {
			out.Where = map[string]policy.Matcher{"team": {OneOf: []federation.Value{federation.String(team)}}}
		}
		return out
	}
	acting := func(r policy.Rule, actors *policy.Workloads, from ...string) policy.Rule {
		r.Name += " by " + actors.Issuer
		if len(from) > 0 {
			r.Name += " with a badge"
		}
		r.Actors, r.ActorsFrom = actors, from
		return r
	}
	w.policy.Targets = append(w.policy.Targets, policy.Target{Name: badge, ResourceServers: []string{"spiffe://prod.example/cluster/gateway/*"}})
	checkout := allow("checkout-orders-acted", "prod.example", "cluster", "checkout", "orders", 10*time.Minute, "read")
	w.policy.Rules = append(w.policy.Rules,
		acting(checkout, agent("prod.example", "ci", "agent")),
		acting(checkout, agent("prod.example", "ci", ""), badge),
		acting(allow("checkout-plain-acted", "prod.example", "cluster", "checkout", "plain", 0), agent("partner.example", "cluster", "helper")),
		acting(onward("orders-acted", "orders", "orders", "read"), agent("prod.example", "ci", "")), // named in the subject token
		acting(onward("orders-helped", "orders", "orders", "read"), agent("partner.example", "cluster", "helper")),
		acting(onward("orders-acted-again", "orders", "orders", "read"), agent("prod.example", "ci", "agent")),
		acting(onward("orders-acted", "orders", "orders", "read"), agent("prod.example", "ci", ""), badge),
		acting(onward("orders-archive", "orders", "archive", "read"), agent("prod.example", "ci", "")),
		allow("agent-badge", "prod.example", "ci", "agent", badge, 0),
		allow("agent-orders", "prod.example", "ci", "agent", "orders", 0, "read"),
	)
	again := onward("badge-again", badge, badge)
	again.Workloads.Issuer = "ci"
	w.policy.Rules = append(w.policy.Rules, again)
	for i := range w.policy.Rules {
		w.policy.Rules[i].Name = w.policy.Rules[i].Name + string(rune('a'+i%26)) // unique
	}
}

func (d *deployment) agent(name string, change ...func(federationtest.Claims)) string {
	return d.sign(d.ci, "agent/"+name, "agent", change...)
}

func (d *deployment) helper(change ...func(federationtest.Claims)) string {
	return d.sign(d.partner, "agent/one", "helper", change...)
}

// acted exchanges for target with an actor token; no actor token when it is "".
func (d *deployment) acted(subject, actor, target string) answer {
	form := te(subject, "audience", target)
	if actor != "" {
		form = te(subject, "audience", target, "actor_token", actor, "actor_token_type", jwtType)
	}
	return d.exchange(form)
}

// acts is the act claim of a token in which these act, the current one first.
func (d *deployment) acts(paths ...string) any {
	var out any
	for _, p := range slices.Backward(paths) {
		level := map[string]any{"iss": d.issuer, "sub": "spiffe://" + p}
		if out != nil {
			level["act"] = out
		}
		out = level
	}
	return out
}

// Who acts stands in the token: the current actor outermost, the oldest innermost, each by its whole name and nothing
// else; who is acted for stays who it is. Without an actor token the chain is carried on, and introspection and the
// record show it. // standards 1.41, 1.42, 1.43, 1.46, 1.50, failures 18
func TestTokenSaysWhoActs(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	caller := d.gateway()
	const agent, helper = "prod.example/ci/agent/one", "partner.example/cluster/agent/one"
	first := d.issued(d.acted(d.checkout(), d.agent("one", set("scope", "admin"), set("client_id", "root"), set("roles", []string{"x"})), "orders"))
	helped := d.issued(d.acted(first.token, d.helper(), "orders"))
	for _, tc := range []struct {
		name string
		m    minted
		act  any
	}{
		{"nobody acts", d.mint(d.checkout(), "orders"), nil},
		{"an agent", first, d.acts(agent)},
		{"the agent shows itself again", d.issued(d.acted(first.token, d.agent("one"), "orders")), d.acts(agent)},
		{"carried on", d.issued(d.acted(first.token, "", "orders")), d.acts(agent)},
		{"carried on to another target", d.issued(d.acted(first.token, "", "archive")), d.acts(agent)},
		{"its namesake of another domain, for the agent", helped, d.acts(helper, agent)},
		{"another agent", d.issued(d.acted(first.token, d.agent("two"), "orders")), d.acts("prod.example/ci/agent/two", agent)},
		{"with a badge", d.issued(d.acted(d.checkout(), d.mint(d.agent("one"), badge).token, "orders")), d.acts(agent)},
	} {
		if got := tc.m.claims["act"]; mustJSON(got) != mustJSON(tc.act) {
			t.Errorf("%s: act %s, want %s", tc.name, mustJSON(got), mustJSON(tc.act))
		}
		if tc.m.claims["sub"] != "spiffe://prod.example/cluster/checkout/api" || tc.m.claims["client_id"] != "workload" || tc.m.claims["may_act"] != nil {
			t.Errorf("%s: sub %v, client_id %v, may_act %v", tc.name, tc.m.claims["sub"], tc.m.claims["client_id"], tc.m.claims["may_act"])
		}
		if got := d.introspect(caller, tc.m.token); got["active"] != true || mustJSON(got["act"]) != mustJSON(tc.act) {
			t.Errorf("%s: introspection says %s", tc.name, mustJSON(got))
		}
	}
	rec := d.recorder.of(first.decision)[0]
	if rec.Actor == nil || rec.Actor.Workload != "spiffe://"+agent || rec.Actor.TokenID == "" || !slices.Equal(rec.Lease.Actors, []string{"spiffe://" + agent}) {
		t.Errorf("recorded actor %+v, lease %+v", rec.Actor, rec.Lease)
	}
	// Nobody comes back into a chain, and nobody who acts for another lends itself as an actor.
	d.refused("a circle", 400, "invalid_request", func() answer { return d.acted(helped.token, d.agent("one"), "orders") })
	d.refused("an actor token with act", 400, "invalid_request", func() answer { return d.acted(d.checkout(), first.token, "orders") })
}

// Rules look at the current actor and at no other. // standards 1.44
func TestOnlyTheCurrentActorCounts(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating, func(w *world) {
		w.policy.Rules = append(w.policy.Rules, policy.Rule{
			Name: "no-agents", Source: "policy/test.yaml:99", Effect: policy.Deny, Targets: []string{"billing"}, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"},
		})
		helped := onward("orders-billing-helped", "orders", "billing", "read")
		helped.Actors = &policy.Workloads{TrustDomain: "partner.example", Issuer: "cluster"}
		agents := onward("orders-billing-agents", "orders", "billing", "read")
		agents.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}
		w.policy.Rules = append(w.policy.Rules, helped, agents)
	})
	byAgent := d.issued(d.acted(d.checkout(), d.agent("one"), "orders"))
	byHelper := d.issued(d.acted(byAgent.token, d.helper(), "orders")) // for the agent
	d.refused("denied: the current actor", 400, "invalid_target", func() answer { return d.acted(byAgent.token, "", "billing") })
	d.issued(d.acted(byHelper.token, "", "billing")) // the rule denies the agent, who is only remembered
	d.issued(d.acted(byAgent.token, "", "archive"))  // the rule is for agents
	d.refused("allowed: one who is only remembered", 400, "invalid_target", func() answer { return d.acted(byHelper.token, "", "archive") })
	alone := d.mint(d.checkout(), "orders")
	d.refused("nobody acts, where somebody must", 400, "invalid_target", func() answer { return d.acted(alone.token, "", "archive") })
}

// may_act lets the party that it names act, where a rule agrees, and nobody else. // standards 1.47
func TestMayActNamesWhoMay(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	agent := set("may_act", map[string]any{"iss": "https://ci.example", "sub": "agent/one", "email": "x@example"})
	m := d.issued(d.acted(d.checkout(agent), d.agent("one"), "orders"))
	if mustJSON(m.claims["act"]) != mustJSON(d.acts("prod.example/ci/agent/one")) || m.claims["may_act"] != nil {
		t.Errorf("act %s, may_act %v", mustJSON(m.claims["act"]), m.claims["may_act"])
	}
	d.refused("another agent", 400, "invalid_request", func() answer { return d.acted(d.checkout(agent), d.agent("two"), "orders") })
	d.refused("its sub at another issuer", 400, "invalid_request", func() answer { return d.acted(d.checkout(agent), d.helper(), "plain") })
	shown := d.mint(d.agent("one"), badge)
	d.refused("its badge: another token, by another iss", 400, "invalid_request", func() answer { return d.acted(d.checkout(agent), shown.token, "orders") })
	d.refused("allowed by the token, not by a rule", 400, "invalid_target", func() answer { return d.acted(d.checkout(agent), d.agent("one"), "plain") })
}

// A token minted for two ends with whichever token ends first, and so does what comes of it. // standards 1.34
func TestDelegatedTokenEndsWithTheFirstOfBoth(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	exp := func(in time.Duration) func(federationtest.Claims) { return set("exp", d.clock.now().Add(in).Unix()) }
	for _, tc := range []struct {
		name           string
		subject, actor time.Duration
		want           float64
	}{
		{"subject first", 40 * time.Second, 100 * time.Second, 40},
		{"actor first", 100 * time.Second, 40 * time.Second, 40},
		{"the rule first", 30 * time.Minute, 30 * time.Minute, 600},
		{"one second", time.Minute, time.Second, 1},
	} {
		m := d.issued(d.acted(d.checkout(exp(tc.subject)), d.agent("one", exp(tc.actor)), "orders"))
		if m.response["expires_in"] != tc.want {
			t.Errorf("%s: expires_in %v, want %v", tc.name, m.response["expires_in"], tc.want)
		}
		if child := d.issued(d.acted(m.token, "", "orders")); child.response["expires_in"].(float64) > tc.want {
			t.Errorf("%s: carried on for %v s", tc.name, child.response["expires_in"])
		}
	}
	d.refused("actor expired within the skew", 400, "invalid_request", func() answer {
		return d.acted(d.checkout(), d.agent("one", exp(-10*time.Second)), "orders")
	})
}

// A delegated token hangs on the tokens of both, and dies with either, as does all that comes of it; its own death is
// nobody else's. // failures 18
func TestDelegatedTokenDiesWithEitherParent(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	caller := d.gateway()
	for _, victim := range []string{"subject", "actor", "actor's parent", "itself"} {
		subject := d.mint(d.checkout(), "orders")
		issued := d.mint(d.agent("one"), badge)
		actor := d.mint(issued.token, badge)
		delegated := d.issued(d.acted(subject.token, actor.token, "orders"))
		carried := d.issued(d.acted(delegated.token, "", "orders"))
		family, ancestors := lineageOf(carried)
		slices.Sort(ancestors)
		if want := slices.Sorted(slices.Values([]string{subject.decision, issued.decision, actor.decision, delegated.decision})); family != subject.decision || !slices.Equal(ancestors, want) {
			t.Errorf("%s: family %s, ancestors %v, want %s, %v", victim, family, ancestors, subject.decision, want)
		}
		d.killed(map[string]minted{"subject": subject, "actor": actor, "actor's parent": issued, "itself": delegated}[victim].token)
		for name, tc := range map[string]struct {
			m     minted
			alive bool
		}{
			"subject": {subject, victim != "subject"}, "actor": {actor, victim == "subject" || victim == "itself"},
			"actor's parent": {issued, victim != "actor's parent"}, "delegated": {delegated, false}, "carried": {carried, false},
		} {
			if got := d.active(caller, tc.m.token); got != tc.alive {
				t.Errorf("%s revoked: %s is alive: %v, want %v", victim, name, got, tc.alive)
			}
		}
		if victim == "actor" {
			d.refused("a dead actor", 400, "invalid_request", func() answer { return d.acted(d.checkout(), actor.token, "orders") })
		}
	}
}

// An actor that dies while the broker works takes the credential with it.
func TestActorRevokedDuringTheMintWithdraws(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	actor := d.mint(d.agent("one"), badge)
	real := d.state.Brokers["orders"]
	d.world.brokers["orders"] = brokerFunc(func(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
		c, err := real.Mint(ctx, o)
		d.killed(actor.token)
		return c, err
	})
	d.exchanger.Swap(d.build(d.world, "killing"))
	a := d.acted(d.checkout(), actor.token, "orders")
	d.wantRefusal("withdrawn", a, 400, "invalid_request")
	if recs := d.recorder.of(a.decision()); len(recs) != 1 || recs[0].Outcome != audit.Withdrawn {
		t.Errorf("recorded %+v, want one withdrawn lease", recs)
	}
}

// Tokens minted here are actor tokens only where a rule says so: whoever serves a target holds its callers' tokens, and
// must not be able to act as one of them. // standards 4.22, failures 18
func TestReceivedTokenIsNoActorToken(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	received, subject, shown := d.mint(d.agent("one"), "orders"), d.mint(d.checkout(), "orders"), d.mint(d.agent("one"), badge)
	d.refused("a caller's token", 400, "invalid_target", func() answer { return d.acted(d.checkout(), received.token, "orders") })
	d.refused("for another caller's token", 400, "invalid_target", func() answer { return d.acted(subject.token, received.token, "orders") })
	d.issued(d.acted(d.checkout(), shown.token, "orders"))
	d.refused("a badge, where a platform's token is asked for", 400, "invalid_target", func() answer { return d.acted(d.checkout(), shown.token, "plain") })
}

// A single-use actor token acts once at each target. When it was used, the subject token is not. // standards 4.31
func TestSingleUseActorTokenActsOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating, func(w *world) { w.issuers[0].SingleUse, w.issuers[1].SingleUse = true, true })
	used, subject := d.agent("one"), d.checkout()
	d.issued(d.acted(d.checkout(), used, "orders"))
	a := d.refused("second use", 400, "invalid_request", func() answer { return d.acted(subject, used, "orders") })
	if rec := d.recorder.of(a.decision())[0]; rec.Signal != audit.SignalReuse {
		t.Errorf("the second use is recorded with signal %q", rec.Signal)
	}
	m := d.issued(d.acted(subject, d.agent("one"), "orders"))
	d.refused("the subject token, used now", 400, "invalid_request", func() answer { return d.acted(subject, d.agent("one"), "orders") })
	d.issued(d.acted(m.token, "", "orders")) // carried: there is no actor token to use up
	d.issued(d.acted(m.token, "", "orders"))
}

// Policy is asked each time, for these two tokens: what one pair was granted helps no other, nor the same one after a
// reload. // failures 22
func TestEachExchangeIsDecidedAnew(t *testing.T) {
	t.Parallel()
	d := deploy(t, delegating)
	subject, actor := d.checkout(), d.agent("one")
	for range 3 {
		d.issued(d.acted(subject, actor, "orders"))
	}
	stranger := d.sign(d.cluster, "checkout/api", "interns") // the same workload id, another team
	idler := d.sign(d.ci, "agent/one", "interns")
	d.refused("another subject", 400, "invalid_target", func() answer { return d.acted(stranger, actor, "orders") })
	d.refused("another actor", 400, "invalid_target", func() answer { return d.acted(subject, idler, "orders") })
	d.refused("the two the other way round", 400, "invalid_target", func() answer { return d.acted(actor, subject, "orders") })
	w := *d.world
	w.policy.Rules = slices.DeleteFunc(slices.Clone(w.policy.Rules), func(r policy.Rule) bool { return r.Actors != nil })
	d.exchanger.Swap(d.build(&w, "config-2"))
	d.refused("the rule is gone", 400, "invalid_target", func() answer { return d.acted(subject, actor, "orders") })
	d.mint(subject, "orders")
}
