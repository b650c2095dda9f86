// Package github is the broker of installation tokens of a GitHub App: for repositories and permissions that the target's
// scopes name, by their ids and one by one, and for nothing else. GitHub's tokens live an hour; ours end when their lease does,
// by the call with which a token revokes itself, so the token is kept, sealed, until then.
//
// Facts of the API: "Generating an installation access token for a GitHub App", REST version 2022-11-28. A request that leaves
// out repositories or permissions is given all of the App's: every request here has both, and the answer is compared with what
// was asked.
package github

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Type is the issued_token_type of what this broker makes.
const Type = brokers.TypePrefix + "github-installation-token"

// Bounds of the API.
const (
	maxRepositories = 500
	upstreamLife    = time.Hour       // of every token, whatever is asked
	clockSlack      = 2 * time.Minute // between GitHub's clock and ours
)

const defaultAPI = "https://api.github.com"

// Settings is the `github:` block of a target file.
type Settings struct {
	App          string     `yaml:"app" json:"app" jsonschema:"minLength=1,maxLength=64" jsonschema_description:"Client id of the GitHub App, or its App id. Required."`
	Installation int64      `yaml:"installation" json:"installation" jsonschema:"minimum=1" jsonschema_description:"Id of the App's installation, from the URL of its settings. Required. An id is not found by name: names change hands."`
	TransitKey   string     `yaml:"transit_key,omitempty" json:"transit_key,omitempty" jsonschema:"minLength=3,maxLength=128" jsonschema_description:"The App's private key in the transit engine of signing.vault, by its name and version, NAME:VERSION, such as github-app:1: it signs there and never leaves it. Default: none, and private_key is required."`
	PrivateKey   secret.Ref `yaml:"private_key,omitempty" json:"private_key,omitzero" jsonschema_description:"Reference to the App's private key, RSA in PEM as GitHub gives it, read anew for each request. Default: none, and transit_key is required. It can do what the App can: give the App no more than the targets need."`
	API          string     `yaml:"api,omitempty" json:"api,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of the REST API, for GitHub Enterprise Server: https://HOST/api/v3. Default: https://api.github.com."`
	CAFile       string     `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the certificate of the API; relative paths start at the configuration directory. Default: those of the system."`
}

// Scope is what a scope of the target means.
type Scope struct {
	Repositories []int64           `yaml:"repositories" json:"repositories" jsonschema:"minItems=1,maxItems=500" jsonschema_description:"Ids of repositories, 1 to 500 (gh api repos/OWNER/NAME --jq .id). Required: none would mean all."`
	Permissions  map[string]string `yaml:"permissions" json:"permissions" jsonschema:"minProperties=1" jsonschema_description:"Permissions by name, each read, write or admin, such as contents: read. Required: none would mean all of the App's."`
}

// Broker mints for one target. It is safe for concurrent use.
type Broker struct {
	target string
	app    string
	path   string
	key    func(context.Context) (any, error) // what signs the App's JWT
	scopes map[string]Scope
	api    *api
	now    func() time.Time
}

var (
	_ brokers.Revoker = (*Broker)(nil)
	_ brokers.Former  = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("github", brokers.Capabilities{Credentials: map[string]any{Type: ""}}, check, build)
}

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	api, err := newAPI(t, s)
	if err != nil {
		return nil, err
	}
	return &Broker{
		target: t.Name, app: s.App, path: fmt.Sprintf("/app/installations/%d/access_tokens", s.Installation), scopes: maps.Clone(scopes), api: api, now: d.Now,
		key: keyOf(t, s, d.KMS),
	}, nil
}

// Forms implements [brokers.Former].
func (*Broker) Forms() []string { return []string{Type} }

// Close closes idle connections.
func (b *Broker) Close() error {
	b.api.http.CloseIdleConnections()
	return nil
}

// levels of permissions, each with what is below it.
var levels = []string{"read", "write", "admin"}

// asked is what scopes mean together. A token has its permissions in all of its repositories: scopes of several sets of
// repositories cannot be had at once.
func (b *Broker) asked(scopes []string) (Scope, error) {
	if len(scopes) == 0 {
		return Scope{}, fmt.Errorf("%w: the grant names no scope, and it is they that say which repositories; name scopes in the rule", brokers.ErrMisconfigured)
	}
	out := Scope{Permissions: map[string]string{}}
	for i, name := range scopes {
		s, ok := b.scopes[name]
		if !ok {
			return Scope{}, fmt.Errorf("%w: scope %s is not one of the target's", brokers.ErrMisconfigured, name)
		}
		repositories := slices.Sorted(slices.Values(s.Repositories))
		if i > 0 && !slices.Equal(repositories, out.Repositories) {
			return Scope{}, fmt.Errorf("%w: scopes %s are of several sets of repositories, and a token has its permissions in all of its own; ask for one of them", brokers.ErrScopes, strings.Join(scopes, ", "))
		}
		out.Repositories = repositories
		for permission, level := range s.Permissions {
			if slices.Index(levels, level) > slices.Index(levels, out.Permissions[permission]) {
				out.Permissions[permission] = level
			}
		}
	}
	return out, nil
}
