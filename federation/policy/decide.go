package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// Decide reports whether who may receive a credential for what was asked, at the given time. It reads
// only its arguments: no clock, no network, no log. Reasons name the rules that matched, in file order.
//
// It looks at the rules that can match these facts by their index, never at all rules; only a refusal looks
// for the rule that came nearest, at maxNear of them and no more.
func (p *Policy) Decide(f Facts) Decision {
	if f.Workload.IsZero() {
		return deny(RefusedTarget, "no verified workload")
	}
	target, why := p.resolve(f.Want)
	if target == nil {
		return deny(RefusedTarget, why)
	}
	if l := f.Workload.Token().Lineage(); !l.IsZero() && l.Depth >= MaxDepth {
		return deny(RefusedTarget, fmt.Sprintf("the subject token ends a chain of %d tokens, the most there may be", MaxDepth))
	}
	var e effort
	s := p.search(f, target, &e)
	scopes := f.Want.Scopes
	if s.covers >= 0 {
		scopes = granted(&p.rules[s.covers], f)
	}
	// Deny rules come last because they see the scopes that would be granted: a caller who asks for none gets
	// those of the covering rule.
	d, denied := p.denies(f, target, scopes, &e)
	switch {
	case denied:
	case e.exhausted():
		d = deny(RefusedTarget, p.givenUp(f, target, e))
		d.near = p.nearest(s, f, target, &e)
	case s.covers >= 0:
		d = p.grant(&p.rules[s.covers], target, f, scopes)
	case s.reachable:
		d = deny(RefusedScope, fmt.Sprintf("no rule covers scope %s at target %s", printable(strings.Join(f.Want.Scopes, " ")), target.Name))
		d.near = p.nearest(s, f, target, &e)
	default:
		d = deny(RefusedTarget, fmt.Sprintf("no rule lets %s reach target %s", whoever(f), target.Name))
		d.near = p.nearest(s, f, target, &e)
	}
	d.effort = e
	return d
}

// whoever names who asks.
func whoever(f Facts) string {
	if f.Actor.IsZero() {
		return f.Workload.ID()
	}
	return f.Actor.ID() + " for " + f.Workload.ID()
}

// search is how the allow rules answered one request.
type search struct {
	covers     int   // the first rule that covers everything asked; -1 for none
	reachable  bool  // some rule lets the caller reach the target, but not with that scope
	candidates []int // rules that can match, by the index
}

// search finds the first allow rule that covers f.
func (p *Policy) search(f Facts, t *Target, e *effort) search {
	var space [32]int
	s := search{covers: -1}
	s.candidates = p.allow[key{f.Workload.TrustDomain(), f.Workload.Issuer(), t.Name}].find(space[:0], &f, false, e)
	for _, i := range s.candidates {
		if !e.hold(i) {
			break
		}
		r := &p.rules[i]
		narrow := len(missing(f.Want.Scopes, r.Scopes)) > 0
		if narrow && s.reachable || !r.fits(f) || !p.ask(i, f, f.Workload, t, granted(r, f), e).yes {
			continue
		}
		if narrow {
			s.reachable = true
			continue
		}
		s.covers = i
		break
	}
	return s
}

// granted is what a rule would grant: what was asked, or all that it has.
func granted(r *Rule, f Facts) []string {
	if len(f.Want.Scopes) == 0 {
		return r.Scopes
	}
	return f.Want.Scopes
}

// ask asks the condition of rule i, if it has one, about who.
func (p *Policy) ask(i int, f Facts, who federation.Workload, t *Target, scopes []string, e *effort) answer {
	c := p.conditions[i]
	if c == nil {
		return answer{known: true, yes: true}
	}
	a := c.ask(newView(f, who, t, scopes))
	e.cost += a.cost
	return a
}

// denies finds the first deny rule that matches the subject or who acts for it. Only the current actor counts:
// those before it are history (RFC 8693 section 4.1).
func (p *Policy) denies(f Facts, t *Target, scopes []string, e *effort) (d Decision, denied bool) {
	first, who := -1, federation.Workload{}
	var space [32]int
	for _, w := range []federation.Workload{f.Workload, f.Actor} {
		if w.IsZero() {
			continue
		}
		found := space[:0]
		for _, k := range [...]key{
			{w.TrustDomain(), w.Issuer(), t.Name}, {w.TrustDomain(), w.Issuer(), ""},
			{w.TrustDomain(), "", t.Name}, {w.TrustDomain(), "", ""},
		} {
			found = p.deny[k].find(found, &Facts{Workload: w}, true, e)
		}
		slices.Sort(found)
		for _, i := range found {
			if first >= 0 && i >= first || !e.hold(i) {
				break
			}
			if !p.rules[i].denies(w) {
				continue
			}
			if a := p.ask(i, f, w, t, scopes, e); a.yes || !a.known {
				first, who = i, w
				d.refusal = RefusedTarget
				d.reasons = []string{p.denial(&p.rules[i], f, who, a)}
				break
			}
		}
	}
	return d, first >= 0
}

// denial words why a deny rule matched.
func (p *Policy) denial(r *Rule, f Facts, who federation.Workload, a answer) string {
	reason := fmt.Sprintf("rule %s (%s) denies", r.Name, r.Source)
	if who.ID() != f.Workload.ID() {
		reason += " the actor " + who.ID()
	}
	if why := r.absences(who); why != "" {
		return reason + why
	}
	if !a.yes {
		reason += ": in a deny rule a condition that has no answer matches, and " + a.why
	}
	return reason
}

// Target returns the configured target of a name.
func (p *Policy) Target(name string) (Target, bool) {
	i, ok := p.byName[name]
	if !ok {
		return Target{}, false
	}
	return p.targets[i], true
}

// resolve finds the one target that was named. Names are compared exactly. Several are refused (design
// section 3: one target per exchange), but an audience and a resource may name the same one.
func (p *Policy) resolve(w Want) (*Target, string) {
	found := -1
	for _, names := range []struct {
		index map[string]int
		asked []string
	}{{p.byName, w.Audiences}, {p.byResource, w.Resources}} {
		for _, name := range names.asked {
			i, ok := names.index[name]
			if !ok {
				return nil, "unknown target " + printable(name)
			}
			if found >= 0 && found != i {
				return nil, "more than one target was asked for"
			}
			found = i
		}
	}
	if found < 0 {
		return nil, "no target was named"
	}
	return &p.targets[found], ""
}
