package verify

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Token is what a verified token says. Only [Verifier.Verify] makes one that is not zero. Values are immutable.
type Token struct {
	subject, lease, family    string
	actors, scopes, audiences []string
	expires                   time.Time
	fingerprint               federation.Fingerprint
	line                      revocation.Facts // what can be revoked of it
	statusURI                 string           // of its status list, "" for none
	statusIndex               int64
}

// Subject returns the workload that the token is about, by its id: spiffe://TRUST DOMAIN/ISSUER/PATH.
func (t Token) Subject() string { return t.subject }

// Actors returns who acts for the subject, by their workload ids, the current actor first; none when the subject
// acts itself. Access may be decided by the first alone: the others are history (RFC 8693 section 4.1).
func (t Token) Actors() []string { return slices.Clone(t.actors) }

// Scopes returns what was granted, as the target names it.
func (t Token) Scopes() []string { return slices.Clone(t.scopes) }

// HasScope reports whether one scope was granted, compared as it is written.
func (t Token) HasScope(scope string) bool { return slices.Contains(t.scopes, scope) }

// Lease returns the id of the token (jti): what `sallyport explain` and `sallyport revoke lease=ID` take.
func (t Token) Lease() string { return t.lease }

// Family returns the id that all tokens have which descend from the same first exchange.
func (t Token) Family() string { return t.family }

// Audiences returns aud; the verifier's own is among them.
func (t Token) Audiences() []string { return slices.Clone(t.audiences) }

// Expires returns exp.
func (t Token) Expires() time.Time { return t.expires }

// IsZero reports whether nothing was verified.
func (t Token) IsZero() bool { return t.lease == "" }

// Names under which the profile hands on what it read.
const (
	familyAttribute    = "family"
	ancestorsAttribute = "ancestors"
	factsAttribute     = "facts"
	positionAttribute  = "position"
	statusURIName      = "status_uri"
	statusIndexName    = "status_index"
	scopesAttribute    = "scopes"
	actorsAttribute    = "actors"
)

// profile reads the claims of a verified token: those that RFC 9068 section 2.2 requires beyond what door one looks
// at, and ours.
type profile struct{ issuer string }

var _ federation.Adapter = profile{}

// claims of RFC 9068 section 2.2 and the lineage. Members that are there are of the right type already, where door
// one reads them.
type claims struct {
	ID       string `json:"jti"`
	IssuedAt any    `json:"iat"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	Actor    *actor `json:"act"`
	Lineage  struct {
		Family    string   `json:"family"`
		Ancestors []string `json:"ancestors"`
		Position  string   `json:"position"`
		Facts     []string `json:"facts"`
	} `json:"sallyport"`
	Status struct {
		List struct {
			Index int64  `json:"idx"`
			URI   string `json:"uri"`
		} `json:"status_list"`
	} `json:"status"`
}

type actor struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Before  *actor `json:"act"`
}

// Schema implements [federation.Adapter].
func (profile) Schema() federation.Schema {
	return federation.Schema{
		{Name: familyAttribute, Type: federation.TypeString},
		{Name: ancestorsAttribute, Type: federation.TypeStrings},
		{Name: factsAttribute, Type: federation.TypeStrings},
		{Name: positionAttribute, Type: federation.TypeString},
		{Name: statusURIName, Type: federation.TypeString},
		{Name: statusIndexName, Type: federation.TypeInt},
		{Name: scopesAttribute, Type: federation.TypeStrings},
		{Name: actorsAttribute, Type: federation.TypeStrings},
	}
}

// Name implements [federation.Adapter]. The path names nobody; who the token is about stands in sub.
func (p profile) Name(c federation.Claims) (federation.Naming, error) {
	var t claims
	if err := c.Decode(&t); err != nil {
		return federation.Naming{}, err
	}
	switch {
	case t.ID == "":
		return federation.Naming{}, errors.New("jti is missing")
	case t.IssuedAt == nil:
		return federation.Naming{}, errors.New("iat is missing")
	case t.ClientID == "":
		return federation.Naming{}, errors.New("client_id is missing")
	case t.Lineage.Family == "":
		return federation.Naming{}, errors.New("the family is missing: Sallyport did not mint it")
	}
	var actors []string
	for a := t.Actor; a != nil; a = a.Before {
		if a.Issuer != p.issuer || a.Subject == "" { // a sub means nothing by another issuer's word
			return federation.Naming{}, errors.New("act names an actor by another issuer")
		}
		actors = append(actors, a.Subject)
	}
	return federation.Naming{Path: "token", Attributes: federation.Attributes{
		familyAttribute:    federation.String(t.Lineage.Family),
		ancestorsAttribute: federation.Strings(t.Lineage.Ancestors),
		factsAttribute:     federation.Strings(t.Lineage.Facts),
		positionAttribute:  federation.String(t.Lineage.Position),
		statusURIName:      federation.String(t.Status.List.URI),
		statusIndexName:    federation.Int(t.Status.List.Index),
		scopesAttribute:    federation.Strings(strings.Fields(t.Scope)),
		actorsAttribute:    federation.Strings(actors),
	}}, nil
}

// tokenOf collects what door one and the profile read.
func tokenOf(w federation.Workload) Token {
	t := w.Token()
	line := revocation.Facts{
		Lease: t.ID(), Ancestors: attribute[[]string](w, ancestorsAttribute), Parts: revocation.DecodeParts(attribute[[]string](w, factsAttribute)),
	}
	if len(line.Parts) == 0 { // minted before tokens said more
		at, _ := revocation.ParsePosition(attribute[string](w, positionAttribute))
		line.Parts = []revocation.Part{{At: at}}
	}
	line.Parts[0].Terms = append(line.Parts[0].Terms, revocation.Own(t.Issuer(), t.ID(), t.Fingerprint().String(), t.KeyID())...)
	return Token{
		line:      line,
		statusURI: attribute[string](w, statusURIName), statusIndex: attribute[int64](w, statusIndexName),
		subject: t.Subject(), lease: t.ID(), expires: t.Expires(), audiences: t.Audiences(), fingerprint: t.Fingerprint(),
		family: attribute[string](w, familyAttribute),
		scopes: attribute[[]string](w, scopesAttribute),
		actors: attribute[[]string](w, actorsAttribute),
	}
}

func attribute[T any](w federation.Workload, name string) T {
	v, _ := w.Attribute(name)
	out, _ := v.Any().(T)
	return out
}
