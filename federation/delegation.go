package federation

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of an act claim (design section 6).
const (
	MaxActors = 5       // parties that a chain may name, the current one included
	maxAct    = 4 << 10 // bytes
)

// Party names somebody by who says so: the iss and the sub of a token.
type Party struct{ Issuer, Subject string }

// delegation is what a token says of those who act for its subject, or may (RFC 8693 sections 4.1 and 4.4), and
// whether it is bound to a key (RFC 7800).
type delegation struct {
	acted   bool
	actors  []Party // current first
	limited bool    // may_act is there
	mayAct  Party   // its iss is "" when the claim has none
	bound   bool
}

// Delegated reports whether the token has an act claim: somebody acts for its subject.
func (t Token) Delegated() bool { return t.delegation.acted }

// Actors returns who acts for the subject of one of our own tokens, by their workload ids, the current actor
// first. It is nil for a platform's token, whatever that says: its act is checked for shape and never believed.
func (t Token) Actors() []string {
	if t.lineage.IsZero() || !t.delegation.acted {
		return nil
	}
	out := make([]string, len(t.delegation.actors))
	for i, a := range t.delegation.actors {
		out[i] = a.Subject
	}
	return out
}

// MayAct returns the one party that may act for the subject, and whether the token names one. An iss that the claim
// leaves out is the token's own: a sub means nothing outside its issuer.
func (t Token) MayAct() (Party, bool) {
	p := t.delegation.mayAct
	if t.delegation.limited && p.Issuer == "" {
		p.Issuer = t.iss
	}
	return p, t.delegation.limited
}

// Actor returns who acts for w by the word of our own token's act claim: the outermost one, the only one that access
// decisions may look at (RFC 8693 section 4.1). It has no attributes and no token. It is the zero Workload when
// nobody acts.
func (w Workload) Actor() Workload {
	if w.token.lineage.IsZero() || len(w.token.delegation.actors) == 0 {
		return Workload{}
	}
	sub := w.token.delegation.actors[0].Subject
	id, err := ParseID(sub)
	if err != nil { // not reached: nameOwn has read it
		return Workload{}
	}
	return Workload{id: sub, trustDomain: id.TrustDomain, issuer: id.Issuer}
}

// parseAct reads a chain of actors. Members other than iss, sub and act are no business of ours. A party that
// comes twice makes the chain a circle.
func parseAct(value jsontext.Value) ([]Party, error) {
	if len(value) > maxAct {
		return nil, badClaim("act is too large")
	}
	var out []Party
	for value != nil {
		if len(out) == MaxActors {
			return nil, badClaim("act names too many actors")
		}
		var level map[string]jsontext.Value
		if value.Kind() != '{' || json.Unmarshal(value, &level) != nil {
			return nil, badClaim("act is not an object")
		}
		p, err := party(level, "act names an actor by what is not a string")
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if other == p && p.Subject != "" {
				return nil, badClaim("act names an actor twice")
			}
		}
		out = append(out, p)
		value = level["act"]
	}
	return out, nil
}

// parseMayAct reads may_act: sub must be there, since nothing else tells parties apart.
func parseMayAct(value jsontext.Value) (Party, error) {
	const detail = "may_act is not an object with a sub"
	var claim map[string]jsontext.Value
	if len(value) > maxAct || value.Kind() != '{' || json.Unmarshal(value, &claim) != nil {
		return Party{}, badClaim(detail)
	}
	p, err := party(claim, detail)
	if err == nil && p.Subject == "" {
		err = badClaim(detail)
	}
	return p, err
}

func party(claim map[string]jsontext.Value, detail string) (p Party, err error) {
	for name, field := range map[string]*string{"iss": &p.Issuer, "sub": &p.Subject} {
		if value, ok := claim[name]; ok {
			if *field, err = claimString(value, detail); err != nil {
				return Party{}, err
			}
		}
	}
	return p, nil
}

// checkActors holds the chain of one of our own tokens to what we mint: workload ids by our word, the current one
// under an issuer that is trusted now.
func (a *attempt) checkActors() error {
	for i, p := range a.claims.delegation.actors {
		id, err := ParseID(p.Subject)
		if err != nil || p.Issuer != a.claims.iss {
			return badClaim("act names what is not a workload of ours")
		}
		if i == 0 && !a.trust.names[issuerName{id.TrustDomain, id.Issuer}] {
			return &refusal{ErrNaming, "the actor is under an issuer that is not configured any more"}
		}
	}
	return nil
}
