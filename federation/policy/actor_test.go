package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// delegating lets workloads of the repo edge act for those of shop.
func delegating() policy.Rule {
	r := allow("delegating", []string{"orders"}, []string{"read"}, anyRepo)
	r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: map[string]policy.Matcher{"repo": is(federation.String("edge"))}}
	return r
}

func TestNobodyActsForAnotherWithoutARuleThatSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	subject := w.workload(map[string]any{"repo": "shop"})
	edge := w.workload(map[string]any{"sub": "gateway", "repo": "edge"})
	other := w.workload(map[string]any{"sub": "gateway", "repo": "other"})
	nameless := w.workload(map[string]any{"sub": "gateway"})
	plain := allow("plain", []string{"orders"}, []string{"read"}, anyRepo)
	elsewhere := delegating()
	elsewhere.Actors = &policy.Workloads{TrustDomain: "dev.example", Issuer: "ci", Where: elsewhere.Actors.Where}
	for _, tc := range []struct {
		name  string
		rules []policy.Rule
		actor federation.Workload
		want  string
	}{
		{"no actor, plain rule", []policy.Rule{plain}, federation.Workload{}, "plain"},
		{"an actor, plain rule", []policy.Rule{plain}, edge, ""},
		{"the subject acts for itself, plain rule", []policy.Rule{plain}, subject, ""},
		{"no actor, delegating rule", []policy.Rule{delegating()}, federation.Workload{}, ""},
		{"its actor", []policy.Rule{delegating()}, edge, "delegating"},
		{"another actor", []policy.Rule{delegating()}, other, ""},
		{"an actor without the attribute", []policy.Rule{delegating()}, nameless, ""},
		{"an actor who holds a token of ours", []policy.Rule{delegating()}, w.ownWorkload("gateway", "call"), ""},
		{"an actor of another trust domain", []policy.Rule{elsewhere}, edge, ""},
		{"both rules, no actor", []policy.Rule{delegating(), plain}, federation.Workload{}, "plain"},
		{"both rules, an actor", []policy.Rule{plain, delegating()}, edge, "delegating"},
	} {
		f := w.facts(subject, "orders")
		f.Actor = tc.actor
		g, ok := compile(t, tc.rules...).Decide(f).Grant()
		if ok != (tc.want != "") || g.Rule() != tc.want || ok && g.Actor().ID() != tc.actor.ID() {
			t.Errorf("%s: rule %q for actor %q, want rule %q", tc.name, g.Rule(), g.Actor().ID(), tc.want)
		}
	}
}

func TestDenyRuleIsAboutWhoeverActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	deny := policy.Rule{Name: "no-prs", Effect: policy.Deny, Workloads: where(map[string]policy.Matcher{"ref": {Prefix: "refs/pull"}})}
	p := compile(t, delegating(), deny)
	for _, tc := range []struct {
		subject, actor string
		want           bool
	}{
		{"refs/heads/main", "refs/heads/main", true},
		{"refs/pull/1", "refs/heads/main", false},
		{"refs/heads/main", "refs/pull/1", false},
	} {
		f := w.facts(w.workload(map[string]any{"repo": "shop", "ref": tc.subject}), "orders")
		f.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "edge", "ref": tc.actor})
		d := p.Decide(f)
		if d.Allowed() != tc.want {
			t.Errorf("subject %s, actor %s: allowed is %v, want %v", tc.subject, tc.actor, d.Allowed(), tc.want)
		}
		if tc.actor == "refs/pull/1" && !strings.Contains(d.Reasons()[0], "denies the actor spiffe://prod.example/ci/w/gateway") {
			t.Errorf("reasons are %v, want the actor named", d.Reasons())
		}
	}
}

func TestGrantNeverOutlivesTheActorToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opened := delegating()
	opened.OutlivesSubject = true
	for name, r := range map[string]policy.Rule{"closed": delegating(), "outlives_subject": opened} {
		f := w.facts(w.workload(map[string]any{"repo": "shop"}), "orders")
		f.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "edge", "exp": w.now.Add(90 * time.Second).Unix()})
		g, ok := compile(t, r).Decide(f).Grant()
		if got := g.Expires().Sub(w.now); !ok || got != 90*time.Second {
			t.Errorf("%s: the grant lives %s, want the 90s of the actor token", name, got)
		}
	}
}

func TestNearestRuleSaysWhoMayAct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.facts(w.workload(map[string]any{"repo": "shop"}), "orders")
	edge := w.workload(map[string]any{"sub": "gateway", "repo": "edge"})
	other := w.workload(map[string]any{"sub": "gateway", "repo": "other"})
	for _, tc := range []struct {
		rule  policy.Rule
		actor federation.Workload
		want  policy.Near
	}{
		{delegating(), federation.Workload{}, policy.Near{Rule: "delegating", Claim: "actor", Expected: "a workload of prod.example/ci", Found: "nobody"}},
		{delegating(), other, policy.Near{Rule: "delegating", Claim: "actor.repo", Expected: "edge", Found: "other"}},
		{allow("plain", []string{"orders"}, nil, anyRepo), edge, policy.Near{Rule: "plain", Claim: "actor", Expected: "nobody", Found: "spiffe://prod.example/ci/w/gateway"}},
	} {
		f.Actor = tc.actor
		if near, ok := compile(t, tc.rule).Decide(f).Near(); !ok || near != tc.want {
			t.Errorf("nearest is %+v, want %+v", near, tc.want)
		}
	}
}
