package vault_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers/vault"
)

func TestUnsafeSettingsDoNotLoad(t *testing.T) {
	t.Parallel()
	junk := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(junk, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	no := false
	type change = func(*vault.Settings, map[string]vault.Scope)
	scope := func(f func(*vault.Scope)) change {
		return func(_ *vault.Settings, m map[string]vault.Scope) { s := m["read"]; f(&s); m["read"] = s }
	}
	set := func(f func(*vault.Settings)) change {
		return func(s *vault.Settings, _ map[string]vault.Scope) { f(s) }
	}
	for name, tc := range map[string]struct {
		path, says string
		change     change
	}{
		"http beyond this machine":      {"address", "use https", set(func(s *vault.Settings) { s.Address = "http://vault.example:8200" })},
		"http to a name like loopback":  {"address", "use https", set(func(s *vault.Settings) { s.Address = "http://127.0.0.1.evil.example" })},
		"no address":                    {"address", "write https", set(func(s *vault.Settings) { s.Address = "" })},
		"an address with a path":        {"address", "more than a host", set(func(s *vault.Settings) { s.Address = "https://vault.example/v1" })},
		"an address with a password":    {"address", "more than a host", set(func(s *vault.Settings) { s.Address = "https://a:b@vault.example" })},
		"an address with a query":       {"address", "more than a host", set(func(s *vault.Settings) { s.Address = "https://vault.example?x" })},
		"another scheme":                {"address", "use https", set(func(s *vault.Settings) { s.Address = "unix://vault" })},
		"a namespace with dots":         {"namespace", "no path", set(func(s *vault.Settings) { s.Namespace = "../admin" })},
		"a namespace with a slash":      {"namespace", "no path", set(func(s *vault.Settings) { s.Namespace = "admin/" })},
		"a missing CA":                  {"ca_file", "reading the file", set(func(s *vault.Settings) { s.CAFile = "/nowhere/ca.pem" })},
		"a CA that is none":             {"ca_file", "no PEM", set(func(s *vault.Settings) { s.CAFile = junk })},
		"a timeout of minutes":          {"timeout", "waits", set(func(s *vault.Settings) { s.Timeout = 2 * time.Minute })},
		"a wrapping of days":            {"wrap_ttl", "longer", set(func(s *vault.Settings) { s.WrapTTL = 48 * time.Hour })},
		"a mount with auth":             {"mount", "without auth/", set(func(s *vault.Settings) { s.Mount = "auth/jwt" })},
		"a mount that leaves":           {"mount", "no path", set(func(s *vault.Settings) { s.Mount = "jwt/../token" })},
		"no audience":                   {"audience", "audience must be", set(func(s *vault.Settings) { s.Audience = "" })},
		"two audiences":                 {"audience", "audience must be", set(func(s *vault.Settings) { s.Audience = "a,b" })},
		"no revoker":                    {"revoke_role", "sallyport trust vault orders", set(func(s *vault.Settings) { s.RevokeRole = "" })},
		"a revoker that is not used":    {"revoke_role", "remove one", set(func(s *vault.Settings) { s.Revocable = &no })},
		"a revoker that is no name":     {"revoke_role", "no name", set(func(s *vault.Settings) { s.RevokeRole = "a/b" })},
		"the revoker handed out":        {"scopes.read.role", "role of its own", scope(func(s *vault.Scope) { s.Role = "revoker" })},
		"no scope":                      {"scopes.", "no scope", func(_ *vault.Settings, m map[string]vault.Scope) { clear(m) }},
		"a role that leaves":            {"scopes.read.role", "no name", scope(func(s *vault.Scope) { s.Role = "../x" })},
		"the root policy":               {"scopes.read.policies[0]", "not handed out", scope(func(s *vault.Scope) { s.Policies = []string{"root"} })},
		"the default policy":            {"scopes.read.policies[0]", "not handed out", scope(func(s *vault.Scope) { s.Policies = []string{"default"} })},
		"a policy in capitals":          {"scopes.read.policies[0]", "lower-case", scope(func(s *vault.Scope) { s.Policies = []string{"Root"} })},
		"a token that is not a child":   {"scopes.read.policies", "outlive", scope(func(s *vault.Scope) { s.Policies = nil })},
		"a batch token with a child":    {"scopes.read.policies", "makes no child", scope(func(s *vault.Scope) { s.Batch = true })},
		"policies of nothing":           {"scopes.read.policies", "means nothing", scope(func(s *vault.Scope) { s.Read = "aws/sts/x" })},
		"taking back nothing":           {"scopes.read.read", "name the path", scope(func(s *vault.Scope) { s.TakesBack = true })},
		"static nothing":                {"scopes.read.read", "name the path", scope(func(s *vault.Scope) { s.Static = true })},
		"a path that leaves":            {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/../sys/mounts" })},
		"a path with an escape":         {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/%2e%2e/x" })},
		"a path with a query":           {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/x?list=true" })},
		"a path with a fragment":        {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/x#y" })},
		"a path with a glob":            {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/*" })},
		"a path with a template":        {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/{{identity.entity.id}}" })},
		"a path with an empty segment":  {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv//x" })},
		"an absolute path":              {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "/kv/x" })},
		"a path with a line break":      {"scopes.read.read", "no path", scope(func(s *vault.Scope) { s.Read = "kv/x\nkv/y" })},
		"a path of Vault itself":        {"scopes.read.read", "part of Vault", scope(func(s *vault.Scope) { s.Read = "auth/token/lookup-self" })},
		"the seal":                      {"scopes.read.read", "part of Vault", scope(func(s *vault.Scope) { s.Read = "sys/seal-status" })},
		"a path with the version":       {"scopes.read.read", "part of Vault", scope(func(s *vault.Scope) { s.Read = "v1/kv/x" })},
		"a parameter that is two":       {"scopes.read.ttl_parameter", "no name", scope(func(s *vault.Scope) { s.Read, s.TTLParameter = "aws/sts/x", "ttl&x" })},
		"static and taken back":         {"scopes.read.static", "no lease", scope(func(s *vault.Scope) { s.Read, s.Static, s.TakesBack = "kv/x", true, true })},
		"batch and taken back":          {"scopes.read.takes_back", "batch", scope(func(s *vault.Scope) { s.Read, s.Batch, s.TakesBack, s.Policies = "database/creds/x", true, true, nil })},
		"a certificate that is issued":  {"scopes.read.pki.path", "issue", scope(func(s *vault.Scope) { s.Policies, s.PKI = nil, &vault.PKI{Path: "pki/issue/x"} })},
		"a request that is obeyed":      {"scopes.read.pki.path", "sign-verbatim", scope(func(s *vault.Scope) { s.Policies, s.PKI = nil, &vault.PKI{Path: "pki/sign-verbatim/x"} })},
		"a signature of nothing":        {"scopes.read.pki.path", "MOUNT/sign/ROLE", scope(func(s *vault.Scope) { s.Policies, s.PKI = nil, &vault.PKI{Path: "pki"} })},
		"a common name that is several": {"scopes.read.pki.common_name", "none", scope(func(s *vault.Scope) { s.Policies, s.PKI = nil, &vault.PKI{Path: "pki/sign/x", CommonName: "a,b"} })},
		"reading and signing":           {"scopes.read.pki", "not both", scope(func(s *vault.Scope) { s.Policies, s.Read, s.PKI = nil, "aws/sts/x", &vault.PKI{Path: "pki/sign/x"} })},
		"a wrapped certificate": {"scopes.read.pki", "cannot be checked", func(s *vault.Settings, m map[string]vault.Scope) {
			s.WrapTTL = time.Minute
			m["read"] = vault.Scope{Role: "r", PKI: &vault.PKI{Path: "pki/sign/x"}}
		}},
		"a wrapped secret of unknown life": {"scopes.read.read", "takes_back", func(s *vault.Settings, m map[string]vault.Scope) {
			s.WrapTTL = time.Minute
			m["read"] = vault.Scope{Role: "r", Read: "aws/sts/x"}
		}},
		"a wrapped batch token": {"scopes.read.batch", "makes none", func(s *vault.Settings, m map[string]vault.Scope) {
			s.WrapTTL = time.Minute
			m["read"] = vault.Scope{Role: "r", Batch: true}
		}},
		"two paths": {"scopes.write", "two things", func(_ *vault.Settings, m map[string]vault.Scope) {
			m["read"] = vault.Scope{Role: "r", Read: "database/creds/ro"}
			m["write"] = vault.Scope{Role: "r", Read: "database/creds/rw"}
		}},
		"two roles": {"scopes.write", "two things", func(_ *vault.Settings, m map[string]vault.Scope) {
			m["write"] = vault.Scope{Role: "other", Policies: []string{"p"}}
		}},
		"two sorts": {"scopes.write", "a target of its own", func(_ *vault.Settings, m map[string]vault.Scope) {
			m["write"] = vault.Scope{Role: "orders", Read: "database/creds/rw", Covers: []string{"read"}}
		}},
		"a role of two types": {"scopes.write.batch", "two roles", func(_ *vault.Settings, m map[string]vault.Scope) {
			m["write"] = vault.Scope{Role: "orders", Batch: true, Covers: []string{"read"}}
		}},
		"covering what is not there": {"scopes.read.covers[0]", "no scope", scope(func(s *vault.Scope) { s.Covers = []string{"other"} })},
		"covering each other": {"scopes.read.covers[0]", "each other", func(_ *vault.Settings, m map[string]vault.Scope) {
			m["read"] = vault.Scope{Role: "r", Read: "database/creds/ro", Covers: []string{"write"}}
			m["write"] = vault.Scope{Role: "r", Read: "database/creds/rw", Covers: []string{"read"}}
		}},
		"a circle": {"scopes.a.covers", "list c too", func(_ *vault.Settings, m map[string]vault.Scope) {
			clear(m)
			m["a"] = vault.Scope{Role: "r", Read: "kv/a", Covers: []string{"b"}}
			m["b"] = vault.Scope{Role: "r", Read: "kv/b", Covers: []string{"c"}}
			m["c"] = vault.Scope{Role: "r", Read: "kv/c", Covers: []string{"a"}}
		}},
	} {
		s, scopes := settings("https://vault.example:8200"), map[string]vault.Scope{"read": {Role: "orders", Policies: []string{"orders-read"}}}
		tc.change(&s, scopes)
		_, problems := tryBroker(t, s, scopes)
		found := false
		for _, p := range problems {
			found = found || p.Path == tc.path && strings.Contains(p.Message, tc.says)
		}
		if !found {
			t.Errorf("%s: problems are %v, want one at %s that says %q", name, problems, tc.path, tc.says)
		}
	}
}
