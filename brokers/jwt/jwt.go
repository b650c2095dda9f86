// Package jwt is the broker of tokens that we sign ourselves: RFC 9068 access tokens for one target,
// verifiable offline with our published keys. The lease of such a token is its jti; nothing of it lives
// upstream, and revocation is answered by introspection.
//
// The token says who (sub, the workload's id), for whom (aud, one value), and where it came from (the
// private claim sallyport: family, ancestors, the revocation position its decision saw, and keyed digests of
// what a revocation can name), so that revoking needs no look-up. It carries no claim of the subject token (RFC 9068 section 5).
package jwt

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Wire values.
const (
	AccessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	jwtType         = "urn:ietf:params:oauth:token-type:jwt"
	typ             = "at+jwt"
)

// Settings is the `jwt:` block of a target file.
type Settings struct {
	// Audience is the aud of minted tokens. Default: the target's resource, else its name.
	Audience string `yaml:"audience,omitempty" json:"audience,omitempty" jsonschema:"description=aud of minted tokens; default: the target's resource\\, else its name"`
	// Algorithm signs this target's tokens. Default: the first of signing.algorithms.
	Algorithm string `yaml:"algorithm,omitempty" json:"algorithm,omitempty" jsonschema:"description=Algorithm that signs minted tokens; one of signing.algorithms. Default: the first of them"`
	// Type is the typ header.
	Type string `yaml:"typ,omitempty" json:"typ,omitempty" jsonschema:"enum=at+jwt,enum=JWT,description=typ header of minted tokens. JWT is for foreign verifiers that know no other; such a token cannot be introspected\\, exchanged or revoked here. Default: at+jwt"`
	// StatusList gives each token a place in a status list.
	StatusList bool `yaml:"status_list,omitempty" json:"status_list,omitempty" jsonschema:"description=true: each token has a place in a status list (OAuth Token Status List)\\, for verifiers that read one. Default: false"`
	// Claims are added to every token as they stand here.
	Claims map[string]string `yaml:"claims,omitempty" json:"claims,omitempty" jsonschema:"description=Strings that every minted token carries; names of registered claims and of our own are refused. Default: none"`
}

// Broker mints for one target. It is immutable.
type Broker struct {
	issuer   string
	audience string
	header   brokers.Header
	extra    map[string]string
	signer   brokers.Signer
	status   brokers.StatusLists // nil: tokens have no place in a list
}

var (
	_ brokers.Broker = (*Broker)(nil)
	_ brokers.Former = (*Broker)(nil)
)

// Kind returns the kind for a binary's list. A scope means nothing more than its name.
func Kind() brokers.Kind { return brokers.NewKind("jwt", brokers.Capabilities{}, check, build) }

// Forms implements [brokers.Former]: an RFC 9068 token is both.
func (*Broker) Forms() []string { return []string{AccessTokenType, jwtType} }

func check(t brokers.Target, s Settings, _ map[string]struct{}) []brokers.Problem {
	return slices.Concat(checkAudience(s), checkReserved(t, s), checkForm(t, s))
}

// ofClouds are audiences, or how they begin, of clouds that take identity tokens for credentials: whoever holds a token for one has what
// the cloud gives for it, past the policy, scopes and leases of a target of that cloud.
var ofClouds = []struct{ begins, broker string }{
	{"sts.amazonaws.com", "aws"},
	{"api://AzureADTokenExchange", "azure"},
	{"//iam.googleapis.com/", "gcp"},
	{"https://iam.googleapis.com/", "gcp"},
}

func checkReserved(t brokers.Target, s Settings) []brokers.Problem {
	aud := Audience(t, s)
	for _, r := range ofClouds {
		if strings.HasPrefix(strings.ToLower(aud), strings.ToLower(r.begins)) {
			return []brokers.Problem{{Path: "audience", Message: fmt.Sprintf("audience %q is what a cloud takes for credentials, past everything that bounds them; make a target of the broker %s, with hand_over: true if its SDK wants the token itself", aud, r.broker)}}
		}
	}
	return nil
}

func checkAudience(s Settings) []brokers.Problem {
	if s.Audience == "" {
		return nil
	}
	if len(s.Audience) > 255 || strings.ContainsFunc(s.Audience, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return []brokers.Problem{{Path: "audience", Message: "audience must be 1 to 255 printable ASCII characters without spaces"}}
	}
	if strings.Contains(s.Audience, ":") {
		if u, err := url.Parse(s.Audience); err != nil || !u.IsAbs() {
			return []brokers.Problem{{Path: "audience", Message: fmt.Sprintf("audience %q has a colon but is no URI (RFC 7519 section 4.1.3)", s.Audience)}}
		}
	}
	return nil
}

