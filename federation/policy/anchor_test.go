package policy_test

import (
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// Names on a shared platform are recycled: a rule that matches only names is met later by somebody else.
func TestAllowRuleAboutSharedIssuerNeedsAnAnchor(t *testing.T) {
	id := policy.Matcher{OneOf: []federation.Value{federation.String("90210")}}
	for name, tc := range map[string]struct {
		where  map[string]policy.Matcher
		shared bool
		effect policy.Effect
		ok     bool
	}{
		"name alone":         {map[string]policy.Matcher{"repository": id}, true, policy.Allow, false},
		"anchor":             {map[string]policy.Matcher{"repository_id": id}, true, policy.Allow, true},
		"anchor and name":    {map[string]policy.Matcher{"repository_id": id, "repository": id}, true, policy.Allow, true},
		"anchor by prefix":   {map[string]policy.Matcher{"repository_id": {Prefix: "9"}}, true, policy.Allow, false},
		"anchor without any": {map[string]policy.Matcher{"repository_id": {}}, true, policy.Allow, false},
		"deny by name":       {map[string]policy.Matcher{"repository": id}, true, policy.Deny, true},
		"own issuer":         {map[string]policy.Matcher{"repository": id}, false, policy.Allow, true},
	} {
		_, problems := policy.New(policy.Config{
			Issuers: []policy.Issuer{{TrustDomain: "prod.example", Name: "ci", MultiTenant: tc.shared, Schema: federation.Schema{
				{Name: "repository_id", Type: federation.TypeString, Anchor: true}, {Name: "repository", Type: federation.TypeString},
			}}},
			Targets: []policy.Target{{Name: "orders"}},
			Rules: []policy.Rule{{Name: "r", Effect: tc.effect, Targets: []string{"orders"},
				Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: tc.where}}},
		})
		if (len(problems) == 0) != tc.ok {
			t.Errorf("%s: got problems %v, want it to load: %v", name, problems, tc.ok)
		}
		if name == "name alone" && (len(problems) != 1 || !strings.Contains(problems[0].Message, "add the exact value of one of repository_id")) {
			t.Errorf("%s: got %v, want the one that names the fix", name, problems)
		}
	}
}
