// Package gcp is the broker of Google Cloud tokens by workload identity federation: no Google credential is held. A provider of a
// workload identity pool trusts our assertion issuer; the broker exchanges an assertion for a federated token, and that for a token of a
// service account, bounded by the target's scopes.
//
// Facts of the APIs: Security Token Service v1 (token), IAM Service Account Credentials v1 (generateAccessToken, generateIdToken). Google
// takes no token back: receipts say when it dies, and what an administrator can do before.
package gcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// What this broker makes, by issued_token_type.
const (
	AccessTokenType = brokers.TypePrefix + "gcp-access-token"
	IDTokenType     = brokers.TypePrefix + "gcp-id-token"
)

// Bounds of the APIs.
const (
	mostLife   = time.Hour       // of a token whose life can be chosen, without an organisation policy
	fixedLife  = time.Hour       // of one whose life cannot
	clockSlack = 2 * time.Minute // between Google's clock and ours
	slack      = 5 * time.Second // Google counts from when it reads the request, and must not outlive the grant
	maxRules   = 10              // of a credential access boundary
	maxSubject = 127             // bytes of google.subject
)

// Settings is the `gcp:` block of a target file.
type Settings struct {
	Provider       string `yaml:"provider" json:"provider" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"Resource name of the provider: projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER. Required."`
	ServiceAccount string `yaml:"service_account,omitempty" json:"service_account,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"Service account whose token is made: its numeric unique id, which nobody can take over, or its e-mail address. Default: none, and the federated token itself is given, which lives an hour: see outlives_grant."`
	IDAudience     string `yaml:"id_token_audience,omitempty" json:"id_token_audience,omitempty" jsonschema:"minLength=1,maxLength=2048" jsonschema_description:"aud of an ID token of the service account, which is made in the place of an access token, for Cloud Run and others; it lives an hour: see outlives_grant. Default: an access token."`
	OutlivesGrant  bool   `yaml:"outlives_grant,omitempty" json:"outlives_grant,omitempty" jsonschema_description:"true: accept that the token works for up to an hour, whatever its grant and whatever is revoked. Required, and only allowed, where Google chooses the life: without a service_account, and for ID tokens."`
	HandOver       bool   `yaml:"hand_over,omitempty" json:"hand_over,omitempty" jsonschema_description:"true: the assertion itself is given, for Google's libraries to exchange (external_account). The workload then chooses scopes and lifetime, and has tokens that nobody here knows of. Default: false."`
	Audience       string `yaml:"audience,omitempty" json:"audience,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"aud of our assertion, one of the provider's allowed audiences. Default: https://iam.googleapis.com/PROVIDER."`
	Algorithm      string `yaml:"algorithm,omitempty" json:"algorithm,omitempty" jsonschema:"minLength=1" jsonschema_description:"Algorithm of our assertion, RS256 or ES256; one of signing.algorithms. Default: the first of them."`
	STS            string `yaml:"sts,omitempty" json:"sts,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of another Security Token Service. Default: https://sts.googleapis.com."`
	IAMCredentials string `yaml:"iam_credentials,omitempty" json:"iam_credentials,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of another Service Account Credentials API. Default: https://iamcredentials.googleapis.com."`
	CAFile         string `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the certificates of both; relative paths start at the configuration directory. Default: those of the system."`
}

// Scope is what a scope of the target means.
type Scope struct {
	Scopes   []string `yaml:"scopes,omitempty" json:"scopes,omitempty" jsonschema:"minItems=1" jsonschema_description:"OAuth scopes of Google, such as https://www.googleapis.com/auth/devstorage.read_only. Required for access tokens."`
	Boundary []Rule   `yaml:"boundary,omitempty" json:"boundary,omitempty" jsonschema:"minItems=1,maxItems=10" jsonschema_description:"Rules of a credential access boundary, 1 to 10: what the token may do at most. Google heeds it for Cloud Storage. Default: none."`
}

// Rule is one of a credential access boundary.
type Rule struct {
	Resource    string   `yaml:"resource" json:"resource" jsonschema:"minLength=1,maxLength=2048" jsonschema_description:"Full resource name, such as //storage.googleapis.com/projects/_/buckets/NAME. Required."`
	Permissions []string `yaml:"permissions" json:"permissions" jsonschema:"minItems=1" jsonschema_description:"Roles whose permissions are left, such as inRole:roles/storage.objectViewer. Required."`
	Condition   string   `yaml:"condition,omitempty" json:"condition,omitempty" jsonschema:"minLength=1,maxLength=2048" jsonschema_description:"IAM condition (CEL) on the resource. Default: none."`
}

