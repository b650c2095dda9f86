package federation

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// IssuerError says what is wrong with one issuer of a set that did not compile.
type IssuerError struct {
	Index       int // in the slice given to NewTrust; -1 for Own
	TrustDomain string
	Name        string
	Field       string // Go name of the field of [Issuer] or [Own]
	Problem     string
}

// Error implements error.
func (e *IssuerError) Error() string {
	who := "issuer " + e.TrustDomain + "/" + e.Name
	if e.Index < 0 {
		who = "own issuer"
	}
	return who + ": " + e.Field + " " + e.Problem
}

// NewTrust compiles a set of issuers, and our own tokens when own is not nil. It returns every problem at
// once, joined, each an [*IssuerError]: a set that is not understood whole is not used at all. It does no
// network and keeps no reference to the slices.
func NewTrust(issuers []Issuer, own *Own) (*Trust, error) {
	c := compiler{trust: &Trust{
		records: make(map[recordKey]*record),
		issuers: make(map[string][]*record),
		names:   make(map[issuerName]bool),
	}}
	if own != nil {
		c.addOwn(*own)
	}
	for i, iss := range issuers {
		c.add(i, iss)
	}
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	return c.trust, nil
}

// compiler gathers records and problems.
type compiler struct {
	trust    *Trust
	current  IssuerError // template of the issuer at hand
	problems []error
}

func (c *compiler) problem(field, format string, args ...any) {
	e := c.current
	e.Field, e.Problem = field, fmt.Sprintf(format, args...)
	c.problems = append(c.problems, &e)
}

func (c *compiler) add(index int, iss Issuer) {
	c.current = IssuerError{Index: index, TrustDomain: iss.TrustDomain, Name: iss.Name}
	r := &record{Issuer: iss}
	r.Audiences, r.Algorithms = slices.Clone(iss.Audiences), slices.Clone(iss.Algorithms)
	c.checkNames(r)
	c.checkURL(iss.URL)
	c.checkAlgorithms(iss.Algorithms)
	c.checkAudiences(r)
	c.checkTypes(r)
	c.checkLimits(r)
	if iss.Keys == nil {
		c.problem("Keys", "is missing: an issuer without a key source verifies nothing")
	}
	c.checkAdapter(r)
	c.trust.issuers[iss.URL] = append(c.trust.issuers[iss.URL], r)
}

func (c *compiler) addOwn(own Own) {
	c.current = IssuerError{Index: -1}
	c.checkURL(own.URL)
	c.checkAlgorithms(own.Algorithms)
	if own.Keys == nil {
		c.problem("Keys", "is missing")
	}
	c.trust.own = &record{
		Issuer: Issuer{
			URL: own.URL, Keys: own.Keys, Algorithms: slices.Clone(own.Algorithms),
			Skew: DefaultSkew, MaxLifetime: OwnMaxLifetime,
		},
		own:   true,
		types: []string{ownType},
		// No skew past exp: what we minted for ten minutes is dead after ten minutes on every replica.
		expirySkew: 0,
	}
}

func (c *compiler) checkNames(r *record) {
	if !ValidTrustDomain(r.TrustDomain) {
		c.problem("TrustDomain", "is not a SPIFFE trust domain: lower-case letters, digits, '.', '-' and '_', at most 255")
	}
	if !ValidSegment(r.Name) {
		c.problem("Name", "is not a path segment: letters, digits, '.', '-' and '_', neither '.' nor '..'")
	}
	name := issuerName{r.TrustDomain, r.Name}
	if c.trust.names[name] {
		c.problem("Name", "is used twice in this trust domain")
	}
	c.trust.names[name] = true
	if shortest := len(idPrefix) + len(r.TrustDomain) + len(r.Name) + len("//x"); shortest > MaxWorkloadID {
		c.problem("Name", "leaves no room for a path: workload ids have at most %d bytes", MaxWorkloadID)
	}
}

// checkURL demands what any issuer identifier has to be; http is left to the key source to allow, since
// the identifier itself is only compared.
func (c *compiler) checkURL(s string) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		c.problem("URL", "is missing")
	case err != nil || !printable(s, maxSubject) || strings.ContainsAny(s, " \\"):
		c.problem("URL", "is not a URL")
	case u.User != nil:
		c.problem("URL", "has user information")
	case u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, "?#"):
		c.problem("URL", "has a query or a fragment (OpenID Connect Discovery section 4.1)")
	case c.current.Index >= 0 && c.trust.own != nil && s == c.trust.own.URL:
		c.problem("URL", "is our own issuer identifier")
	}
}

