package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// alike makes n rules that the index cannot tell apart.
func alike(n int, effect policy.Effect, when string) []policy.Rule {
	var out []policy.Rule
	for i := range n {
		r := policy.Rule{Name: fmt.Sprint(effect, "-", i), Source: fmt.Sprint("p.yaml:", i), Effect: effect, Workloads: where(anyRepo), When: when}
		if effect == policy.Allow {
			r.Targets, r.Scopes = []string{"orders"}, []string{"read"}
		}
		out = append(out, r)
	}
	return out
}

// A token full of groups, and conditions that read them all: each is cheap enough by itself, and 800 of them would be
// a third of a second for one refusal. Counted, not timed.
func TestDecisionThatCostsTooMuchIsARefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var groups []string
	for i := range 1000 {
		groups = append(groups, fmt.Sprint("g", i))
	}
	many := w.workload(map[string]any{"repo": "shop", "groups": groups})
	few := w.workload(map[string]any{"repo": "shop", "groups": groups[:2]})
	const never = "workload.attr.groups.exists(g, g == 'nobody')"
	const always = "!(" + never + ")"
	for _, tc := range []struct {
		name  string
		rules []policy.Rule
		who   federation.Workload
		allow bool
		given bool
	}{
		{"allow rules, the last would cover", append(alike(800, policy.Allow, never), alike(1, policy.Allow, always)...), many, false, true},
		{"allow rules, the first covers", append(alike(1, policy.Allow, always), alike(800, policy.Allow, never)...), many, true, false},
		{"allow rules, few groups", append(alike(800, policy.Allow, never), alike(1, policy.Allow, always)...), few, true, false},
		{"deny rules that would not match", append(alike(800, policy.Deny, never), alike(1, policy.Allow, "")...), many, false, true},
		{"deny rules, few groups", append(alike(800, policy.Deny, never), alike(1, policy.Allow, "")...), few, true, false},
		{"scopes of none, asked once", alike(800, policy.Allow, always), many, false, false},
	} {
		for i := range tc.rules {
			tc.rules[i].Name = fmt.Sprint("rule-", i)
		}
		f := w.facts(tc.who, "orders")
		if strings.HasPrefix(tc.name, "scopes") {
			f.Want.Scopes = []string{"write"}
		}
		d := compile(t, tc.rules...).Decide(f)
		given := len(d.Reasons()) > 0 && strings.HasPrefix(d.Reasons()[0], "given up at rule rule-")
		if d.Allowed() != tc.allow || given != tc.given {
			t.Errorf("%s: allowed is %v, want %v; given up is %v, want %v (%v)", tc.name, d.Allowed(), tc.allow, given, tc.given, d.Reasons())
		}
		if d.Cost() > policy.MaxEffort+2*policy.MaxConditionCost { // the last that was asked, and the nearest
			t.Errorf("%s: cost %d units, want at most %d", tc.name, d.Cost(), policy.MaxEffort)
		}
	}
}

// As many rules as the index may find alike are held against a request, with no condition, and the last still decides.
func TestRulesThatNothingTellsApartAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rules := append(alike(policy.MaxCrowd, policy.Allow, ""), alike(policy.MaxCrowd, policy.Deny, "")...)
	for i := range policy.MaxCrowd {
		rules[i].Scopes = nil
		rules[policy.MaxCrowd+i].When = "workload.attr.ref == 'x'"
	}
	rules[policy.MaxCrowd-1].Scopes = []string{"read"}
	d := compile(t, rules...).Decide(w.facts(w.workload(map[string]any{"repo": "shop", "ref": "y"}), "orders", "read"))
	if g, _ := d.Grant(); g.Rule() != rules[policy.MaxCrowd-1].Name {
		t.Errorf("rule %q decides, want the last allow rule (%v)", g.Rule(), d.Reasons())
	}
	for _, effect := range []policy.Effect{policy.Allow, policy.Deny} {
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: alike(policy.MaxCrowd+1, effect, "")})
		if len(problems) != 1 || problems[0].Index != policy.MaxCrowd || !strings.Contains(problems[0].Message, "tell them apart by where") {
			t.Errorf("%s: %d rules alike: problems %v, want one about the last", effect, policy.MaxCrowd+1, problems)
		}
	}
}

