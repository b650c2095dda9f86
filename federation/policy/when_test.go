package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// conditional is an allow rule for whoever has a repo, with a condition.
func conditional(when string) policy.Rule {
	r := allow("conditional", []string{"orders"}, []string{"read"}, anyRepo)
	r.When = when
	return r
}

func denying(when string) policy.Rule {
	return policy.Rule{Name: "denying", Source: "policy/d.yaml:1", Effect: policy.Deny, Workloads: where(nil), When: when}
}

func TestConditionsReadTypedFacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.now = time.Date(2026, 1, 5, 9, 30, 0, 0, time.UTC) // a Monday
	who := w.workload(map[string]any{"repo": "shop", "ref": "refs/heads/main", "id": 99, "protected": true, "groups": []string{"dev", "release"}})
	for _, tc := range []struct {
		when string
		want bool
	}{
		{"workload.attr.ref == 'refs/heads/main'", true},
		{"workload.attr.id == 99 && workload.attr.protected", true},
		{"workload.attr.id + 1 == 99", false},
		{"'release' in workload.attr.groups", true},
		{"workload.attr.groups.exists(g, g.startsWith('rel'))", true},
		{"workload.attr.groups.all(g, g == 'dev')", false},
		{"workload.id == 'spiffe://prod.example/ci/w/app' && workload.trust_domain == 'prod.example' && workload.issuer == 'ci'", true},
		{"target.name == 'orders' && target.resource == 'https://orders.example/'", true},
		{"request.scopes == ['read']", true},
		{"env.time.getDayOfWeek('UTC') in [1, 2, 3, 4, 5]", true},
		{"env.time.getDayOfWeek('UTC') in [0, 6]", false},
		{"env.time.getHours('+02:00') == 11", true},
		{"env.time < timestamp('2026-02-01T00:00:00Z')", true},
		{"cidr('10.0.0.0/8').containsIP(env.source_ip)", true},
		{"cidr('192.168.0.0/16').containsIP(env.source_ip)", false},
		{"env.source_ip == ip('10.1.2.3')", true},
	} {
		f := w.facts(who, "orders")
		f.Address = netip.MustParseAddr("::ffff:10.1.2.3") // as a listener on both families sees IPv4
		if got := compile(t, conditional(tc.when)).Decide(f).Allowed(); got != tc.want {
			t.Errorf("%s: allowed is %v, want %v", tc.when, got, tc.want)
		}
	}
}

// CEL lets `absent || true` and `broken || true` be true. Here nothing that is missing or broken helps to open a
// door, on whichever side of an operator it stands.
func TestNothingMissingOrBrokenHelpsAnAllowRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.workload(map[string]any{"repo": "shop", "groups": []string{"a", "b"}})
	for _, when := range []string{
		"workload.attr.ref == 'x'",
		"workload.attr.ref != 'x'",
		"workload.attr.ref == 'x' || true",
		"true || workload.attr.ref == 'x'",
		"workload.attr.repo == 'shop' || workload.attr.ref == 'x'",
		"!(workload.attr.ref == 'x' && false)",
		"!(false && workload.attr.ref == 'x')",
		"true ? true : workload.attr.protected",
		"['x'].exists(x, x == 'x' || x == workload.attr.ref)",
		"env.source_ip == ip('10.0.0.1') || true",
		"true || env.source_ip.isLoopback()",
		"1 / (workload.attr.groups.size() - 2) == 0 || true",
		"int(workload.attr.repo) == 1 || true",
		"!(int(workload.attr.repo) == 1 && false)",
		"workload.attr.groups[7] == 'x' || true",
		"workload.attr.groups.exists(g, int(g) == 1 || true)",
		"workload.attr.groups.exists(g, g == 'b' || int(g) == 1)",
		"!workload.attr.groups.all(g, g != 'a' && int(g) == 1 || int(g) == 2)",
		"timestamp(workload.attr.repo) < env.time || true",
		"duration(workload.attr.repo) < duration('1m') || true",
	} {
		d := compile(t, conditional(when)).Decide(w.facts(who, "orders"))
		if d.Allowed() {
			t.Errorf("%s: allowed", when)
		}
		if near, ok := d.Near(); !ok || near.Claim != "when" || near.Found == "" || near.Found == "false" {
			t.Errorf("%s: nearest is %+v, want what is missing or broken", when, near)
		}
		if d := compile(t, allow("a", []string{"orders"}, []string{"read"}, anyRepo), denying(when)).Decide(w.facts(who, "orders")); d.Allowed() || d.Refusal() != policy.RefusedTarget {
			t.Errorf("%s: a deny rule with it does not match: %v", when, d.Reasons())
		}
	}
}

