package kubernetes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

func TestUnsafeSettingsDoNotLoad(t *testing.T) {
	t.Parallel()
	junk := filepath.Join(t.TempDir(), "junk.crt")
	if err := os.WriteFile(junk, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	type edit = func(*kubernetes.Settings, map[string]any)
	account := func(s kubernetes.Scope) edit {
		return func(_ *kubernetes.Settings, scopes map[string]any) { scopes["read"] = &s }
	}
	server := func(s string) edit { return func(k *kubernetes.Settings, _ map[string]any) { k.Server = s } }
	space := func(s string) edit { return func(k *kubernetes.Settings, _ map[string]any) { k.Namespace = s } }
	audience := func(s ...string) edit { return func(k *kubernetes.Settings, _ map[string]any) { k.Audiences = s } }
	for name, tc := range map[string]struct {
		edit edit
		path string
		says string // part of the message
	}{
		"plain http":                  {server("http://api.example"), "server", "https"},
		"no scheme":                   {server("api.example:6443"), "server", "https://HOST:PORT"},
		"no server":                   {server(""), "server", "https://HOST:PORT"},
		"a password in the URL":       {server("https://u:p@api.example"), "server", "user information"},
		"a query":                     {server("https://api.example/?x=1"), "server", "query"},
		"a fragment":                  {server("https://api.example/#x"), "server", "fragment"},
		"a path with dots":            {server("https://api.example/k8s/../other"), "server", "path"},
		"an escaped path":             {server("https://api.example/k8s%2f.."), "server", "path"},
		"no host":                     {server("https://:6443"), "server", "https://HOST:PORT"},
		"a CA that is none":           {func(k *kubernetes.Settings, _ map[string]any) { k.CAFile = junk }, "ca_file", "PEM"},
		"a CA that is not there":      {func(k *kubernetes.Settings, _ map[string]any) { k.CAFile = junk + "x" }, "ca_file", "ca_file"},
		"no namespace":                {space(""), "namespace", "1 to 63"},
		"a path as namespace":         {space("a/../b"), "namespace", "1 to 63"},
		"capitals":                    {space("Orders"), "namespace", "1 to 63"},
		"a namespace of 64":           {space(strings.Repeat("a", 64)), "namespace", "1 to 63"},
		"the namespace of the system": {space("kube-system"), "namespace", "namespace of their own"},
		"the namespace of everybody":  {space("default"), "namespace", "namespace of their own"},
		"no audience":                 {audience(), "audiences", "api_access: true"},
		"both":                        {func(k *kubernetes.Settings, _ map[string]any) { k.APIAccess = true }, "audiences", "two targets"},
		"nine audiences":              {audience("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"), "audiences", "8"},
		"an empty audience":           {audience(""), "audiences[0]", "printable"},
		"an audience of two words":    {audience("a b"), "audiences[0]", "printable"},
		"an audience twice":           {audience("a", "a"), "audiences[1]", "twice"},
		"the API server's URL":        {audience("https://api.orders.example:6443/"), "audiences[0]", "api_access"},
		"the API server's own name":   {audience("https://kubernetes.default.svc.cluster.local"), "audiences[0]", "api_access"},
		"the API server's short name": {audience("https://kubernetes.default.svc"), "audiences[0]", "api_access"},
		"the API server's old name":   {audience("kubernetes"), "audiences[0]", "api_access"},
		"reviews of nothing": {func(k *kubernetes.Settings, _ map[string]any) {
			k.Audiences, k.APIAccess, k.TokenReview = nil, true, true
		}, "token_review", "leave it out"},
		"no login":   {func(k *kubernetes.Settings, _ map[string]any) { k.Assertion = nil }, "assertion", "token: {file: ...}"},
		"two logins": {func(k *kubernetes.Settings, _ map[string]any) { k.Token = secret.Ref{File: "x"} }, "token", "exclude"},
		"an empty audience of ours": {func(k *kubernetes.Settings, _ map[string]any) { k.Assertion = &kubernetes.Assertion{} },
			"assertion.audience", "printable"},
		"no scopes":              {func(_ *kubernetes.Settings, scopes map[string]any) { clear(scopes) }, "scopes.", "service_account"},
		"no account":             {account(kubernetes.Scope{}), "scopes.read.service_account", "1 to 253"},
		"a path as account":      {account(kubernetes.Scope{ServiceAccount: "../../secrets/x"}), "scopes.read.service_account", "1 to 253"},
		"an account with a ?":    {account(kubernetes.Scope{ServiceAccount: "a?b"}), "scopes.read.service_account", "1 to 253"},
		"an account with a dot":  {account(kubernetes.Scope{ServiceAccount: "a..b"}), "scopes.read.service_account", "1 to 253"},
		"a uid that is none":     {account(kubernetes.Scope{ServiceAccount: "a", UID: "no uid"}), "scopes.read.uid", "kubectl"},
		"an account of two uids": {account(kubernetes.Scope{ServiceAccount: "writer", UID: "u"}), "scopes.write.uid", "the same"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := &kubernetes.Settings{Server: "https://api.orders.example:6443", Namespace: "sallyport-orders", Audiences: []string{"https://vault.orders.example"},
				Assertion: &kubernetes.Assertion{Audience: "https://kubernetes.orders.example"}}
			scopes := map[string]any{"read": &kubernetes.Scope{ServiceAccount: "reader"}, "write": &kubernetes.Scope{ServiceAccount: "writer"}}
			target := brokers.Target{Name: "orders-cluster"}
			if problems := kubernetes.Kind().Check(target, settings, scopes); len(problems) > 0 {
				t.Fatalf("good settings do not load: %v", problems)
			}
			tc.edit(settings, scopes)
			problems := kubernetes.Kind().Check(target, settings, scopes)
			if len(problems) != 1 || problems[0].Path != tc.path || !strings.Contains(problems[0].Message, tc.says) {
				t.Errorf("problems are %v, want one at %s that says %q", problems, tc.path, tc.says)
			}
		})
	}
}

// An audience that only looks like the API server's own is another service's.
func TestAudiencesOfOthersLoad(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"https://kubernetes.default-team.example", "kubernetes-dashboard", "api.orders", "https://api.orders.example", "vault"} {
		settings := &kubernetes.Settings{Server: "https://api.orders.example:6443/k8s/clusters/c-1", Namespace: "sallyport-orders", Audiences: []string{a},
			Assertion: &kubernetes.Assertion{Audience: "https://kubernetes.orders.example"}}
		if problems := kubernetes.Kind().Check(brokers.Target{}, settings, map[string]any{"read": &kubernetes.Scope{ServiceAccount: "reader.v2"}}); len(problems) > 0 {
			t.Errorf("audience %s: %v", a, problems)
		}
	}
}
