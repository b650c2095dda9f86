package policy

import (
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// denies: an absent attribute is a match, so that a token that leaves a claim out cannot slip by. Trust domain,
// issuer and target were matched by the index.
func (r *Rule) denies(w federation.Workload) bool {
	for name, m := range r.Workloads.Where {
		if v, ok := w.Attribute(name); ok && !m.match(v) {
			return false
		}
	}
	return true
}

// absences says which attributes a deny rule matched because they are not there.
func (r *Rule) absences(w federation.Workload) string {
	var absent []string
	for _, name := range keys(r.Workloads.Where) {
		if _, ok := w.Attribute(name); !ok {
			absent = append(absent, name)
		}
	}
	switch {
	case len(absent) == 0:
		return ""
	case !w.Token().Lineage().IsZero():
		return ": a token minted here carries no platform attributes, and in a deny rule what is absent matches"
	default:
		return ": in a deny rule an absent attribute matches, and the token has no " + strings.Join(absent, ", ")
	}
}

// fits: an absent attribute is no match. Trust domain and issuer of the subject, and the target, were matched by
// the index.
func (r *Rule) fits(f Facts) bool {
	return r.accepts(f.Workload.Token().Lineage()) &&
		r.Workloads.lacks(f.Workload) == 0 &&
		!r.ignores(f.Actor) && (r.Actors == nil || r.Actors.lacks(f.Actor) == 0) &&
		r.Require.fresh(f.Workload.Token(), f.Time)
}

// accepts tells a platform's token from one of our own: a rule is for the one or for the other.
func (r *Rule) accepts(l federation.Lineage) bool {
	if l.IsZero() {
		return len(r.ExchangeFrom) == 0
	}
	return slices.Contains(r.ExchangeFrom, l.Target)
}

// lacks counts the attributes that who does not have as asked for.
func (w *Workloads) lacks(who federation.Workload) int {
	n := 0
	for name, m := range w.Where {
		if v, ok := who.Attribute(name); !ok || !m.match(v) {
			n++
		}
	}
	return n
}

// ignores reports whether r is not about requests of this actor at all, whatever its attributes are.
func (r *Rule) ignores(actor federation.Workload) bool {
	if r.Actors == nil || actor.IsZero() {
		return (r.Actors == nil) != actor.IsZero()
	}
	return actor.TrustDomain() != r.Actors.TrustDomain || actor.Issuer() != r.Actors.Issuer || !r.proven(actor)
}

// proven reports whether the actor is known in the way that r asks for: by a platform's token, by one of ours for one
// of the targets that r lists, or by what the subject token says, where nobody presented an actor token.
func (r *Rule) proven(actor federation.Workload) bool {
	switch l := actor.Token().Lineage(); {
	case actor.Token().Expires().IsZero():
		return len(r.Actors.Where) == 0 && len(r.ActorsFrom) == 0
	case l.IsZero():
		return len(r.Actors.Where) > 0
	default:
		return slices.Contains(r.ActorsFrom, l.Target)
	}
}

// missing returns what of want is not in have.
func missing(want, have []string) []string {
	var out []string
	for _, s := range want {
		if !slices.Contains(have, s) {
			out = append(out, s)
		}
	}
	return out
}

// Holds reports whether who is one of w: an attribute that is absent is no match.
func (w Workloads) Holds(who federation.Workload) bool {
	return w.TrustDomain == who.TrustDomain() && w.Issuer == who.Issuer() && w.lacks(who) == 0
}