// Rules that differ in who acts, or in what target's tokens they exchange, are found by that. Counted, not timed.
func TestRulesAreFiledUnderWhoActsAndWhatTheyExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := policy.Config{Issuers: issuers(), Targets: targets()}
	const n = 2000
	for i := range n {
		cfg.Targets = append(cfg.Targets, policy.Target{Name: fmt.Sprint("from-", i), Scopes: []string{"read"}})
		acting := allow(fmt.Sprint("acting-", i), []string{"orders"}, []string{"read"}, anyRepo)
		acting.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: map[string]policy.Matcher{"repo": is(federation.String(fmt.Sprint("gateway-", i)))}}
		onward := policy.Rule{Name: fmt.Sprint("onward-", i), Effect: policy.Allow, Workloads: where(nil), Targets: []string{"orders"}, Scopes: []string{"read"}, ExchangeFrom: []string{fmt.Sprint("from-", i)}}
		cfg.Rules = append(cfg.Rules, acting, onward)
	}
	p := mustCompile(t, cfg)
	acting := w.facts(w.workload(map[string]any{"repo": "shop"}), "orders")
	acting.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "gateway-1999"})
	other := acting
	other.Actor = w.workload(map[string]any{"sub": "gateway", "repo": "gateway-2000"})
	for _, tc := range []struct {
		name string
		f    policy.Facts
		rule string
	}{
		{"who acts", acting, "acting-1999"},
		{"nobody of them acts", other, ""},
		{"nobody acts", w.facts(w.workload(map[string]any{"repo": "shop"}), "orders"), ""},
		{"a token of ours", w.facts(w.ownWorkload("from-1999", "read"), "orders"), "onward-1999"},
		{"a token of ours for another target", w.facts(w.ownWorkload("gateway", "read"), "orders"), ""},
	} {
		d := p.Decide(tc.f)
		if g, _ := d.Grant(); g.Rule() != tc.rule || d.Looked() > 1 || d.Steps() > 30 {
			t.Errorf("%s: rule %q after looking at %d of %d in %d steps, want %q, at most 1 and 30", tc.name, g.Rule(), d.Looked(), 2*n, d.Steps(), tc.rule)
		}
	}
}

// What a rule is filed under is not all that it asks for: one that lists much is filed under less, and matched in full.
func TestRuleThatListsMuchIsMatchedInFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := policy.Config{Issuers: issuers(), Targets: targets()}
	r := policy.Rule{Name: "onward", Effect: policy.Allow, Workloads: where(nil), Targets: []string{"orders"}, Scopes: []string{"read"},
		Actors: &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: map[string]policy.Matcher{"repo": is(federation.String("edge"), federation.String("gateway"))}}}
	for i := range 40 {
		from := fmt.Sprint("from-", i)
		cfg.Targets = append(cfg.Targets, policy.Target{Name: from, Scopes: []string{"read"}})
		r.ExchangeFrom = append(r.ExchangeFrom, from)
	}
	cfg.Rules = []policy.Rule{r}
	p := mustCompile(t, cfg)
	for _, tc := range []struct {
		from, repo string
		near       policy.Near // zero: allowed
	}{
		{"from-39", "edge", policy.Near{}},
		{"gateway", "edge", policy.Near{Rule: "onward", Claim: "subject token", Expected: "one minted here for " + strings.Join(r.ExchangeFrom, ", "), Found: "one minted here for gateway"}},
		{"from-0", "other", policy.Near{Rule: "onward", Claim: "actor.repo", Expected: "one of edge, gateway", Found: "other"}},
	} {
		f := w.facts(w.ownWorkload(tc.from, "read"), "orders")
		f.Actor = w.workload(map[string]any{"sub": "gateway", "repo": tc.repo})
		d := p.Decide(f)
		if near, _ := d.Near(); d.Allowed() != (tc.near == policy.Near{}) || near != tc.near {
			t.Errorf("a token for %s, %s acts: allowed is %v, nearest %+v, want %+v", tc.from, tc.repo, d.Allowed(), near, tc.near)
		}
	}
}
