// Package kubernetes is the broker of service-account tokens of another cluster, made by its TokenRequest API. Each is
// bound to a Secret of its own, empty and named after its lease, because a bound token dies with what it is bound to:
//
//	Mint:   POST Secret ──▶ POST serviceaccounts/NAME/token, bound to it ──▶ look at what the token says of itself
//	Revoke: DELETE Secret ──▶ GET Secret, until it is not there
//
// The token is believed only as far as its claims agree with what was asked: the service account, the audiences, the
// Secret, and an end no later than the grant's. Anything else is taken back and not handed out.
//
// What revocation is worth depends on who checks the token. The API server, and whoever asks it (TokenReview), looks for
// the Secret, and forgets within ten seconds what it looked up before. Whoever verifies offline, by the cluster's key
// set, never looks: such a token dies at its own end, and the receipt says so.
//
// Nothing of client-go is used: three calls of plain REST (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
package kubernetes

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Settings is the `kubernetes:` block of a target file.
type Settings struct {
	Server      string     `yaml:"server" json:"server" jsonschema:"minLength=1" jsonschema_description:"https URL of the cluster's API server, such as https://api.other.example:6443. Required. Its certificate is always verified, redirects are not followed, and no proxy is used."`
	CAFile      string     `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the certificate of the API server; relative paths start at the configuration directory. Read when the configuration is loaded. Default: those of the system."`
	Namespace   string     `yaml:"namespace" json:"namespace" jsonschema:"minLength=1,maxLength=63" jsonschema_description:"Namespace of the target's service accounts, and of the Secrets that tokens are bound to. Required. Its Secrets can be listed and deleted by this service, so it should hold nothing else."`
	APIAccess   bool       `yaml:"api_access,omitempty" json:"api_access,omitempty" jsonschema_description:"Make tokens for the cluster's API server itself: their audience is its own. Default: false, and audiences is required."`
	Audiences   []string   `yaml:"audiences,omitempty" json:"audiences,omitempty" jsonschema:"minItems=1,maxItems=8" jsonschema_description:"Audiences of the tokens: the services that are to accept them. Required unless api_access is true; never the API server's own."`
	TokenReview bool       `yaml:"token_review,omitempty" json:"token_review,omitempty" jsonschema_description:"With audiences: every one of these services asks the API server about each token (TokenReview) and remembers the answer for no longer than 10s. Default: false, and a revoked token is said to die at its own end: whoever verifies by the key set never notices that it was revoked."`
	Assertion   *Assertion `yaml:"assertion,omitempty" json:"assertion,omitempty" jsonschema_description:"Log in with a JWT that this service signs anew for each request; the API server trusts its issuer (AuthenticationConfiguration). Exactly one of assertion and token is required."`
	Token       secret.Ref `yaml:"token,omitempty" json:"token,omitempty" jsonschema_description:"Log in with a bearer token that is read anew for each request, such as the token of this service's own service account in the same cluster. Exactly one of assertion and token is required."`
}

// Assertion says what our JWT says to the API server.
type Assertion struct {
	Audience string `yaml:"audience" json:"audience" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"aud of the JWT: one of issuer.audiences in the API server's AuthenticationConfiguration. Required. Give each cluster its own, or one can use our login at another."`
}

// Scope is what a scope of the target means.
type Scope struct {
	ServiceAccount string `yaml:"service_account" json:"service_account" jsonschema:"minLength=1,maxLength=253" jsonschema_description:"Name of the service account whose tokens are made. Required. What it may do is the cluster's RBAC."`
	UID            string `yaml:"uid,omitempty" json:"uid,omitempty" jsonschema:"minLength=1,maxLength=64" jsonschema_description:"uid of that service account (kubectl get serviceaccount NAME -o jsonpath={.metadata.uid}). Default: none. With it, an account that was deleted and made again under the same name gets no token."`
}

// Lifetimes of tokens.
const (
	leastLife = 10 * time.Minute // the API server refuses less
	// slack is how much earlier than its grant a token ends: the API server counts from when it reads the request, by
	// its own clock, so that asking for all that is left would outlive the grant by as long as that took.
	slack = 5 * time.Second
	// MinLifetime is the shortest grant that this broker takes: what the API server gives at least, and what may pass
	// between the decision and the request. A rule of ten minutes could never be served.
	MinLifetime = leastLife + 30*time.Second
)

// Type is the issued_token_type of what this broker makes.
const Type = brokers.TypePrefix + "kubernetes-token"

