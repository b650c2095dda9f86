package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

func TestReachSaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	conditional := allow("conditional", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"repo": is(federation.String("shop"))})
	conditional.When = "workload.attr.ref == 'refs/heads/main'"
	cfg := policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{
		allow("by-repo", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"repo": is(federation.String("shop")), "ref": {Prefix: "refs/heads"}}),
		conditional,
		allow("another", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"repo": is(federation.String("other"))}),
		{Name: "no-groups", Source: "policy/test.yaml:9", Effect: policy.Deny, Targets: []string{"orders"}, Workloads: policy.Workloads{TrustDomain: conditional.Workloads.TrustDomain, Where: map[string]policy.Matcher{"repo": is(federation.String("other"))}}},
	}}
	p := mustCompile(t, cfg)
	reach := p.Reach(policy.Known{TrustDomain: conditional.Workloads.TrustDomain, Attributes: map[string][]string{"repo": {"shop"}}})
	if len(reach) != 2 || reach[0].Rule != "by-repo" || reach[1].Rule != "conditional" {
		t.Fatalf("reach of a repository: %+v", reach)
	}
	if needs := strings.Join(reach[0].Needs, "; "); !strings.Contains(needs, "ref is refs/heads or below") || !strings.Contains(needs, "issuer ") {
		t.Errorf("by-repo needs %q", needs)
	}
	if needs := strings.Join(reach[1].Needs, "; "); !strings.Contains(needs, "when workload.attr.ref == 'refs/heads/main'") {
		t.Errorf("conditional needs %q", needs)
	}
	if got := p.Reach(policy.Known{TrustDomain: "elsewhere.example"}); len(got) != 0 {
		t.Errorf("reach of an unknown trust domain: %+v", got)
	}
	all := p.Reach(policy.Known{})
	if len(all) != 3 || !slices.Equal(all[2].Unless, []string{"no-groups"}) {
		t.Errorf("reach of whoever: %+v", all)
	}
}