func TestDenyRuleWithAConditionDeniesOnlyWhereItHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("a", []string{"orders"}, []string{"read"}, anyRepo), denying("workload.attr.ref.startsWith('refs/pull/')"))
	for ref, want := range map[string]bool{"refs/heads/main": true, "refs/pull/7": false} {
		if got := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop", "ref": ref}), "orders")).Allowed(); got != want {
			t.Errorf("%s: allowed is %v, want %v", ref, got, want)
		}
	}
	d := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop"}), "orders"))
	if d.Allowed() || !strings.Contains(d.Reasons()[0], "workload.attr.ref is absent") {
		t.Errorf("absent ref: %v, want a refusal that says so", d.Reasons())
	}
}

// A caller who asks for no scope gets those of the rule; a deny rule about a scope must see them.
func TestDenyRuleSeesTheScopesThatWouldBeGranted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("a", []string{"orders"}, []string{"read", "write"}, anyRepo), denying("'write' in request.scopes"))
	who := w.workload(map[string]any{"repo": "shop"})
	if p.Decide(w.facts(who, "orders")).Allowed() {
		t.Error("asking for nothing got write")
	}
	if p.Decide(w.facts(who, "orders", "write")).Allowed() {
		t.Error("asking for write got it")
	}
	if !p.Decide(w.facts(who, "orders", "read")).Allowed() {
		t.Error("asking for read is refused")
	}
}

func TestConditionOverEveryIssuerKnowsNoAttributes(t *testing.T) {
	t.Parallel()
	every := policy.Rule{Name: "d", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example"}}
	for when, loads := range map[string]bool{
		"workload.id.endsWith('/root')": true, "workload.issuer == 'ci'": true, "workload.trust_domain == 'x'": true,
		"workload.attr.repo == 'x'": false, "workload.issuer == 1": false,
	} {
		every.When = when
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{every}})
		if (len(problems) == 0) != loads {
			t.Errorf("%s: problems are %v, want loading to be %v", when, problems, loads)
		}
	}
}

// What a condition can cost is bounded, whatever a claim holds.
func TestConditionThatCostsTooMuchIsNoMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	groups := make([]string, 200)
	for i := range groups {
		groups[i] = fmt.Sprint("group-", i)
	}
	who := w.workload(map[string]any{"repo": "shop", "groups": groups})
	const costly = "workload.attr.groups.all(a, workload.attr.groups.all(b, workload.attr.groups.all(c, a + b + c != 'x')))"
	d := compile(t, conditional(costly)).Decide(w.facts(who, "orders"))
	if near, _ := d.Near(); d.Allowed() || !strings.Contains(near.Found, "cost limit") {
		t.Errorf("allowed is %v, nearest is %+v; want a refusal for its cost", d.Allowed(), near)
	}
	if compile(t, allow("a", []string{"orders"}, nil, anyRepo), denying(costly)).Decide(w.facts(who, "orders")).Allowed() {
		t.Error("a deny rule that costs too much does not match")
	}
	if !compile(t, conditional("workload.attr.groups.all(a, a.startsWith('group-'))")).Decide(w.facts(who, "orders")).Allowed() {
		t.Error("one loop over 200 elements costs too much")
	}
}

func TestConditionsAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, conditional("workload.attr.id == 1 && workload.attr.groups.exists(g, g == 'x')"))
	yes := w.facts(w.workload(map[string]any{"repo": "shop", "id": 1, "groups": []string{"x"}}), "orders")
	no := w.facts(w.workload(map[string]any{"repo": "shop", "id": 2, "groups": []string{"x"}}), "orders")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if !p.Decide(yes).Allowed() || p.Decide(no).Allowed() {
					t.Error("a decision depends on another one")
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestBadConditionsDoNotLoad(t *testing.T) {
	t.Parallel()
	for when, says := range map[string]string{
		"workload.attr.repoo == 'x'":                         "did you mean repo?",
		"workload.repo == 'x'":                               "workload.attr.repo",
		"workload.attr.repo":                                 "must be true or false",
		"workload.attr.repo == 1":                            "no matching overload",
		"has(workload.attr.repo)":                            "has() is left out",
		"dyn(workload).x == 1":                               "dyn() is left out",
		"workload.attr.repo.matches('a|b')":                  "no regular expressions",
		"actor.id == 'x'":                                    "actors block",
		"cidr('10.0.0.0/99').containsIP(env.source_ip)":      "invalid cidr",
		"env.time.getHours('Mars/Base') == 1":                "time zone",
		"env.time.getHours(workload.id) == 1":                "written out",
		"[1, 'a'].size() == 2":                               "expected type",
		"workload.attr.repo == 'x' &&":                       "Syntax error",
		"workload.id == '" + strings.Repeat("x", 5000) + "'": "at most 4096",
	} {
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{conditional(when)}})
		if len(problems) == 0 || problems[0].Path != "when" || !strings.Contains(problems[0].Message, says) {
			t.Errorf("%.60s: problems are %v, want one of when that says %q", when, problems, says)
		}
	}
}

func TestConditionSeesTheActorOfItsRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := conditional("actor.attr.id == 7 && actor.id == 'spiffe://prod.example/ci/w/gateway' && workload.attr.id == 1")
	r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: map[string]policy.Matcher{"repo": is(federation.String("edge"))}}
	p := compile(t, r)
	f := w.facts(w.workload(map[string]any{"repo": "shop", "id": 1}), "orders")
	for id, want := range map[int]bool{7: true, 8: false} {
		f.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "edge", "id": id})
		if got := p.Decide(f).Allowed(); got != want {
			t.Errorf("actor %d: allowed is %v, want %v", id, got, want)
		}
	}
	f.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "edge"})
	if d := p.Decide(f); d.Allowed() {
		t.Error("an actor without the attribute is allowed")
	} else if near, _ := d.Near(); near.Found != "actor.attr.id is absent" {
		t.Errorf("nearest is %+v, want the absent attribute", near)
	}
}

// A thousand clusters are issuers of one kind: their conditions are compiled once, and not in a thousand environments of
// CEL. What is wrong is still said of the issuer at hand.
func TestIssuersWithTheSameAttributesShareConditions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := federation.Schema{{Name: "repo", Type: federation.TypeString}, {Name: "id", Type: federation.TypeString}}
	cfg := policy.Config{Targets: []policy.Target{{Name: "orders", Scopes: []string{"read"}}}}
	add := func(issuer string, s federation.Schema, when string) {
		cfg.Issuers = append(cfg.Issuers, policy.Issuer{TrustDomain: "prod.example", Name: issuer, Schema: s})
		cfg.Rules = append(cfg.Rules, policy.Rule{Name: "rule-" + issuer, Effect: policy.Allow, Targets: []string{"orders"}, Scopes: []string{"read"}, When: when,
			Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: issuer, Where: anyRepo}})
	}
	for i := range 50 {
		add(fmt.Sprint("cluster-", i), schema, "workload.attr.id == 1 && workload.issuer != 'cluster-0'")
		add(fmt.Sprint("text-", i), other, "workload.attr.id == '1'")
	}
	add("ci", schema, "workload.attr.id == 1 && workload.issuer == 'ci'")
	p := mustCompile(t, cfg)
	if n := p.Conditions(); n != 3 {
		t.Errorf("%d conditions compiled, want 3: one for each text and kind", n)
	}
	for id, want := range map[int]bool{1: true, 2: false} {
		if d := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop", "id": id}), "orders")); d.Allowed() != want {
			t.Errorf("id %d: allowed is %v, want %v (%v)", id, d.Allowed(), want, d.Reasons())
		}
	}
	add("odd", other, "workload.attr.id == 1")
	_, problems := policy.New(cfg)
	if len(problems) != 1 || problems[0].Index != len(cfg.Rules)-1 {
		t.Errorf("problems %v, want one, of the rule that compares text with a number", problems)
	}
	cfg.Rules = append(cfg.Rules[:len(cfg.Rules)-1], policy.Rule{Name: "all", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example"}, When: "workload.attr.id == 1"})
	_, problems = policy.New(cfg)
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "a rule over every issuer") {
		t.Errorf("problems %v, want one, of the rule over every issuer", problems)
	}
}
