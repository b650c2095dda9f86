package federation

import (
	"strings"

	"github.com/go-json-experiment/json"
)

// Names of the claims that make a minted token one of ours.
const (
	ownClaim = "sallyport" // object: family, ancestors, position, target, facts
	ownType  = "at+jwt"    // RFC 9068 section 2.1
)

// ownClaims is the part of our own tokens that only we read.
type ownClaims struct {
	Scope string `json:"scope"` // space separated (RFC 8693 section 4.2)
	Own   *struct {
		Family    string   `json:"family"`
		Ancestors []string `json:"ancestors"`
		Depth     int      `json:"depth"`
		Position  string   `json:"position"`
		Target    string   `json:"target"`
		Facts     []string `json:"facts"`
	} `json:"sallyport"`
}

// nameOwn names a workload by the sub of a token of ours, and fills in its lineage. The sub must lie under
// an issuer that is trusted now: tokens minted for a workload whose issuer was removed since die with it.
// Attributes are not carried; rules about re-exchange see the workload id and the lineage.
func (a *attempt) nameOwn(w *Workload) error {
	id, err := ParseID(a.claims.sub)
	if err != nil {
		return &refusal{ErrNaming, "sub is not a workload id"}
	}
	if !a.trust.names[issuerName{id.TrustDomain, id.Issuer}] {
		return &refusal{ErrNaming, "sub is under an issuer that is not configured any more"}
	}
	var c ownClaims
	if json.Unmarshal(a.token.payload, &c) != nil {
		return badClaim("lineage claims have the wrong type")
	}
	if c.Own == nil || c.Own.Family == "" || a.claims.jti == "" {
		return badClaim("lineage claims are missing")
	}
	if err := a.checkActors(); err != nil {
		return err
	}
	w.id, w.trustDomain, w.issuer = a.claims.sub, id.TrustDomain, id.Issuer
	w.token.lineage = Lineage{
		Lease:     a.claims.jti,
		Family:    c.Own.Family,
		Ancestors: c.Own.Ancestors,
		Depth:     depth(c.Own.Depth, c.Own.Ancestors),
		Target:    c.Own.Target,
		Scopes:    strings.Fields(c.Scope),
		Position:  c.Own.Position,
		Facts:     c.Own.Facts,
	}
	return nil
}

// depth is what the token says, or for a token that says nothing the most its ancestors can amount to.
func depth(said int, ancestors []string) int {
	if said > 0 {
		return said
	}
	return len(ancestors) + 1
}
