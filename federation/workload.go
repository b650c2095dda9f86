package federation

import (
	"slices"
	"time"
)

// Workload is a normalised identity: the answer of door one. Only [Trust.Identify] makes a non-zero
// Workload; the zero Workload names nobody and every policy refuses it. Values are immutable.
type Workload struct {
	id          string
	trustDomain string
	issuer      string
	attributes  Attributes
	token       Token
}

// ID returns the workload's SPIFFE-shaped id, spiffe://<trust domain>/<issuer name>/<adapter path>,
// at most 127 bytes.
func (w Workload) ID() string { return w.id }

// TrustDomain returns the configured trust domain, never a claim.
func (w Workload) TrustDomain() string { return w.trustDomain }

// Issuer returns the configured name of the issuer inside its trust domain.
func (w Workload) Issuer() string { return w.issuer }

// Attribute returns one attribute that the adapter's schema declares, and whether the token had it.
func (w Workload) Attribute(name string) (Value, bool) {
	v, ok := w.attributes[name]
	return v, ok
}

// Attributes returns a copy of all attributes.
func (w Workload) Attributes() Attributes {
	out := make(Attributes, len(w.attributes))
	for k, v := range w.attributes {
		out[k] = v
	}
	return out
}

// Token returns what is known of the verified token. The token itself is not in it.
func (w Workload) Token() Token { return w.token }

// IsZero reports whether w names nobody.
func (w Workload) IsZero() bool { return w.id == "" }

// Token describes one verified token. Only verification makes a non-zero Token.
type Token struct {
	iss, sub, jti string
	keyID         string
	algorithm     string
	typ           string
	audiences     []string
	fingerprint   Fingerprint
	issuedAt      time.Time
	expires       time.Time
	lineage       Lineage
	singleUse     bool
	delegation    delegation
	shared        bool
}

// IssuerIsShared reports whether several configured issuers have the token's iss (clusters with one iss, told apart by
// audience), so that iss and sub alone do not say whose token it is.
func (t Token) IssuerIsShared() bool { return t.shared }

// SingleUse reports whether the configured issuer says that its tokens may be exchanged once for each target.
func (t Token) SingleUse() bool { return t.singleUse }

// Issuer returns the token's iss.
func (t Token) Issuer() string { return t.iss }

// Subject returns the token's sub.
func (t Token) Subject() string { return t.sub }

// ID returns the token id: jti, else the fingerprint in hex.
func (t Token) ID() string {
	if t.jti != "" {
		return t.jti
	}
	return t.fingerprint.String()
}

// KeyID returns the kid of the key that verified the token, "" when the token named none.
func (t Token) KeyID() string { return t.keyID }

// Algorithm returns the JWS algorithm.
func (t Token) Algorithm() string { return t.algorithm }

// Audiences returns a copy of aud.
func (t Token) Audiences() []string { return slices.Clone(t.audiences) }

// Fingerprint returns the SHA-256 of the signing input.
func (t Token) Fingerprint() Fingerprint { return t.fingerprint }

// IssuedAt returns iat, the zero time when absent.
func (t Token) IssuedAt() time.Time { return t.issuedAt }

// Expires returns exp.
func (t Token) Expires() time.Time { return t.expires }

// Lineage returns where one of our own tokens came from; the zero Lineage for a platform's token.
func (t Token) Lineage() Lineage { return t.lineage }

// Lineage is what a token minted by this deployment says of its own descent.
type Lineage struct {
	Lease     string   // id of the lease the token stands for, its jti
	Family    string   // decision id of the first exchange of the family
	Ancestors []string // leases whose end is its end: what it and its actors' tokens were exchanged from, without its own
	Depth     int      // tokens on the longest way to it, itself included
	Target    string   // target the token was minted for
	Scopes    []string // scopes it was granted
	Position  string   // "epoch.n": the revocation log position its decision saw
	Facts     []string // what revocations can match of it and of what it descends from, as the broker wrote it
}

// IsZero reports whether the token was not minted by this deployment.
func (l Lineage) IsZero() bool { return l.Lease == "" }
