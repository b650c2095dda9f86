package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Facts is everything a decision may depend on.
type Facts struct {
	Workload federation.Workload // the subject, verified; the zero Workload is denied
	Actor    federation.Workload // who acts for the subject, verified; the zero Workload: nobody does
	Want     Want
	Time     time.Time
	Address  netip.Addr // the peer of the connection; the zero Addr when there is none
}

// Want is what was asked for, by the caller's own words.
type Want struct {
	Audiences []string // target names
	Resources []string // target URIs
	Scopes    []string // none asked means the covering rule's scopes
}

// Refusal says which of the two answers a denied caller gets (design section 5).
type Refusal int

// The refusals. An allowing decision has the zero Refusal.
const (
	RefusedTarget Refusal = iota + 1 // invalid_target: unknown target, no rule, deny: one answer for all
	RefusedScope                     // invalid_scope: some rule lets the caller reach the target
)

// Decision is the answer of [Policy.Decide]. The zero Decision denies.
type Decision struct {
	allowed bool
	refusal Refusal
	grant   Grant
	reasons []string
	near    *Near
	looked  int // rules that were held against the facts
}

// Near is the allow rule that came closest to covering a denied request.
type Near struct {
	Rule     string
	Claim    string // what did not fit: an attribute, "actor", "actor.ATTRIBUTE", "fresh", "scope", "when", "subject token"
	Expected string
	Found    string
}

// Grant is what an allowing decision yields, and the only thing that a broker accepts. The zero Grant
// grants nothing. Values are immutable.
type Grant struct {
	workload federation.Workload
	actor    federation.Workload
	target   string
	resource string
	scopes   []string
	rule     string
	expires  time.Time
	once     bool
}

// SingleUse reports whether the subject token may be exchanged for this target only once, by the word of its
// issuer or of the rule.
func (g Grant) SingleUse() bool { return g.once }

// Actor returns who acts for the workload, the zero Workload when nobody does.
func (g Grant) Actor() federation.Workload { return g.actor }

// Workload returns who was granted.
func (g Grant) Workload() federation.Workload { return g.workload }

// Target returns the one target that was granted.
func (g Grant) Target() string { return g.target }

// Resource returns the target's URI, "" when it has none.
func (g Grant) Resource() string { return g.resource }

// Scopes returns a copy of the granted scopes.
func (g Grant) Scopes() []string { return slices.Clone(g.scopes) }

// Rule returns the name of the rule that granted.
func (g Grant) Rule() string { return g.rule }

// Expires returns the latest instant at which the credential may live: never after the rule's and the
// target's lifetime, nor after the actor token, nor after the subject token unless the rule opens that
// (outlives_subject).
func (g Grant) Expires() time.Time { return g.expires }

// IsZero reports whether g grants nothing.
func (g Grant) IsZero() bool { return g.target == "" }

// Allowed reports whether the decision allows.
func (d Decision) Allowed() bool { return d.allowed }

// Grant returns what is granted, and false unless the decision allows.
func (d Decision) Grant() (Grant, bool) {
	if !d.allowed {
		return Grant{}, false
	}
	return d.grant, true
}

// Refusal returns which answer a denied caller gets; the zero Decision refuses the target.
func (d Decision) Refusal() Refusal {
	if !d.allowed && d.refusal == 0 {
		return RefusedTarget
	}
	return d.refusal
}

// Reasons returns why, for the audit record, never for the caller (RFC 8693 section 2.2.2).
func (d Decision) Reasons() []string { return slices.Clone(d.reasons) }

// Near returns the rule that nearly matched a denied request, if any came close.
func (d Decision) Near() (Near, bool) {
	if d.near == nil {
		return Near{}, false
	}
	return *d.near, true
}

