package policy

import (
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// maxNear bounds the look for the nearest rule: every refused caller pays for it, and whoever is refused may try
// often. The first of the bucket are looked at, and the first that the index found: what those are filed under fits.
const maxNear = 256 // rules

// nearest returns the rule with the fewest things that did not fit, the first of equals; nil for none.
func (p *Policy) nearest(s search, f Facts, t *Target) *Near {
	b := p.allow[key{f.Workload.TrustDomain(), f.Workload.Issuer(), t.Name}]
	if b == nil {
		return nil
	}
	best, least := -1, 0
	consider := func(rules []int) {
		for _, i := range rules[:min(len(rules), maxNear)] {
			n := p.rules[i].distance(f)
			if best < 0 || n < least || n == least && i < best {
				best, least = i, n
			}
		}
	}
	consider(s.candidates)
	consider(b.rules)
	if best < 0 {
		return nil
	}
	r := &p.rules[best]
	near, fits := r.miss(f)
	if fits { // all else does, so it was the condition
		near = Near{Claim: "when", Expected: r.When, Found: p.ask(best, f, f.Workload, t, granted(r, f)).why}
	}
	near.Rule = r.Name
	return &near
}

// distance counts what keeps r from covering f, its condition aside.
func (r *Rule) distance(f Facts) int {
	n := r.Workloads.lacks(f.Workload)
	if !r.accepts(f.Workload.Token().Lineage()) {
		n++
	}
	switch {
	case r.ignores(f.Actor):
		n++
	case r.Actors != nil:
		n += r.Actors.lacks(f.Actor)
	}
	if !r.Require.fresh(f.Workload.Token(), f.Time) {
		n++
	}
	if len(missing(f.Want.Scopes, r.Scopes)) > 0 {
		n++
	}
	return n
}

// actors words who may act.
func (r *Rule) actors() string {
	who := "a workload of " + r.Actors.TrustDomain + "/" + r.Actors.Issuer
	switch {
	case len(r.ActorsFrom) > 0:
		return who + " with a token minted here for " + strings.Join(r.ActorsFrom, ", ")
	case len(r.Actors.Where) == 0:
		return who + " that the subject token names"
	default:
		return who
	}
}

// miss returns the first thing that keeps r from covering f, its condition aside; fits when there is none.
func (r *Rule) miss(f Facts) (near Near, fits bool) {
	token := f.Workload.Token()
	if l := token.Lineage(); !r.accepts(l) {
		near = Near{Claim: "subject token", Expected: "a platform's token", Found: "a platform's token"}
		if len(r.ExchangeFrom) > 0 {
			near.Expected = "one minted here for " + strings.Join(r.ExchangeFrom, ", ")
		}
		if !l.IsZero() {
			near.Found = "one minted here for " + l.Target
		}
		return near, false
	}
	if near, fits := r.Workloads.miss("", f.Workload); !fits {
		return near, false
	}
	switch {
	case r.ignores(f.Actor):
		near = Near{Claim: "actor", Expected: "nobody", Found: "nobody"}
		if r.Actors != nil {
			near.Expected = r.actors()
		}
		if !f.Actor.IsZero() {
			near.Found = f.Actor.ID()
		}
		return near, false
	case r.Actors != nil:
		if near, fits := r.Actors.miss("actor.", f.Actor); !fits {
			return near, false
		}
	}
	if !r.Require.fresh(token, f.Time) {
		return Near{Claim: "fresh", Expected: "issued at most " + r.Require.Fresh.String() + " ago", Found: age(token, f.Time)}, false
	}
	if len(missing(f.Want.Scopes, r.Scopes)) > 0 {
		return Near{Claim: "scope", Expected: strings.Join(r.Scopes, " "), Found: printable(strings.Join(f.Want.Scopes, " "))}, false
	}
	return Near{}, true
}

// miss returns the first attribute that who does not have as asked for.
func (w *Workloads) miss(role string, who federation.Workload) (near Near, fits bool) {
	for _, name := range keys(w.Where) {
		m := w.Where[name]
		if v, ok := who.Attribute(name); !ok || !m.match(v) {
			return Near{Claim: role + name, Expected: m.String(), Found: render(v)}, false
		}
	}
	return Near{}, true
}
