// Package aws is the broker of AWS sessions by AssumeRoleWithWebIdentity: no AWS credential is held. AWS trusts our assertion
// issuer as an OIDC provider, and a role trusts the subject of one target. The assertion carries session tags and, as source
// identity, the family of the lease, so that CloudTrail says for whom a session was; an inline session policy from the target's scopes
// bounds what it may do.
//
// Facts of the API: STS, version 2011-06-15, in query form. A session cannot be taken back by its holder or by us: receipts say when it
// dies, and what an administrator can do before.
package aws

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// Type is the issued_token_type of what this broker makes.
const Type = brokers.TypePrefix + "aws-session"

// Bounds of the API.
const (
	leastLife    = 15 * time.Minute // 900 s
	longestLife  = 12 * time.Hour   // of a role's sessions
	slack        = 5 * time.Second  // AWS counts from when it reads the request, and must not outlive the grant
	maxPolicy    = 2048             // characters of the inline policy
	maxARNs      = 10
	maxSession   = 64
	maxTagValue  = 256
	defaultAud   = "sts.amazonaws.com"
	policyFormat = "2012-10-17"
)

// MinLifetime is the shortest grant that this broker takes: what AWS gives at least, and what may pass between the decision and
// the request.
const MinLifetime = leastLife + 30*time.Second

// Settings is the `aws:` block of a target file.
type Settings struct {
	Role       string   `yaml:"role" json:"role" jsonschema:"minLength=20,maxLength=2048" jsonschema_description:"ARN of the role, arn:aws:iam::ACCOUNT:role/NAME. Required. Give each target a role of its own: what its trust policy says is about this target's subject."`
	Region     string   `yaml:"region" json:"region" jsonschema:"minLength=1,maxLength=32" jsonschema_description:"Region whose STS is asked and whose name the credential carries, such as eu-west-1. Required."`
	Login      string   `yaml:"login,omitempty" json:"login,omitempty" jsonschema:"enum=assertion,enum=inside" jsonschema_description:"assertion: AssumeRoleWithWebIdentity, with an assertion of ours; no AWS credential is held. inside: AssumeRole, for a service that runs in AWS, as the role of its instance, task or pod; the account then need not reach our keys. Default: assertion."`
	ExternalID string   `yaml:"external_id,omitempty" json:"external_id,omitempty" jsonschema:"minLength=2,maxLength=1224" jsonschema_description:"External id that the role's trust policy demands. Only with login: inside. Default: none."`
	HandOver   bool     `yaml:"hand_over,omitempty" json:"hand_over,omitempty" jsonschema_description:"true: the assertion itself is given, for SDKs that read AWS_WEB_IDENTITY_TOKEN_FILE. The workload then chooses the session's name, policy and lifetime, and has sessions that nobody here knows of. Default: false."`
	Audience   string   `yaml:"audience,omitempty" json:"audience,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"aud of our assertion: a client id of the OIDC provider in IAM. Default: sts.amazonaws.com."`
	Endpoint   string   `yaml:"endpoint,omitempty" json:"endpoint,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of another STS. Default: https://sts.REGION.amazonaws.com/."`
	CAFile     string   `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the certificate of the endpoint; relative paths start at the configuration directory. Default: those of the system."`
	Algorithm  string   `yaml:"algorithm,omitempty" json:"algorithm,omitempty" jsonschema:"minLength=1" jsonschema_description:"Algorithm of our assertion; one of signing.algorithms. Default: the first of them."`
	Revoker    *Revoker `yaml:"revoker,omitempty" json:"revoker,omitempty" jsonschema_description:"How sessions are ended before their time: by a denial that names them, in an inline policy of the role. Default: they are not."`
	Compatible bool     `yaml:"compatible,omitempty" json:"compatible,omitempty" jsonschema_description:"true: the endpoint is not AWS but a store with the same API, which knows no session tags, no source identity and no roles: they are not sent, and not looked for in the answer. Only with endpoint. Default: false."`
}

// Revoker is the block of the role that denies.
type Revoker struct {
	Role     string `yaml:"role" json:"role" jsonschema:"minLength=20,maxLength=2048" jsonschema_description:"ARN of a role of the same account that may list, read, write and delete inline policies of the target's role, and nothing else. Required."`
	Endpoint string `yaml:"endpoint,omitempty" json:"endpoint,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of another IAM. Default: that of the partition, https://iam.amazonaws.com/."`
}

// Scope is what a scope of the target means: what the role may do in such a session is what its own policies and this allow.
type Scope struct {
	Policy map[string]any `yaml:"policy,omitempty" json:"policy,omitempty" jsonschema_description:"Inline session policy: {Version: '2012-10-17', Statement: [...]}, as in IAM. Nothing of a caller is put into it. Default: none."`
	ARNs   []string       `yaml:"policy_arns,omitempty" json:"policy_arns,omitempty" jsonschema:"minItems=1,maxItems=10" jsonschema_description:"ARNs of managed policies that bound the session as well. Default: none."`
	All    bool           `yaml:"whole_role,omitempty" json:"whole_role,omitempty" jsonschema_description:"true: the session may do all that the role may. Default: false, and policy or policy_arns is required."`
}

// Broker mints for one target. It is safe for concurrent use.
type Broker struct {
	target    string
	settings  Settings
	scopes    map[string]Scope
	sts, iam  *api                    // iam: nil without a revoker
	inside    aws.CredentialsProvider // of this service, where it runs in AWS; nil: assertions are shown
	role      role
	deps      brokers.Deps
	audience  string
	algorithm string
}

var (
	_ brokers.BulkRevoker = (*Broker)(nil)
	_ brokers.Former      = (*Broker)(nil)
)