// Labels and annotations of Secrets. Lists are by the label of the target: service and target, hashed, since names of
// targets can be longer than a label.
const (
	labelManager = "app.kubernetes.io/managed-by"
	manager      = "sallyport"
	ours         = "sallyport-sts.github.io/"
	labelTarget  = ours + "target"
	noteTarget   = ours + "target-name"
	noteLease    = ours + "lease"
	noteExpires  = ours + "expires"
)

// Broker mints for one target. It is safe for concurrent use.
type Broker struct {
	target    string
	label     string // of this service's target
	namespace string
	audiences []string // nil: the API server's own
	checked   bool     // whoever takes a token asks the API server about it
	scopes    map[string]Scope
	api       *api
	now       func() time.Time
}

var (
	_ brokers.Lister = (*Broker)(nil)
	_ io.Closer      = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("kubernetes", brokers.Capabilities{MinLifetime: MinLifetime, Credentials: map[string]any{Type: ""}}, check, build)
}

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	login, err := newLogin(t, s, d)
	if err != nil {
		return nil, err
	}
	api, err := newAPI(t, s, login)
	if err != nil {
		return nil, err
	}
	return &Broker{
		target:    t.Name,
		label:     label(d.Issuer, t.Name),
		namespace: s.Namespace,
		audiences: slices.Clone(s.Audiences),
		checked:   s.APIAccess || s.TokenReview,
		scopes:    maps.Clone(scopes),
		api:       api,
		now:       d.Now,
	}, nil
}

// label tells the Secrets of one service's target from those of any other in the same namespace: a sweep must not take
// another's live credentials for orphans.
func label(issuer, target string) string {
	sum := sha256.Sum256([]byte(issuer + "\n" + target))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// Forms implements [brokers.Former].
func (*Broker) Forms() []string { return []string{Type} }

// Close closes idle connections.
func (b *Broker) Close() error {
	b.api.http.CloseIdleConnections()
	return nil
}

// account returns the service account that scopes mean. A token is for one: scopes of several cannot be had at once.
func (b *Broker) account(scopes []string) (Scope, error) {
	if len(scopes) == 0 {
		return Scope{}, fmt.Errorf("%w: the grant names no scope, and each means a service account; name scopes in the rule", brokers.ErrMisconfigured)
	}
	var one Scope
	for i, name := range scopes {
		s, ok := b.scopes[name]
		if !ok {
			return Scope{}, fmt.Errorf("%w: scope %s is not one of the target's", brokers.ErrMisconfigured, name)
		}
		if i > 0 && s != one {
			return Scope{}, fmt.Errorf("%w: scopes %s mean several service accounts, and a token is for one; ask for one of them", brokers.ErrScopes, strings.Join(scopes, ", "))
		}
		one = s
	}
	return one, nil
}

// Secrets are named like their lease, with - for _, which no Kubernetes name may have (RFC 1123 labels). Neither occurs
// in what a name is made of, so that both ways are exact.

func upstreamName(name string) (string, error) {
	if _, ok := brokers.ParseName(name); !ok {
		return "", errors.New("the name is not one that this service gives")
	}
	return strings.ReplaceAll(name, "_", "-"), nil
}

func ownName(upstream string) (name string, expires time.Time, ok bool) {
	if strings.Contains(upstream, "_") {
		return "", time.Time{}, false
	}
	name = strings.ReplaceAll(upstream, "-", "_")
	expires, ok = brokers.ParseName(name)
	return name, expires, ok
}

func (b *Broker) secrets(namespace string) string {
	return "/api/v1/namespaces/" + namespace + "/secrets"
}

// Mint implements [brokers.Broker].
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	account, err := b.account(o.Grant().Scopes())
	if err != nil {
		return brokers.Credential{}, err
	}
	if _, err := b.seconds(o, time.Time{}); err != nil { // before anything is made
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrTooShort, err)
	}
	held, err := b.hold(ctx, o)
	if err != nil {
		return brokers.Credential{}, err
	}
	value, expires, err := b.request(ctx, o, account, held)
	if err != nil {
		return brokers.Credential{}, b.drop(ctx, held.Metadata.Name, err)
	}
	return brokers.Credential{
		Type:      Type,
		TokenType: "Bearer",
		Value:     value,
		Audience:  o.Grant().Target(),
		Scopes:    o.Grant().Scopes(),
		Expires:   expires,
		Data:      b.note(),
	}, nil
}
