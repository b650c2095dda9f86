package config_test

import (
	"strings"
	"testing"
)

const sharedTrust = `trust_domain: prod.example
issuers:
  - name: cluster-1
    type: github
    issuer: https://token.actions.githubusercontent.com
    OWNERS
    audiences: [https://sts.example]
    single_use: true
`

// The entry as the manual shows it: pins in the entry itself, and what is known of the platform left out.
func TestGitHubEntryLoadsAsTheManualSays(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	put(t, dir, "trust/prod.yaml", strings.Replace(sharedTrust, "OWNERS", `owner_ids: ["1234567"]`, 1))
	put(t, dir, "policy/orders.yaml", `rules:
  - name: r
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {repository_id: "99", ref: refs/heads/main}}
    targets: [orders]
`)
	is := mustLoad(t, dir, productKinds(t)).Issuers[0]
	if !is.SingleUse || !is.Keys.Discovery || len(is.Algorithms) != 1 || is.Algorithms[0] != "RS256" || is.Keys.Algorithms[0] != "RS256" {
		t.Errorf("got %+v, want single use, discovery and RS256", is)
	}
}

// A shared issuer without a tenant, rules about names alone, and near misses of the pin do not load.
func TestSharedIssuerIsRefusedWithItsFix(t *testing.T) {
	for _, tc := range []struct{ owners, where, want string }{
		{"", `repository_id: "99"`, "pins no tenant"},
		{`owner_id: ["1"]`, `repository_id: "99"`, "did you mean owner_ids?"},
		{`owner_ids: []`, `repository_id: "99"`, "an empty list does not mean all"},
		{`owner_ids: [acme]`, `repository_id: "99"`, "decimal digits in quotes"},
		{`owner_ids: [1]`, `repository_id: "99"`, "write it in quotes"},
		{`github: {owner_ids: ["1"]}`, `repository_id: "99"`, "stand in the entry itself"},
		{`owner_ids: ["1"]`, `repository: acme/shop`, "add the exact value of one of repository_id"},
	} {
		dir := write(t, archive(t, "base.txtar"))
		put(t, dir, "trust/prod.yaml", strings.Replace(sharedTrust, "OWNERS", tc.owners, 1))
		put(t, dir, "policy/orders.yaml", `rules:
  - name: r
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {`+tc.where+`}}
    targets: [orders]
`)
		if got := text(problems(t, dir, productKinds(t))); !strings.Contains(got, tc.want) {
			t.Errorf("%s and %s: got\n%swant %s", tc.owners, tc.where, got, tc.want)
		}
	}
}

// The hole that was: another type asks for neither tenant nor anchor, and everybody on the platform could speak here.
func TestSharedIssuerIsOfItsPlatformsTypeOnly(t *testing.T) {
	for _, tc := range []struct{ url, typ, want string }{
		{"https://token.actions.githubusercontent.com", "oidc", "github"},
		{"https://token.actions.githubusercontent.com", "kubernetes", "github"},
		{"https://token.actions.githubusercontent.com", "gitlab", "github"},
		{"https://token.actions.githubusercontent.com/acme-inc", "oidc", "github"},
		{"https://TOKEN.actions.githubusercontent.com.:443/", "oidc", "github"},
		{"https://token.actions.acme.ghe.com", "oidc", "github"},
		{"https://token.actions.acme.ghe.com/acme-inc", "oidc", "github"},
		{"https://gitlab.com", "oidc", "gitlab"},
		{"https://gitlab.com", "github", "gitlab"},
		{"https://GitLab.com./", "oidc", "gitlab"},
		{"https://github.acme.example/_services/token", "oidc", ""},
		{"https://gitlab.acme.example", "oidc", ""},
		{"https://notgitlab.com", "oidc", ""},
		{"https://token.actions.githubusercontent.com.acme.example", "oidc", ""},
	} {
		dir := write(t, archive(t, "base.txtar"))
		put(t, dir, "trust/prod.yaml", "trust_domain: prod.example\nissuers:\n  - name: cluster-1\n    type: "+tc.typ+
			"\n    issuer: "+tc.url+"\n    audiences: [https://sts.example]\n    algorithms: [RS256]\n    keys: {discovery: true}\n"+
			map[string]string{
				"oidc":       "    oidc:\n      path: [sub]\n      attributes: {namespace: {claim: sub, type: string}}\n",
				"github":     "    owner_ids: [\"1\"]\n",
				"gitlab":     "    namespace_ids: [\"1\"]\n",
				"kubernetes": "",
			}[tc.typ])
		put(t, dir, "policy/orders.yaml", "rules:\n  - name: r\n    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: a}}\n    targets: [orders]\n")
		got, want := text(problems(t, dir, productKinds(t))), "use type: "+tc.want+", which pins yours"
		if refused := strings.Contains(got, want); refused != (tc.want != "") || tc.want == "" && got != "" {
			t.Errorf("type %s for %s: got\n%swant %s", tc.typ, tc.url, got, tc.want)
		}
	}
}
