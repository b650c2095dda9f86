// Package vault is the broker of what HashiCorp Vault, or OpenBao, hands out: a Vault token, a secret that an engine makes
// on demand (a database login), or a certificate for a key that the workload keeps.
//
// Vault trusts our assertions: each exchange logs in anew at a jwt auth mount with a JWT that we sign for this one call, so
// no secret of Vault's is kept anywhere. The accessor of that login is the handle of the credential: what the login made
// dies with it, and [Broker.Revoke] kills it as another role that can do nothing else. The accessor is noted before
// anything is asked for with the token.
//
//	login -> note the accessor -> a child token that ends with the grant -> read, or hand out
//
// An answer of Vault is used only when it is whole: no errors beside it, the type that was asked for, an accessor, a life
// within the grant. Paths, roles and policies come from the configuration alone, no redirect is followed, and nothing of
// Vault's client is taken from the environment.
//
// The HTTP API is that of Vault 1.14 and later: auth/jwt, auth/token, sys/leases, sys/wrapping, database, kv, pki.
package vault

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Token types of what the kind makes.
const (
	TokenType    = brokers.TypePrefix + "vault-token"
	WrappingType = brokers.TypePrefix + "vault-wrapping-token"
	SecretType   = brokers.TypePrefix + "vault-secret"
	CertType     = brokers.TypePrefix + "x509-cert"
)

// Settings is the `vault:` block of a target file.
type Settings struct {
	Address    string        `yaml:"address" json:"address" jsonschema:"minLength=1" jsonschema_description:"URL of Vault or OpenBao without a path: https, or http on a loopback address. Required. No redirect is followed: name the active node, or a name that always reaches it."`
	Namespace  string        `yaml:"namespace,omitempty" json:"namespace,omitempty" jsonschema_description:"Namespace of every call, such as team/orders. Default: the root namespace."`
	CAFile     string        `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema_description:"Path of the PEM certificates that Vault's certificate must chain to; relative paths start at the configuration directory. Read at start and reload. Default: the system's."`
	Mount      string        `yaml:"mount,omitempty" json:"mount,omitempty" jsonschema_description:"Path of the jwt auth mount, without auth/. Default: jwt."`
	Audience   string        `yaml:"audience" json:"audience" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"The one aud of the JWT that is shown to Vault; the roles' bound_audiences. Required. Give each Vault its own, or one could log in at another with it."`
	RevokeRole string        `yaml:"revoke_role,omitempty" json:"revoke_role,omitempty" jsonschema_description:"Role of the mount whose policy may revoke and look up tokens by accessor, and nothing else; sallyport trust vault prints it. Required, unless revocable is false or every scope is batch."`
	Revocable  *bool         `yaml:"revocable,omitempty" json:"revocable,omitempty" jsonschema_description:"False gives up on revocation: a credential lives until it ends. Default: true."`
	WrapTTL    time.Duration `yaml:"wrap_ttl,omitempty" json:"wrap_ttl,omitempty" jsonschema_description:"Hand out a single-use wrapping token that lives this long (1s to 1h, never beyond the grant) instead of the credential; callers can still ask for the credential itself by its type. Needs scopes that are tokens, or secrets that are static or that the engine takes back. Default: off."`
	Timeout    time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty" jsonschema_description:"How long one call to Vault may take; 1s to 1m. Default: 10s."`
}

// Scope is what a scope of the target means in Vault: a role to log in with and, beyond the token, what to fetch with it.
type Scope struct {
	Role         string   `yaml:"role" json:"role" jsonschema:"minLength=1" jsonschema_description:"Role of the jwt mount to log in with. Required. Bind it to this target: bound_subject is sallyport: and the target's name."`
	Policies     []string `yaml:"policies,omitempty" json:"policies,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Policies of the child token that is made for the grant, and ends with it; the role's own token needs them too, and the right to make a child. Required where a token is handed out or takes_back is true, but for batch."`
	Read         string   `yaml:"read,omitempty" json:"read,omitempty" jsonschema_description:"Path to read, such as database/creds/orders-ro: what is there is handed out instead of the token. Default: none."`
	TTLParameter string   `yaml:"ttl_parameter,omitempty" json:"ttl_parameter,omitempty" jsonschema_description:"Name of the parameter by which the engine at read takes the wanted life, such as ttl for aws/sts. Default: none is sent."`
	TakesBack    bool     `yaml:"takes_back,omitempty" json:"takes_back,omitempty" jsonschema_description:"The engine at read takes its secret back when the lease is revoked, as database engines do, and cloud sessions do not. Then the secret ends with the grant however long its lease is, and can be revoked. Default: false, and a lease longer than the grant is refused."`
	Static       bool     `yaml:"static,omitempty" json:"static,omitempty" jsonschema_description:"What is at read is no lease but a stored value (kv): it works after the grant has ended, until somebody changes it. Default: false, and what is not leased is refused."`
	Batch        bool     `yaml:"batch,omitempty" json:"batch,omitempty" jsonschema_description:"The role makes batch tokens: Vault stores nothing of them, and they cannot be revoked. Default: false."`
	PKI          *PKI     `yaml:"pki,omitempty" json:"pki,omitempty" jsonschema_description:"Sign the key of the workload's certificate request (parameter x509_csr). Default: none."`
	Covers       []string `yaml:"covers,omitempty" json:"covers,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Other scopes of the target that this one contains, so that a grant of all of them means this one. Needed between scopes that differ in role or path; tokens of one role need none: their policies add up. Default: none."`
}

