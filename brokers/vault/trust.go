package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Command is one thing to tell Vault, so that it trusts us for a target and no further.
type Command struct {
	Comment string // lines
	Verb    string // enable, policy or write; "" when there is only the comment
	Path    string // of the mount, the policy or the API
	Body    string // a policy, or JSON
}

// times of what is printed.
const (
	loginSlack   = time.Minute      // the login's token outlives the longest grant by this, so that its child is not cut
	batchSlack   = 30 * time.Second // a batch token is shorter than the longest grant by this: its life cannot be chosen
	revokerLife  = time.Minute
	pkiMaxTTL    = time.Hour
	pkiNotBefore = 30 * time.Second
)

// Trust returns what to tell Vault for a target whose settings loaded. issuer is our issuer identifier; domains are the
// trust domains whose workloads can be granted the target.
func Trust(t brokers.Target, settings any, scopes map[string]any, issuer string, domains []string) ([]Command, error) {
	s, ok := settings.(*Settings)
	if !ok {
		return nil, fmt.Errorf("target %s is none of vault's", t.Name)
	}
	own := map[string]Scope{}
	for name, scope := range scopes {
		c, ok := scope.(*Scope)
		if !ok {
			return nil, errors.New("a scope is none of vault's")
		}
		own[name] = *c
	}
	p := &printer{t: t, s: *s, scopes: own, domains: domains}
	p.mount(issuer + brokers.AssertionsPath)
	for _, role := range p.roles() {
		p.role(role)
	}
	if s.RevokeRole != "" {
		p.revoker()
	}
	return p.out, nil
}

// Withdraw prints the commands that end all trust in our keys at the Vault of a target, with every token and lease that any
// login of them obtained: also what a thief of the key obtained.
func Withdraw(s Settings) string {
	out := "export VAULT_ADDR=" + s.Address + "\n"
	if s.Namespace != "" {
		out += "export VAULT_NAMESPACE=" + s.Namespace + "\n"
	}
	return out + "vault auth disable " + s.mount() + "   # every token that was logged in there dies, with its leases\n"
}

type printer struct {
	t       brokers.Target
	s       Settings
	scopes  map[string]Scope
	domains []string
	out     []Command
}

func (p *printer) add(c Command) { p.out = append(p.out, c) }

func (p *printer) write(comment, path string, body any) {
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		panic(err) // strings, numbers, lists
	}
	p.add(Command{comment, "write", path, string(b)})
}

// signatureParameters are what a request for a signature has. Others do not count what the role says: not_after goes beyond
// its max_ttl.
func signatureParameters() []string {
	return []string{"common_name", "csr", "exclude_cn_from_sans", "format", "ttl", "uri_sans"}
}

// mount makes the mount trust our assertions.
func (p *printer) mount(issuer string) {
	p.add(Command{"Once for the mount: an error that the path is in use means that it is there.", "enable", p.s.mount(), ""})
	p.write("Vault reads our keys from there. If it does not know the CA, add oidc_discovery_ca_pem; if it cannot reach us,\ngive jwt_validation_pubkeys instead and renew them with every rotation.",
		"auth/"+p.s.mount()+"/config", map[string]string{"oidc_discovery_url": issuer, "bound_issuer": issuer})
}

