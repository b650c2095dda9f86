package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// Counted, not timed: whoever holds a token may be refused as often as they like, and each refusal looks for the rule
// that came nearest. Among ten thousand rules that costs at most twice what it costs among ten.
func TestRefusalCostsLittleAmongManyRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, claims := range map[string]map[string]any{
		"a stranger":              {"repo": "stranger"},
		"nothing to go by":        {},
		"one attribute fits many": {"repo": "repo-0", "id": 1 << 40},
		"each fits, none both":    {"repo": "repo-1", "id": 0, "ref": "refs/heads/dev"},
		"groups and slashes":      {"repo": "stranger", "ref": strings.Repeat("/", 2000), "groups": []string{"a", "b", "c"}},
	} {
		steps := map[int]int{}
		for _, n := range []int{10, 10_000} {
			cfg := crowded(n)
			if name == "each fits, none both" { // take away the rule that would allow
				cfg.Rules = cfg.Rules[:n-2]
			}
			cfg.Rules = append(cfg.Rules, allow("by-path", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"ref": {Prefix: "refs/tags"}}))
			d := mustCompile(t, cfg).Decide(w.facts(w.workload(claims), "orders"))
			if _, near := d.Near(); d.Allowed() || !near {
				t.Fatalf("%s, %d rules: allowed is %v, a nearest rule is known: %v; want a refusal with one", name, n, d.Allowed(), near)
			}
			steps[n] = d.Steps()
		}
		if steps[10_000] > 2*steps[10] {
			t.Errorf("%s: %d steps among ten rules, %d among ten thousand, want at most twice as many", name, steps[10], steps[10_000])
		}
	}
}

// The few rules that a refusal looks at are those that an operator would look at, wherever they stand.
func TestNearestRuleIsFoundAmongTenThousand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := policy.Config{Issuers: issuers(), Targets: targets()}
	for i := range 10_000 {
		cfg.Rules = append(cfg.Rules, allow(fmt.Sprint("rule-", i), []string{"orders"}, []string{"read"}, map[string]policy.Matcher{
			"repo": is(federation.String(fmt.Sprint("repo-", i%100))), "id": is(federation.Int(int64(i / 100))), "ref": is(federation.String(fmt.Sprint("refs/heads/", i))),
		}))
	}
	p := mustCompile(t, cfg)
	for name, tc := range map[string]struct {
		claims map[string]any
		want   policy.Near
	}{
		"another ref":    {map[string]any{"repo": "repo-21", "id": 87, "ref": "refs/heads/main"}, policy.Near{Rule: "rule-8721", Claim: "ref", Expected: "refs/heads/8721", Found: "refs/heads/main"}},
		"another id":     {map[string]any{"repo": "repo-21", "id": 1000, "ref": "refs/heads/8721"}, policy.Near{Rule: "rule-8721", Claim: "id", Expected: "87", Found: "1000"}},
		"no id":          {map[string]any{"repo": "repo-21", "ref": "refs/heads/8721"}, policy.Near{Rule: "rule-8721", Claim: "id", Expected: "87", Found: "(absent)"}},
		"the ref alone":  {map[string]any{"repo": "x", "id": 1000, "ref": "refs/heads/8721"}, policy.Near{Rule: "rule-8721", Claim: "id", Expected: "87", Found: "1000"}},
		"the repo alone": {map[string]any{"repo": "repo-21"}, policy.Near{Rule: "rule-21", Claim: "id", Expected: "0", Found: "(absent)"}},
		"nothing at all": {map[string]any{}, policy.Near{Rule: "rule-0", Claim: "id", Expected: "0", Found: "(absent)"}},
	} {
		near, ok := p.Decide(w.facts(w.workload(tc.claims), "orders")).Near()
		if !ok || near != tc.want {
			t.Errorf("%s: nearest is %+v, want %+v", name, near, tc.want)
		}
	}
}