// PKI is where a certificate is signed, and what it says besides the workload's id.
type PKI struct {
	Path       string `yaml:"path" json:"path" jsonschema:"minLength=1" jsonschema_description:"Path that signs, such as pki/sign/workloads. Required. Paths that make the key (issue) or obey the request (sign-verbatim) are refused."`
	CommonName string `yaml:"common_name,omitempty" json:"common_name,omitempty" jsonschema_description:"Common name of the subject, for servers that look at nothing else. Default: none; the workload's id is the only name."`
}

// Defaults and bounds.
const (
	defaultMount   = "jwt"
	defaultTimeout = 10 * time.Second
	maxTimeout     = time.Minute
	maxWrapTTL     = time.Hour
)

func (s Settings) mount() string { return cmp.Or(s.Mount, defaultMount) }

func (s Settings) timeout() time.Duration { return cmp.Or(s.Timeout, defaultTimeout) }

func (s Settings) revocable() bool { return s.Revocable == nil || *s.Revocable }

// Broker mints for one target. It is immutable; the connections are shared.
type Broker struct {
	target   brokers.Target
	settings Settings
	scopes   map[string]Scope
	deps     brokers.Deps
	vault    *client
}

var (
	_ brokers.BulkRevoker = (*Broker)(nil)
	_ brokers.Former      = (*Broker)(nil)
	_ brokers.Taker       = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	forms := map[string]any{TokenType: "", WrappingType: "", SecretType: vaultSecret{}, CertType: x509Cert{}}
	return brokers.NewKind("vault", brokers.Capabilities{Credentials: forms}, check, build)
}

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Assertions == nil || d.Issuer == "" || d.Now == nil {
		return nil, fmt.Errorf("vault broker of target %s needs an issuer that signs assertions, and a clock", t.Name)
	}
	var pool *x509.CertPool // nil: the system's
	if s.CAFile != "" {
		var err error
		if pool, err = roots(t.Path(s.CAFile)); err != nil {
			return nil, fmt.Errorf("vault broker of target %s: %w", t.Name, err)
		}
	}
	c, err := newClient(s.Address, s.Namespace, pool, s.timeout())
	if err != nil {
		return nil, fmt.Errorf("vault broker of target %s: %w", t.Name, err)
	}
	return &Broker{t, s, maps.Clone(scopes), d, c}, nil
}

// Close closes the connections that are idle.
func (b *Broker) Close() error {
	b.vault.close()
	return nil
}

// Forms implements [brokers.Former].
func (b *Broker) Forms() []string {
	form := TokenType
	for _, s := range b.scopes { // all of them are of one sort
		form = s.form()
	}
	if b.settings.WrapTTL > 0 {
		return []string{WrappingType, form}
	}
	return []string{form}
}

// Parameters implements [brokers.Taker].
func (b *Broker) Parameters() []string {
	for _, s := range b.scopes {
		if s.PKI != nil {
			return []string{csrParameter}
		}
	}
	return nil
}

func (s Scope) form() string {
	switch {
	case s.PKI != nil:
		return CertType
	case s.Read != "":
		return SecretType
	default:
		return TokenType
	}
}

// child reports whether the login makes a token of its own for the grant.
func (s Scope) child() bool { return len(s.Policies) > 0 }

// Mint implements [brokers.Broker].
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	s, err := choose(b.scopes, o.Grant().Scopes())
	if err != nil {
		return brokers.Credential{}, err
	}
	if f := o.Form(); f != "" && !slices.Contains(b.Forms(), f) {
		return brokers.Credential{}, fmt.Errorf("vault, target %s: %w: it has no credential of that type", b.target.Name, brokers.ErrInput)
	}
	m := &mint{Broker: b, order: o, scope: s, wrapped: b.settings.WrapTTL > 0 && o.Form() != s.form()}
	c, err := m.run(ctx)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("vault, target %s: %w", b.target.Name, err)
	}
	c.Audience, c.Scopes = b.target.Name, o.Grant().Scopes()
	return c, nil
}

// choose returns the one meaning of the granted scopes: that of the scope which covers all others, or the token with the
// policies of all.
func choose(scopes map[string]Scope, granted []string) (Scope, error) {
	if len(granted) == 0 {
		return Scope{}, fmt.Errorf("%w: the grant names no scope, and only a scope says what to make; name scopes in the rule", brokers.ErrMisconfigured)
	}
	for _, name := range granted {
		s, ok := scopes[name]
		if !ok {
			return Scope{}, fmt.Errorf("%w: scope %s is not defined", brokers.ErrMisconfigured, name)
		}
		policies, all := slices.Clone(s.Policies), true
		for _, other := range granted {
			switch o := scopes[other]; {
			case other == name || slices.Contains(s.Covers, other):
			case addable(s, o):
				policies = append(policies, o.Policies...)
			default:
				all = false
			}
		}
		if all {
			slices.Sort(policies)
			s.Policies = slices.Compact(policies)
			return s, nil
		}
	}
	return Scope{}, fmt.Errorf("%w: no scope of %v covers the others", brokers.ErrMisconfigured, granted)
}

// addable reports whether two scopes are tokens that differ in nothing but policies.
func addable(a, b Scope) bool {
	return a.form() == TokenType && b.form() == TokenType && a.Role == b.Role && a.Batch == b.Batch
}
