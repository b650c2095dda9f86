package policy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
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

// delegated is the holder of a token that we minted for target, and in which the gateway acts.
func (w *world) delegated(target string) federation.Workload {
	w.t.Helper()
	c := w.self.Claims(w.now, "spiffe://prod.example/ci/w/app", "https://"+target+".example").With("client_id", "workload").
		With("act", map[string]any{"iss": own, "sub": "spiffe://prod.example/ci/w/gateway"}).
		With("scope", "read").With("sallyport", map[string]any{"family": "fam", "target": target, "position": "1.0"})
	who, err := w.trust.Identify(context.Background(), w.self.Sign(c, federationtest.WithHeader("typ", "at+jwt")), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

// Three ways to be known as an actor, and each rule asks for one: a platform's token, a token of ours for a target that
// is for this, and the word of the subject token. None passes for another.
func TestActorsAreKnownInTheWayTheRuleAsksFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gateway := w.workload(map[string]any{"sub": "gateway", "repo": "edge"})
	badge, call := w.ownWorkload("gateway", ""), w.ownWorkload("vault", "")
	shown := delegating()
	named := policy.Rule{
		Name: "named", Targets: []string{"orders"}, Scopes: []string{"read"}, ExchangeFrom: []string{"orders"}, Effect: policy.Allow,
		Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Actors: &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"},
	}
	badged := delegating()
	badged.Actors, badged.ActorsFrom = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, []string{"gateway"}
	subject, delegated := w.workload(map[string]any{"repo": "shop"}), w.delegated("orders")
	if delegated.Actor().IsZero() || !delegated.Actor().Token().Expires().IsZero() {
		t.Fatalf("actor of a delegated token: %+v", delegated.Actor())
	}
	for _, tc := range []struct {
		name           string
		rule           policy.Rule
		subject, actor federation.Workload
		want           bool
	}{
		{"a platform's token, asked for", shown, subject, gateway, true},
		{"ours, where a platform's is asked for", shown, subject, badge, false},
		{"ours, asked for", badged, subject, badge, true},
		{"ours for another target", badged, subject, call, false},
		{"a platform's, where ours is asked for", badged, subject, gateway, false},
		{"nobody, where ours is asked for", badged, subject, federation.Workload{}, false},
		{"named in the subject token", named, delegated, delegated.Actor(), true},
		{"a platform's, where the subject token is asked", named, delegated, gateway, false},
		{"ours, where the subject token is asked", named, delegated, badge, false},
		{"nobody, where the subject token is asked", named, delegated, federation.Workload{}, false},
	} {
		f := w.facts(tc.subject, "orders")
		f.Actor = tc.actor
		d := compile(t, tc.rule).Decide(f)
		if d.Allowed() != tc.want {
			t.Errorf("%s: allowed is %v, want %v: %v", tc.name, d.Allowed(), tc.want, d.Reasons())
		}
		if g, ok := d.Grant(); ok && !g.Expires().After(w.now) {
			t.Errorf("%s: granted until %s, which is over", tc.name, g.Expires())
		}
	}
}

// Who acts receives the credential: the target's owner has to agree to that trust domain too.
func TestActorsOfADomainThatTheTargetIsNotGrantableToDoNotLoad(t *testing.T) {
	t.Parallel()
	r := delegating()
	r.Actors.TrustDomain = "dev.example"
	list := targets()
	list[0].GrantableTo = []string{"prod.example"}
	_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: list, Rules: []policy.Rule{r}})
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "its owner must add dev.example") {
		t.Errorf("problems %v, want one about grantable_to", problems)
	}
}