// credential is what access_token holds.
type credential struct {
	Type         string    `json:"type" jsonschema:"const=aws-session"`
	Version      int       `json:"version" jsonschema:"const=1"`
	AccessKey    string    `json:"AccessKeyId"`
	SecretKey    string    `json:"SecretAccessKey"`
	SessionToken string    `json:"SessionToken"`
	Expiration   time.Time `json:"Expiration"`
	Region       string    `json:"Region"`
}

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("aws", brokers.Capabilities{MinLifetime: MinLifetime, Credentials: map[string]any{Type: credential{}}}, check, build)
}

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Assertions == nil || d.Issuer == "" {
		return nil, fmt.Errorf("aws broker of target %s needs a signer of assertions and an issuer", t.Name)
	}
	endpoint, err := stsEndpoint(s)
	if err != nil {
		return nil, fmt.Errorf("aws broker of target %s: endpoint %w", t.Name, err)
	}
	roots, err := upstream.Authorities(t, s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("aws broker of target %s: %w", t.Name, err)
	}
	role, err := parseRole(s)
	if err != nil {
		return nil, fmt.Errorf("aws broker of target %s: role %w", t.Name, err)
	}
	b := &Broker{
		target: t.Name, settings: s, scopes: maps.Clone(scopes), sts: newAPI(endpoint, roots), deps: d, role: role, audience: audience(s), algorithm: s.Algorithm,
	}
	if s.Login == loginInside {
		b.inside = insideAWS()
	}
	if s.Revoker != nil {
		if endpoint, err = iamEndpoint(s); err != nil {
			return nil, fmt.Errorf("aws broker of target %s: revoker.endpoint %w", t.Name, err)
		}
		b.iam = newAPI(endpoint, roots)
	}
	return b, nil
}

func audience(s Settings) string {
	if s.Audience == "" {
		return defaultAud
	}
	return s.Audience
}

// Forms implements [brokers.Former].
func (b *Broker) Forms() []string {
	if b.settings.HandOver {
		return []string{upstream.AssertionType}
	}
	return []string{Type}
}

// Close closes idle connections.
func (b *Broker) Close() error {
	b.sts.http.CloseIdleConnections()
	if b.iam != nil {
		b.iam.http.CloseIdleConnections()
	}
	return nil
}

// role is an ARN of a role.
type role struct{ partition, account, path, name string } // path: /, or /.../

func (r role) session() string {
	return "arn:" + r.partition + ":sts::" + r.account + ":assumed-role/" + r.name + "/"
}

// parseRole reads arn:PARTITION:iam::ACCOUNT:role/[PATH/]NAME. A session's ARN has the name without the path. Compatible stores have
// ARNs of their own.
func parseRole(of Settings) (role, error) {
	s := of.Role
	if of.Compatible && strings.HasPrefix(s, "arn:") && len(s) >= 20 && upstream.IsWord(s, 2048) {
		return role{}, nil
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || parts[3] != "" || !strings.HasPrefix(parts[5], "role/") {
		return role{}, fmt.Errorf("is no ARN of a role; write arn:aws:iam::ACCOUNT:role/NAME")
	}
	slash := strings.LastIndexByte(parts[5], '/') + 1
	name, path := parts[5][slash:], parts[5][len("role"):slash]
	ok := func(s, more string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
		})
	}
	if !ok(parts[1], "-") || len(parts[4]) != 12 || strings.Trim(parts[4], "0123456789") != "" || !ok(name, "+=,.@-_") || len(name) > 64 || len(path) > 512 || !ok(path, "+=,.@-_/") || strings.Contains(path, "//") {
		return role{}, fmt.Errorf("is no ARN of a role; write arn:aws:iam::ACCOUNT:role/NAME")
	}
	return role{parts[1], parts[4], path, name}, nil
}

// bounds is what scopes mean together: the inline policy, "" for none, and the managed ones.
func (b *Broker) bounds(scopes []string) (policy string, arns []string, err error) {
	if len(scopes) == 0 {
		return "", nil, fmt.Errorf("%w: the grant names no scope, and it is they that bound the session; name scopes in the rule", brokers.ErrMisconfigured)
	}
	all := false
	var statements []any
	for _, name := range scopes {
		s, ok := b.scopes[name]
		if !ok {
			return "", nil, fmt.Errorf("%w: scope %s is not one of the target's", brokers.ErrMisconfigured, name)
		}
		all = all || s.All
		statements = append(statements, statementsOf(s.Policy)...)
		for _, a := range s.ARNs {
			if !slices.Contains(arns, a) {
				arns = append(arns, a)
			}
		}
	}
	if all { // one of them may do all: the others take nothing away from it
		return "", nil, nil
	}
	if len(statements) > 0 {
		if policy, err = encode(statements); err != nil {
			return "", nil, fmt.Errorf("%w: the policy cannot be written as JSON", brokers.ErrMisconfigured)
		}
	}
	if len(policy) > maxPolicy || len(arns) > maxARNs {
		return "", nil, fmt.Errorf("%w: the policies of scopes %s are larger together than a session's may be; ask for fewer", brokers.ErrScopes, strings.Join(scopes, ", "))
	}
	return policy, arns, nil
}

// statementsOf returns the statements of a policy, one or several.
func statementsOf(policy map[string]any) []any {
	switch s := policy["Statement"].(type) {
	case nil:
		return nil
	case []any:
		return s
	default:
		return []any{s}
	}
}

func encode(statements []any) (string, error) {
	raw, err := json.Marshal(map[string]any{"Version": policyFormat, "Statement": statements})
	return string(raw), err
}