// Broker mints for one target. It is safe for concurrent use.
type Broker struct {
	target    string
	settings  Settings
	scopes    map[string]Scope
	deps      brokers.Deps
	http      *http.Client
	sts, iam  string // URLs without a slash at their ends
	audience  string
	algorithm string
}

var (
	_ brokers.Revoker = (*Broker)(nil)
	_ brokers.Former  = (*Broker)(nil)
)

// chosen reports whether the life of what is given can be chosen.
func (s Settings) chosen() bool { return s.ServiceAccount != "" && s.IDAudience == "" }

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("gcp", brokers.Capabilities{Credentials: map[string]any{AccessTokenType: "", IDTokenType: ""}}, check, build)
}

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Assertions == nil || d.Issuer == "" {
		return nil, fmt.Errorf("gcp broker of target %s needs a signer of assertions and an issuer", t.Name)
	}
	roots, err := upstream.Authorities(t, s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("gcp broker of target %s: %w", t.Name, err)
	}
	b := &Broker{target: t.Name, settings: s, scopes: maps.Clone(scopes), deps: d, http: upstream.NewClient(roots, 4), audience: audience(s), algorithm: s.Algorithm}
	if b.sts, err = endpoint(s.STS, "https://sts.googleapis.com"); err != nil {
		return nil, fmt.Errorf("gcp broker of target %s: sts %w", t.Name, err)
	}
	if b.iam, err = endpoint(s.IAMCredentials, "https://iamcredentials.googleapis.com"); err != nil {
		return nil, fmt.Errorf("gcp broker of target %s: iam_credentials %w", t.Name, err)
	}
	return b, nil
}

// Forms implements [brokers.Former].
func (b *Broker) Forms() []string {
	switch {
	case b.settings.HandOver:
		return []string{upstream.AssertionType}
	case b.settings.IDAudience != "":
		return []string{IDTokenType}
	default:
		return []string{AccessTokenType}
	}
}

// Close closes idle connections.
func (b *Broker) Close() error {
	b.http.CloseIdleConnections()
	return nil
}

func audience(s Settings) string {
	if s.Audience == "" {
		return "https://iam.googleapis.com/" + s.Provider
	}
	return s.Audience
}

func endpoint(set, otherwise string) (string, error) {
	if set == "" {
		return otherwise, nil
	}
	_, err := upstream.ParseURL(set, otherwise)
	return strings.TrimSuffix(set, "/"), err
}

// bounds is what scopes mean together: OAuth scopes, and rules, nil for no boundary.
func (b *Broker) bounds(scopes []string) (oauth []string, rules []Rule, err error) {
	if len(scopes) == 0 {
		return nil, nil, fmt.Errorf("%w: the grant names no scope, and it is they that bound the token; name scopes in the rule", brokers.ErrMisconfigured)
	}
	whole := false
	for _, name := range scopes {
		s, ok := b.scopes[name]
		if !ok {
			return nil, nil, fmt.Errorf("%w: scope %s is not one of the target's", brokers.ErrMisconfigured, name)
		}
		oauth = append(oauth, s.Scopes...)
		rules = append(rules, s.Boundary...)
		whole = whole || len(s.Boundary) == 0
	}
	slices.Sort(oauth)
	oauth = slices.Compact(oauth)
	if whole { // one of them has no boundary: the others take nothing away from it
		rules = nil
	}
	if len(rules) > maxRules {
		return nil, nil, fmt.Errorf("%w: the boundaries of scopes %s have %d rules together, and one has at most %d; ask for fewer", brokers.ErrScopes, strings.Join(scopes, ", "), len(rules), maxRules)
	}
	return oauth, rules, nil
}

// options is a credential access boundary as the STS takes it.
func options(rules []Rule) (string, error) {
	type condition struct {
		Expression string `json:"expression"`
	}
	type rule struct {
		Resource    string     `json:"availableResource"`
		Permissions []string   `json:"availablePermissions"`
		Condition   *condition `json:"availabilityCondition,omitempty"`
	}
	out := make([]rule, len(rules))
	for i, r := range rules {
		out[i] = rule{Resource: r.Resource, Permissions: r.Permissions}
		if r.Condition != "" {
			out[i].Condition = &condition{r.Condition}
		}
	}
	text, err := json.Marshal(map[string]any{"accessBoundary": map[string]any{"accessBoundaryRules": out}})
	return string(text), err
}

var provider = regexp.MustCompile(`^projects/([1-9][0-9]{0,18})/locations/global/workloadIdentityPools/([a-z0-9-]{4,32})/providers/([a-z0-9-]{4,32})$`)

var (
	uniqueID = regexp.MustCompile(`^[0-9]{15,25}$`)
	email    = regexp.MustCompile(`^[a-z0-9.-]{1,64}@[a-z0-9.-]{1,190}$`)
)
