package federation

import (
	"slices"
	"time"
)

// accepts holds typ against the issuer's list (RFC 8725 section 3.11).
func (r *record) accepts(h header) error {
	if !h.hasTyp && r.typeAbsent || h.hasTyp && slices.Contains(r.types, mediaType(h.typ)) {
		return nil
	}
	return &refusal{ErrTokenType, "typ is not on the list of this issuer"}
}

// allows reports whether alg is on the issuer's list, compared with case (RFC 8725 section 3.1).
func (r *record) allows(alg string) bool {
	for _, a := range r.Algorithms {
		if string(a) == alg {
			return true
		}
	}
	return false
}

// check holds the claims against the issuer's limits at time now. sub, exp and aud are required; nbf, iat
// and jti are checked when present (RFC 7519 section 4.1).
func (c *registered) check(r *record, now time.Time) error {
	switch {
	case c.sub == "":
		return badClaim("sub is missing")
	case !printable(c.sub, maxSubject):
		return badClaim("sub is too long or has control characters")
	case !printable(c.jti, maxSubject):
		return badClaim("jti is too long or has control characters")
	case c.exp.IsZero():
		return badClaim("exp is missing")
	case c.delegation.bound: // taken as a bearer token it would come out unbound
		return badClaim("cnf binds the token to a key, and no proof of that key is taken here")
	}
	return c.checkTimes(r, now)
}

// checkTimes allows the issuer's clock to be wrong by skew in either direction, and no token to live longer
// than the ceiling. With iat the whole life is measured, exactly; without it only what is left.
func (c *registered) checkTimes(r *record, now time.Time) error {
	switch {
	case !now.Before(c.exp.Add(r.expirySkew)):
		return &refusal{ErrExpired, "expired at " + stamp(c.exp)}
	case c.nbf.After(now.Add(r.Skew)):
		return &refusal{ErrNotYetValid, "not valid before " + stamp(c.nbf)}
	case c.iat.After(now.Add(r.Skew)):
		return &refusal{ErrNotYetValid, "issued in the future at " + stamp(c.iat)}
	case !c.nbf.IsZero() && !c.exp.After(c.nbf):
		return badClaim("exp is not after nbf")
	case !c.iat.IsZero() && !c.exp.After(c.iat):
		return badClaim("exp is not after iat")
	}
	life := c.exp.Sub(now)
	if !c.iat.IsZero() {
		life = c.exp.Sub(c.iat)
	}
	if life > r.MaxLifetime {
		return &refusal{ErrLifetime, "lives " + life.String() + ", allowed are " + r.MaxLifetime.String()}
	}
	return nil
}

// stamp prints a signed time for the audit record.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