// Decide reports whether who may receive a credential for what was asked, at the given time. It reads
// only its arguments: no clock, no network, no log. Reasons name the rules that matched, in file order.
//
// It looks at the rules that can match these facts by their index, never at all rules; only a refusal looks
// for the rule that came nearest, among at most maxNear.
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
	s := p.search(f, target)
	scopes := f.Want.Scopes
	if s.covers >= 0 {
		scopes = granted(&p.rules[s.covers], f)
	}
	// Deny rules come last because they see the scopes that would be granted: a caller who asks for none gets
	// those of the covering rule.
	d, denied := p.denies(f, target, scopes)
	switch {
	case denied:
	case s.covers >= 0:
		d = p.grant(&p.rules[s.covers], target, f, scopes)
	case s.reachable:
		d = deny(RefusedScope, fmt.Sprintf("no rule covers scope %s at target %s", printable(strings.Join(f.Want.Scopes, " ")), target.Name))
		d.near = p.nearest(s, f, target)
	default:
		d = deny(RefusedTarget, fmt.Sprintf("no rule lets %s reach target %s", whoever(f), target.Name))
		d.near = p.nearest(s, f, target)
	}
	d.looked += s.looked
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
	candidates []int // rules that were looked at
	looked     int
}

// search finds the first allow rule that covers f.
func (p *Policy) search(f Facts, t *Target) search {
	var space [32]int
	s := search{covers: -1}
	s.candidates = p.allow[key{f.Workload.TrustDomain(), f.Workload.Issuer(), t.Name}].find(space[:0], f.Workload, false)
	for _, i := range s.candidates {
		s.looked++
		r := &p.rules[i]
		if !r.fits(f) || !p.ask(i, f, f.Workload, t, granted(r, f)).yes {
			continue
		}
		if len(missing(f.Want.Scopes, r.Scopes)) > 0 {
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
func (p *Policy) ask(i int, f Facts, who federation.Workload, t *Target, scopes []string) answer {
	c := p.conditions[i]
	if c == nil {
		return answer{known: true, yes: true}
	}
	return c.ask(newView(f, who, t, scopes))
}

// denies finds the first deny rule that matches the subject or who acts for it. Only the current actor counts:
// those before it are history (RFC 8693 section 4.1).
func (p *Policy) denies(f Facts, t *Target, scopes []string) (d Decision, denied bool) {
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
			found = p.deny[k].find(found, w, true)
		}
		slices.Sort(found)
		for _, i := range found {
			d.looked++
			if first >= 0 && i >= first {
				break
			}
			if !p.rules[i].denies(w) {
				continue
			}
			if a := p.ask(i, f, w, t, scopes); a.yes || !a.known {
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

// grant makes the grant of a rule that covers f. Nothing in it exceeds the rule, the target, the subject token or
// the actor token, but for the one opening that the rule names.
func (p *Policy) grant(r *Rule, t *Target, f Facts, scopes []string) Decision {
	// An exchange of our own token never widens it: what it could not do, its child cannot either,
	// when both are for one target.
	l := f.Workload.Token().Lineage()
	if l.Target == t.Name {
		if extra := missing(scopes, l.Scopes); len(extra) > 0 {
			return deny(RefusedScope, fmt.Sprintf("the subject token does not have scope %s", printable(strings.Join(extra, " "))))
		}
	}
	lifetime := t.MaxLifetime
	if r.Lifetime > 0 {
		lifetime = min(lifetime, r.Lifetime)
	}
	expires := f.Time.Add(lifetime)
	if end := f.Workload.Token().Expires(); end.Before(expires) && !(r.OutlivesSubject && l.IsZero()) {
		expires = end
	}
	if end := f.Actor.Token().Expires(); !end.IsZero() && end.Before(expires) { // zero: named in the subject token, which ends in time
		expires = end
	}
	return Decision{
		allowed: true,
		reasons: []string{fmt.Sprintf("rule %s (%s) allows", r.Name, r.Source)},
		grant: Grant{
			workload: f.Workload,
			actor:    f.Actor,
			once:     f.Workload.Token().SingleUse() || r.Require.SingleUse,
			target:   t.Name,
			resource: t.Resource,
			scopes:   slices.Clone(scopes),
			rule:     r.Name,
			expires:  expires,
		},
	}
}

func deny(why Refusal, reason string) Decision {
	return Decision{refusal: why, reasons: []string{reason}}
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

// printable keeps what a caller chose from spoiling an operator's terminal or log.
func printable(s string) string {
	const most = 64
	out := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
	if len(out) > most {
		out = out[:most] + "..."
	}
	return out
}