// Audience returns the aud that a target with these settings mints, so that two targets with one aud
// can be refused (RFC 9068 section 5).
func Audience(t brokers.Target, s Settings) string {
	switch {
	case s.Audience != "":
		return s.Audience
	case t.Resource != "":
		return t.Resource
	default:
		return t.Name
	}
}

func build(t brokers.Target, s Settings, _ map[string]struct{}, d brokers.Deps) (brokers.Broker, error) {
	if d.Signer == nil || d.Issuer == "" {
		return nil, fmt.Errorf("jwt broker of target %s needs a signer and an issuer", t.Name)
	}
	b := &Broker{issuer: d.Issuer, audience: Audience(t, s), header: brokers.Header{Algorithm: s.Algorithm, Type: cmp.Or(s.Type, typ)}, extra: maps.Clone(s.Claims), signer: d.Signer}
	if b.status = d.Status; !s.StatusList {
		b.status = nil
	} else if b.status == nil {
		return nil, fmt.Errorf("jwt broker of target %s needs status lists", t.Name)
	}
	return b, nil
}

// claims of RFC 9068 section 2.2 and our lineage.
type claims struct {
	Issuer   string  `json:"iss"`
	Subject  string  `json:"sub"`
	Audience string  `json:"aud"`
	Expires  int64   `json:"exp"`
	IssuedAt int64   `json:"iat"`
	ID       string  `json:"jti"`
	ClientID string  `json:"client_id"`
	Scope    string  `json:"scope,omitempty"`
	Actor    *actor  `json:"act,omitempty"`
	Lineage  lineage `json:"sallyport"`
	Status   *status `json:"status,omitempty"`
}

// status is where the token stands in a status list (OAuth Token Status List section 6).
type status struct {
	List reference `json:"status_list"`
}

type reference struct {
	Index int    `json:"idx"`
	URI   string `json:"uri"`
}

// actor is one link of the chain of delegation: who acts, and by whose word (RFC 8693 section 4.1). Nothing but
// identity belongs in it.
type actor struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Before  *actor `json:"act,omitempty"`
}

// chain nests actors, the current one outermost.
func (b *Broker) chain(ids []string) *actor {
	var out *actor
	for _, id := range slices.Backward(ids) {
		out = &actor{b.issuer, id, out}
	}
	return out
}

type lineage struct {
	Family    string   `json:"family"`
	Ancestors []string `json:"ancestors,omitempty"`
	Depth     int      `json:"depth,omitempty"`
	Target    string   `json:"target"`
	Position  string   `json:"position"`
	Facts     []string `json:"facts,omitempty"`
}

// Mint signs the token. Times are whole seconds, rounded so that the token never outlives its grant.
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	grant, lease := o.Grant(), o.Lease()
	expires := grant.Expires().Truncate(1e9)
	var at *status
	if b.status != nil {
		uri, index := b.status.Reserve(lease.ID, lease.Ancestors, lease.Facts, expires)
		at = &status{reference{index, uri}}
	}
	token, err := b.signer.Sign(ctx, b.header, b.with(claims{
		Issuer:   b.issuer,
		Subject:  grant.Workload().ID(),
		Audience: b.audience,
		Expires:  expires.Unix(),
		IssuedAt: o.IssuedAt().Unix(),
		ID:       lease.ID,
		ClientID: brokers.ClientID,
		Scope:    strings.Join(grant.Scopes(), " "),
		Actor:    b.chain(lease.Actors),
		Lineage:  lineage{lease.Family, lease.Ancestors, lease.Depth, grant.Target(), lease.Position, lease.Facts},
		Status:   at,
	}))
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("signing a token for target %s: %w", grant.Target(), err)
	}
	sum := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
	if at != nil {
		b.status.Minted(at.List.URI, at.List.Index, hex.EncodeToString(sum[:]), keyID(token))
	}
	return brokers.Credential{
		Type:        cmp.Or(o.Form(), AccessTokenType),
		TokenType:   "Bearer",
		Value:       secret.New(token),
		Audience:    b.audience,
		Scopes:      grant.Scopes(),
		Expires:     expires,
		Fingerprint: hex.EncodeToString(sum[:]),
	}, nil
}

// keyID reads the kid of a token that was just signed.
func keyID(token string) string {
	head, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		KeyID string `json:"kid"`
	}
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return ""
	}
	return h.KeyID
}
