package policy

import (
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// Bounds of the look for the nearest rule. Every refused caller pays for it, and whoever is refused may try often: it
// must not cost much more among many rules than among few.
const (
	maxNear  = 16 // rules that are looked at
	maxParts = 32 // shelves of parts in one bucket
	maxAlike = 4  // rules that are filed under one part
	maxSpelt = 8  // values of one part that one rule is filed under: lists multiply
)

// nearest returns the rule with the fewest things that did not fit, the first of equals, of those that are likely to be
// near: what the index found, for there all fits that a rule is filed under; what fits but for one thing; what fits
// in one; and the first rules of the bucket. It returns nil for none.
func (p *Policy) nearest(s search, f Facts, t *Target, e *effort) *Near {
	b := p.allow[key{f.Workload.TrustDomain(), f.Workload.Issuer(), t.Name}]
	if b == nil {
		return nil
	}
	best, least := -1, 0
	var seen [maxNear]int
	consider := func(rules []int) {
		for _, i := range rules {
			if e.near == maxNear {
				return
			}
			if slices.Contains(seen[:e.near], i) {
				continue
			}
			seen[e.near] = i
			e.near++
			n := p.rules[i].distance(f)
			if best < 0 || n < least || n == least && i < best {
				best, least = i, n
			}
		}
	}
	consider(s.candidates)
	for _, part := range b.parts {
		if e.near == maxNear {
			break
		}
		part.look(&f, false, e, consider)
	}
	consider(b.rules)
	if best < 0 {
		return nil
	}
	r := &p.rules[best]
	near, fits := r.miss(f)
	if fits { // all else does, so it was the condition
		near = Near{Claim: "when", Expected: r.When, Found: p.ask(best, f, f.Workload, t, granted(r, f), e).why}
	}
	near.Rule = r.Name
	return &near
}

// fileParts files the rules that are filed under several attributes once more: under all but one of them, and under
// each alone.
func (b *bucket) fileParts(rules []Rule) {
	parts := map[string]*shelf{}
	for _, whole := range b.shelves {
		for _, by := range divisions(whole.by) {
			name := strings.Join(by, " ")
			s := parts[name]
			if s == nil {
				if len(b.parts) == maxParts {
					continue
				}
				s = &shelf{by: by, under: map[string][]int{}}
				parts[name] = s
				b.parts = append(b.parts, s)
			}
			for _, i := range whole.rules {
				s.alike(i, rules[i].facets())
			}
		}
	}
	slices.SortStableFunc(b.parts, func(a, b *shelf) int { return len(b.by) - len(a.by) })
}

// divisions returns names without each of them in turn, then each of them; nil for a single name, which the index has.
func divisions(names []string) [][]string {
	var out [][]string
	if len(names) > 2 {
		for i := range names {
			out = append(out, slices.Delete(slices.Clone(names), i, i+1))
		}
	}
	if len(names) > 1 {
		for i := range names {
			out = append(out, names[i:i+1])
		}
	}
	return out
}

// alike files rule i on a shelf of parts, unless enough are there.
func (s *shelf) alike(i int, facets map[string]Matcher) {
	spelt := 1
	for _, name := range s.by {
		spelt *= len(facets[name].OneOf)
	}
	if spelt > maxSpelt {
		return
	}
	for _, k := range s.keys(facets) {
		if len(s.under[k]) < maxAlike {
			s.under[k] = append(s.under[k], i)
		}
	}
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
