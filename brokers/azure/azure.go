// Package azure is the broker of Microsoft Entra access tokens by workload identity federation: no client secret is held. An application
// (or a user-assigned managed identity) has a federated credential that trusts the subject of one target; the broker shows an assertion
// and gets a token for one resource.
//
// Facts of the API: OAuth 2.0 client credentials with a federated credential, Microsoft identity platform v2.0. Entra narrows no token,
// chooses its life, 60 to 90 minutes or up to a day, and takes none back.
package azure

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// Type is the issued_token_type of what this broker makes.
const Type = brokers.TypePrefix + "azure-access-token"

// Bounds of the API.
const (
	longestLife     = 24 * time.Hour // of a token for a resource that evaluates access continuously
	clockSlack      = 2 * time.Minute
	defaultAudience = "api://AzureADTokenExchange"
	defaultAt       = "https://login.microsoftonline.com"
	maxSubject      = 600 // characters of a federated credential's subject
)

// Settings is the `azure:` block of a target file.
type Settings struct {
	Tenant        string `yaml:"tenant" json:"tenant" jsonschema:"format=uuid" jsonschema_description:"Id of the directory, a GUID. Required. A domain changes hands."`
	Client        string `yaml:"client" json:"client" jsonschema:"format=uuid" jsonschema_description:"Client id of the application or of the user-assigned managed identity, a GUID. Required. Give each target one of its own: Entra narrows no token, so its rights are the target's."`
	Resource      string `yaml:"resource,omitempty" json:"resource,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"Resource that the token is for, such as https://vault.azure.net or api://GUID; /.default is added. Required unless hand_over: true."`
	OutlivesGrant bool   `yaml:"outlives_grant,omitempty" json:"outlives_grant,omitempty" jsonschema_description:"true: accept that the token works for 60 to 90 minutes, at some resources for up to a day, whatever its grant and whatever is revoked. Required unless hand_over: true: Entra gives no other."`
	HandOver      bool   `yaml:"hand_over,omitempty" json:"hand_over,omitempty" jsonschema_description:"true: the assertion itself is given, for SDKs that read AZURE_FEDERATED_TOKEN_FILE. The workload then has tokens that nobody here knows of. Default: false."`
	Audience      string `yaml:"audience,omitempty" json:"audience,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"aud of our assertion, that of the federated credential. Default: api://AzureADTokenExchange; national clouds have others."`
	Algorithm     string `yaml:"algorithm,omitempty" json:"algorithm,omitempty" jsonschema:"minLength=1" jsonschema_description:"Algorithm of our assertion: RS256, the only one that Entra takes; it has to be one of signing.algorithms. Default: the first of those."`
	Authority     string `yaml:"authority,omitempty" json:"authority,omitempty" jsonschema:"minLength=1" jsonschema_description:"https URL of another authority, such as https://login.microsoftonline.us. Default: https://login.microsoftonline.com."`
	CAFile        string `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the authority's certificate; relative paths start at the configuration directory. Default: those of the system."`
}

// Scope is what a scope of the target means: nothing, so there is none.
type Scope struct{}

// Broker mints for one target. It is safe for concurrent use.
type Broker struct {
	target   string
	settings Settings
	deps     brokers.Deps
	http     *http.Client
	url      string
	audience string
}

var (
	_ brokers.Revoker = (*Broker)(nil)
	_ brokers.Former  = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("azure", brokers.Capabilities{Credentials: map[string]any{Type: ""}}, check, build)
}

func build(t brokers.Target, s Settings, _ map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Assertions == nil || d.Issuer == "" {
		return nil, fmt.Errorf("azure broker of target %s needs a signer of assertions and an issuer", t.Name)
	}
	roots, err := upstream.Authorities(t, s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("azure broker of target %s: %w", t.Name, err)
	}
	at, err := authority(s)
	if err != nil {
		return nil, fmt.Errorf("azure broker of target %s: authority %w", t.Name, err)
	}
	return &Broker{
		target: t.Name, settings: s, deps: d, http: upstream.NewClient(roots, 4), url: at + "/" + url.PathEscape(s.Tenant) + "/oauth2/v2.0/token", audience: audience(s),
	}, nil
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
	b.http.CloseIdleConnections()
	return nil
}

func audience(s Settings) string {
	if s.Audience == "" {
		return defaultAudience
	}
	return s.Audience
}

func authority(s Settings) (string, error) {
	if s.Authority == "" {
		return defaultAt, nil
	}
	_, err := upstream.ParseURL(s.Authority, defaultAt)
	return strings.TrimSuffix(s.Authority, "/"), err
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if !guid.MatchString(s.Tenant) {
		bad("tenant", "tenant %q is no GUID in lower case; see: az account show --query tenantId", s.Tenant)
	}
	if !guid.MatchString(s.Client) {
		bad("client", "client %q is no GUID in lower case; it is the appId of the application, or the clientId of the managed identity", s.Client)
	}
	switch {
	case s.HandOver && (s.Resource != "" || s.OutlivesGrant):
		bad("hand_over", "with hand_over: true it is the workload that asks Entra for tokens; leave resource and outlives_grant out, or hand_over")
	case s.HandOver:
	case !upstream.IsWord(s.Resource, 255) || !strings.HasPrefix(s.Resource, "https://") && !strings.HasPrefix(s.Resource, "api://") || strings.HasSuffix(s.Resource, "/.default"):
		bad("resource", "resource %q is none; write for instance https://vault.azure.net, without /.default", s.Resource)
	case !s.OutlivesGrant:
		bad("outlives_grant", "Entra chooses the life of a token, 60 to 90 minutes and at some resources a day, and takes none back: it outlives its grant and every revocation; accept that with outlives_grant: true, or do not give such tokens")
	}
	if s.Audience != "" && !upstream.IsWord(s.Audience, 255) {
		bad("audience", "audience %q is not 1 to 255 printable ASCII characters without blanks", s.Audience)
	}
	out = append(out, upstream.CheckAlgorithm(t, s.Algorithm, "RS256")...)
	if _, err := authority(s); err != nil {
		bad("authority", "authority %q %s", s.Authority, err)
	}
	if _, err := upstream.Authorities(t, s.CAFile); err != nil {
		bad("ca_file", "%s; it takes PEM certificates", err)
	}
	if n := len(upstream.Subject(t.Name)); n > maxSubject {
		bad("client", "the target's name makes a subject of %d characters, and Entra takes %d; give it a shorter name", n, maxSubject)
	}
	if len(scopes) > 0 {
		bad("scopes.", "Entra narrows no token, so scopes would promise what nobody keeps; leave them out, and make a target with an application of its own for each set of rights")
	}
	return out
}