// roles are those that the scopes log in with, in order.
func (p *printer) roles() []string {
	names := map[string]bool{}
	for _, s := range p.scopes {
		names[s.Role] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// login is a role of the mount.
type login struct {
	RoleType        string            `json:"role_type"`
	UserClaim       string            `json:"user_claim"`
	BoundSubject    string            `json:"bound_subject"`
	BoundAudiences  []string          `json:"bound_audiences"`
	ClaimMappings   map[string]string `json:"claim_mappings"`
	Policies        []string          `json:"token_policies"`
	NoDefaultPolicy bool              `json:"token_no_default_policy"`
	Type            string            `json:"token_type"`
	TTL             string            `json:"token_ttl"`
	ExplicitMaxTTL  string            `json:"token_explicit_max_ttl,omitempty"`
}

func (p *printer) login(policies []string, kind string, life time.Duration) login {
	l := login{
		RoleType: "jwt", UserClaim: "sub", BoundSubject: Subject(p.t.Name), BoundAudiences: []string{p.s.Audience},
		ClaimMappings: map[string]string{"/sallyport/lease": "lease", "/sallyport/family": "family", "/sallyport/workload": "workload"},
		Policies:      policies, NoDefaultPolicy: true, Type: kind, TTL: seconds(life),
	}
	if kind == "service" {
		l.ExplicitMaxTTL = l.TTL
	}
	return l
}

// role prints one role of the mount, the policy of its logins, and those that its scopes hand out.
func (p *printer) role(name string) {
	own := "sallyport-" + name
	grants := map[string]right{}
	policies, kind, life := []string{own}, "service", p.t.MaxLifetime+loginSlack
	for _, scope := range slices.Sorted(maps.Keys(p.scopes)) {
		s := p.scopes[scope]
		if s.Role != name {
			continue
		}
		policies = append(policies, s.Policies...)
		if s.child() {
			grants[createPath] = right{"update", nil}
		}
		switch {
		case s.Batch:
			kind, life = "batch", max(p.t.MaxLifetime-batchSlack, p.t.MaxLifetime/2)
			fallthrough
		case s.Read != "" && !s.TakesBack:
			if s.Read != "" {
				grants[s.Read] = right{"read", nil}
			}
		case s.PKI != nil:
			grants[s.PKI.Path] = right{"update", signatureParameters()}
		}
		p.scope(scope, s)
	}
	if kind == "service" {
		grants["auth/token/revoke-self"] = right{"update", nil}
	}
	slices.Sort(policies)
	comment := fmt.Sprintf("What a login for target %s may do by itself.", p.t.Name)
	if kind == "batch" {
		comment += " Batch tokens are handed out as they are:\nadd what their holders may do."
	}
	p.add(Command{comment, "policy", own, hcl(grants)})
	p.write("", "auth/"+p.s.mount()+"/role/"+name, p.login(slices.Compact(policies), kind, life))
}

// scope prints what a scope needs besides its role.
func (p *printer) scope(name string, s Scope) {
	switch {
	case s.TakesBack && len(s.Policies) == 1:
		p.add(Command{fmt.Sprintf("Scope %s: read what is handed out.", name), "policy", s.Policies[0], hcl(map[string]right{s.Read: {"read", nil}})})
	case s.TakesBack:
		p.add(Command{Comment: fmt.Sprintf("Scope %s: one of the policies %s must allow to read %s.", name, strings.Join(s.Policies, ", "), s.Read)})
	case s.child():
		p.add(Command{Comment: fmt.Sprintf("Scope %s: the policies %s are what a holder may do; they are yours to write.", name, strings.Join(s.Policies, ", "))})
	case s.PKI != nil:
		p.pki(name, s.PKI)
	}
}

func (p *printer) pki(scope string, k *PKI) {
	mount, role, _ := strings.Cut(k.Path, "/sign/")
	uris := make([]string, len(p.domains))
	for i, d := range p.domains {
		uris[i] = "spiffe://" + d + "/*"
	}
	body := map[string]any{
		"key_type": "any", "require_cn": false, "allow_any_name": false, "allow_localhost": false, "allow_ip_sans": false, "use_csr_common_name": false, "use_csr_sans": false,
		"allowed_uri_sans": uris, "key_usage": []string{"DigitalSignature"}, "client_flag": true, "server_flag": false,
		"max_ttl": seconds(pkiMaxTTL), "not_before_duration": seconds(pkiNotBefore), "no_store": true,
	}
	if k.CommonName != "" {
		body["allowed_domains"], body["allow_bare_domains"], body["enforce_hostnames"] = []string{k.CommonName}, true, false
	}
	p.write(fmt.Sprintf("Scope %s: sign the workload's id for client authentication, and no name of the request.", scope), mount+"/roles/"+role, body)
}

// revoker prints the role that revokes: it can end tokens whose accessor it knows, and take back what scopes read.
func (p *printer) revoker() {
	grants := map[string]right{"auth/token/revoke-accessor": {"update", nil}, "auth/token/lookup-accessor": {"update", nil}}
	for _, s := range p.scopes {
		if s.TakesBack {
			grants["sys/leases/revoke/"+s.Read+"/*"] = right{"update", nil}
		}
	}
	name := "sallyport-" + p.s.RevokeRole
	p.add(Command{"What a revocation may do.", "policy", name, hcl(grants)})
	l := p.login([]string{name}, "batch", revokerLife)
	l.ClaimMappings = map[string]string{"/sallyport/lease": "lease"} // it logs in for nobody
	p.write("", "auth/"+p.s.mount()+"/role/"+p.s.RevokeRole, l)
}

// right is what a policy allows at a path.
type right struct {
	capability string
	parameters []string // that a request may have, and no others; nil for any
}

// hcl writes a policy. Paths are plain: the check let no quote or glob through.
func hcl(grants map[string]right) string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(grants)) {
		fmt.Fprintf(&b, "path %q {\n  capabilities = [%q]\n", path, grants[path].capability)
		if grants[path].parameters != nil {
			b.WriteString("  allowed_parameters = {\n")
			for _, name := range grants[path].parameters {
				fmt.Fprintf(&b, "    %q = []\n", name)
			}
			b.WriteString("  }\n")
		}
		b.WriteString("}\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d/time.Second)) }

// CLI returns the command as the vault command line takes it.
func (c Command) CLI() string {
	switch c.Verb {
	case "enable":
		return c.comment() + "vault auth enable -path=" + c.Path + " jwt\n"
	case "policy":
		return c.comment() + "vault policy write " + c.Path + " - <<'EOF'\n" + c.Body + "\nEOF\n"
	case "write":
		return c.comment() + "vault write " + c.Path + " - <<'EOF'\n" + c.Body + "\nEOF\n"
	default:
		return c.comment()
	}
}

// CurlHeaders is what [Command.Curl] needs before: the token in a file, because arguments are for everybody to see.
const CurlHeaders = `headers=$(mktemp) && trap 'rm -f "$headers"' EXIT
printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN" >"$headers"
if [ -n "${VAULT_NAMESPACE-}" ]; then printf 'X-Vault-Namespace: %s\n' "$VAULT_NAMESPACE" >>"$headers"; fi
`

// Curl returns the command for curl, after [CurlHeaders].
func (c Command) Curl() string {
	path, body := c.Path, c.Body
	switch c.Verb {
	case "enable":
		path, body = "sys/auth/"+c.Path, `{"type": "jwt"}`
	case "policy":
		b, err := json.Marshal(map[string]string{"policy": c.Body})
		if err != nil {
			panic(err) // a string
		}
		path, body = "sys/policies/acl/"+c.Path, string(b)
	case "write":
	default:
		return c.comment()
	}
	return c.comment() + `curl -sS --fail-with-body -X POST -H "@$headers" --data-binary @- "$VAULT_ADDR/v1/` + path + "\" <<'EOF'\n" + body + "\nEOF\n"
}

func (c Command) comment() string {
	if c.Comment == "" {
		return ""
	}
	return "# " + strings.ReplaceAll(c.Comment, "\n", "\n# ") + "\n"
}