// signatureAlgorithms are those that can be listed. HMAC is not among them: its key would be a public one.
var signatureAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, Ed25519,
}

// Ed25519 is the fully specified name of what [jose.EdDSA] may mean (RFC 9864 section 2.2).
const Ed25519 = jose.SignatureAlgorithm("Ed25519")

func (c *compiler) checkAlgorithms(algs []jose.SignatureAlgorithm) {
	if len(algs) == 0 {
		c.problem("Algorithms", "is empty: list what the issuer signs with, for instance RS256")
	}
	for i, a := range algs {
		if !slices.Contains(signatureAlgorithms, a) {
			c.problem("Algorithms", "lists %s, which is not a supported asymmetric signature algorithm", a)
		}
		if slices.Contains(algs[:i], a) {
			c.problem("Algorithms", "lists %s twice", a)
		}
	}
}

func (c *compiler) checkAudiences(r *record) {
	if len(r.Audiences) == 0 {
		c.problem("Audiences", "is empty: a token must name this service")
	}
	for i, aud := range r.Audiences {
		if aud == "" || !printable(aud, maxSubject) {
			c.problem("Audiences", "has an empty or unprintable value")
			continue
		}
		if slices.Contains(r.Audiences[:i], aud) {
			c.problem("Audiences", "lists %s twice", aud)
			continue
		}
		key := recordKey{r.URL, aud}
		if o := c.trust.records[key]; o != nil {
			c.problem("Audiences", "lists %s, as does issuer %s/%s with the same URL: give each an audience of its own",
				aud, o.TrustDomain, o.Name)
			continue
		}
		c.trust.records[key] = r
	}
}

// neverSubject are token types that are proofs, events or answers, or are bound to a key that nobody would
// check here (RFC 8725 section 3.11, RFC 9449 section 4.2, RFC 8417 section 2.3 and others).
var neverSubject = []string{
	"dpop+jwt", "wpt+jwt", "wit+jwt", "secevent+jwt", "statuslist+jwt", "logout+jwt", "txntoken+jwt",
	"token-introspection+jwt", "client-authentication+jwt", "oauth-authz-req+jwt", "oauth-id-jag+jwt",
}

func (c *compiler) checkTypes(r *record) {
	if r.Types == nil {
		r.types, r.typeAbsent = []string{"jwt"}, true
		return
	}
	if len(r.Types) == 0 {
		c.problem("Types", "is empty: leave it out for absent or JWT")
	}
	for _, typ := range r.Types {
		switch mt := mediaType(typ); {
		case typ == "":
			r.typeAbsent = true
		case slices.Contains(neverSubject, mt):
			c.problem("Types", "lists %s, which is never a subject token", typ)
		default:
			r.types = append(r.types, mt)
		}
	}
}

func (c *compiler) checkLimits(r *record) {
	if r.MaxLifetime == 0 {
		r.MaxLifetime = DefaultMaxLifetime
	}
	if r.MaxLifetime < time.Second || r.MaxLifetime > MaxMaxLifetime {
		c.problem("MaxLifetime", "is %s, allowed are 1s to %s", r.MaxLifetime, MaxMaxLifetime)
	}
	if r.Skew == 0 {
		r.Skew = DefaultSkew
	}
	if r.Skew < 0 || r.Skew > MaxSkew {
		c.problem("Skew", "is %s, allowed are 0 to %s", r.Skew, MaxSkew)
	}
	r.expirySkew = r.Skew
}

func (c *compiler) checkAdapter(r *record) {
	if r.Adapter == nil {
		c.problem("Adapter", "is missing")
		return
	}
	if t, ok := r.Adapter.(Tenancy); ok {
		if shared, pinned := t.Shared(r.URL); shared && !pinned {
			c.problem("Adapter", "pins no tenant, and every customer of the platform can get tokens of this issuer: list the ids of yours")
		}
	}
	r.schema = make(map[string]Type)
	for _, a := range r.Adapter.Schema() {
		if !validAttributeName(a.Name) || a.Type < TypeString || a.Type > TypeInt {
			c.problem("Adapter", "declares attribute %s wrongly: lower-case letters, digits and '_', and a type", a.Name)
		}
		if _, twice := r.schema[a.Name]; twice {
			c.problem("Adapter", "declares attribute %s twice", a.Name)
		}
		r.schema[a.Name] = a.Type
	}
}

// validAttributeName reports whether s can be a name in `where` and in CEL.
func validAttributeName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || i > 0 && ('0' <= c && c <= '9' || c == '_')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
