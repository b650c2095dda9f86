package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// spread makes n rules that differ in their target.
func spread(n int) (policy.Config, string) {
	cfg := policy.Config{Issuers: issuers()}
	for i := range n {
		name := fmt.Sprint("target-", i)
		cfg.Targets = append(cfg.Targets, policy.Target{Name: name, Scopes: []string{"read"}})
		cfg.Rules = append(cfg.Rules, allow(fmt.Sprint("rule-", i), []string{name}, []string{"read"}, anyRepo))
	}
	return cfg, fmt.Sprint("target-", n-1)
}

// crowded makes n rules that share trust domain, issuer and target with the caller, whose rule is the last. Every
// tenth has a condition. No single attribute tells them apart.
func crowded(n int) policy.Config {
	cfg := policy.Config{Issuers: issuers(), Targets: targets()}
	side := 1
	for side*side < n {
		side++
	}
	for i := range n {
		r := allow(fmt.Sprint("rule-", i), []string{"orders"}, []string{"read"}, map[string]policy.Matcher{
			"repo": is(federation.String(fmt.Sprint("repo-", (n-1-i)%side))), "id": is(federation.Int(int64((n - 1 - i) / side))),
		})
		if i%10 == 9 {
			r.When = "workload.attr.ref == 'refs/heads/main' && env.time.getDayOfWeek('UTC') in [0, 1, 2, 3, 4, 5, 6]"
		}
		cfg.Rules = append(cfg.Rules, r)
	}
	return cfg
}

func mustCompile(t testing.TB, cfg policy.Config) *policy.Policy {
	t.Helper()
	p, problems := policy.New(cfg)
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return p
}

func last(w *world) federation.Workload {
	return w.workload(map[string]any{"repo": "repo-0", "id": 0, "ref": "refs/heads/main"})
}

// Counted, not timed: a decision looks at the rules that can match, however many there are.
func TestDecisionLooksAtFewRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	main := policy.Matcher{Prefix: "refs/heads"}
	release := federation.String("release")
	for _, n := range []int{10, 100, 1000, 10_000} {
		cfg := crowded(n)
		d := mustCompile(t, cfg).Decide(w.facts(last(w), "orders"))
		if g, _ := d.Grant(); g.Rule() != fmt.Sprint("rule-", n-1) || d.Looked() != 1 {
			t.Errorf("%d rules, one bucket: rule %q after looking at %d, want the last after 1", n, g.Rule(), d.Looked())
		}
		cfg, target := spread(n)
		if d := mustCompile(t, cfg).Decide(w.facts(w.workload(map[string]any{"repo": "shop"}), target)); !d.Allowed() || d.Looked() != 1 {
			t.Errorf("%d rules, a target each: allowed is %v after looking at %d, want 1", n, d.Allowed(), d.Looked())
		}
	}
	for name, make := range map[string]func(i int) map[string]policy.Matcher{
		"a list of values each": func(i int) map[string]policy.Matcher {
			return map[string]policy.Matcher{"repo": is(federation.String(fmt.Sprint("a", i)), federation.String(fmt.Sprint("b", i)))}
		},
		"a prefix each": func(i int) map[string]policy.Matcher {
			return map[string]policy.Matcher{"ref": {Prefix: fmt.Sprintf("refs/heads/%d/", i)}}
		},
		"an element each": func(i int) map[string]policy.Matcher {
			v := federation.String(fmt.Sprint("group-", i))
			return map[string]policy.Matcher{"groups": {Contains: &v}}
		},
		"all kinds": func(i int) map[string]policy.Matcher {
			return map[string]policy.Matcher{"repo": is(federation.String(fmt.Sprint("a", i))), "ref": main, "groups": {Contains: &release}}
		},
	} {
		const n = 2000
		cfg := policy.Config{Issuers: issuers(), Targets: targets()}
		for i := range n {
			cfg.Rules = append(cfg.Rules, allow(fmt.Sprint("allow-", i), []string{"orders"}, nil, make(i)))
			cfg.Rules = append(cfg.Rules, policy.Rule{Name: fmt.Sprint("deny-", i), Effect: policy.Deny, Workloads: where(make(n + i))})
		}
		who := w.workload(map[string]any{"repo": "a1999", "ref": "refs/heads/1999/x/y", "groups": []string{"group-1999", "release"}})
		d := mustCompile(t, cfg).Decide(w.facts(who, "orders"))
		if g, _ := d.Grant(); g.Rule() != "allow-1999" || d.Looked() > 3 {
			t.Errorf("%s: rule %q after looking at %d of %d, want the last of at most 3", name, g.Rule(), d.Looked(), 2*n)
		}
	}
}

func TestFirstCoveringRuleInFileOrderDecidesWhateverItIsFiledUnder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := federation.String("release")
	who := w.workload(map[string]any{"repo": "shop", "id": 1, "ref": "refs/heads/main", "groups": []string{"release", "release"}})
	kinds := []map[string]policy.Matcher{
		{"ref": {Prefix: "refs"}},
		{"repo": is(federation.String("shop"), federation.String("shop"))},
		{"groups": {Contains: &release}},
		{"repo": is(federation.String("shop")), "id": is(federation.Int(1))},
		{"id": is(federation.Int(1), federation.Int(2))},
	}
	for first := range kinds {
		var rules []policy.Rule
		for i := range kinds {
			rules = append(rules, allow(fmt.Sprint("rule-", i), []string{"orders"}, nil, kinds[(first+i)%len(kinds)]))
		}
		if g, _ := compile(t, rules...).Decide(w.facts(who, "orders")).Grant(); g.Rule() != "rule-0" {
			t.Errorf("beginning with kind %d: %q decides, want rule-0", first, g.Rule())
		}
	}
}

// A path is looked up by its beginnings. Who chooses it may fill a token with slashes: 4,000 of them, each beginning
// hashed, would be eight million bytes for one decision.
func TestLongPathIsCutNoLongerThanTheLongestPrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inside := policy.Matcher{Prefix: "refs/heads/a"}
	cfg := policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{
		allow("inside", []string{"orders"}, nil, map[string]policy.Matcher{"ref": inside}),
		{Name: "tags", Effect: policy.Deny, Workloads: where(map[string]policy.Matcher{"ref": {Prefix: "refs/tags"}})},
	}}
	p := mustCompile(t, cfg)
	for ref, want := range map[string]bool{
		"refs/heads/a":  true,
		"refs/heads/a/": true,
		"refs/heads/a" + strings.Repeat("/", 4000):    true,
		"refs/heads/a" + strings.Repeat("/b/c", 1000): true,
		"refs/heads/ab":                    false,
		"refs/heads/a\x00/b":               false,
		strings.Repeat("/", 4000):          false,
		"refs" + strings.Repeat("/", 4000): false,
	} {
		d := p.Decide(w.facts(w.workload(map[string]any{"ref": ref}), "orders"))
		if d.Allowed() != want {
			t.Errorf("%.20q, %d bytes: allowed is %v, want %v (%v)", ref, len(ref), d.Allowed(), want, d.Reasons())
		}
		if d.Steps() > 40 {
			t.Errorf("%.20q, %d bytes: %d steps, want few", ref, len(ref), d.Steps())
		}
	}
}
