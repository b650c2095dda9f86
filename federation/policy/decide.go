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
}

// Near is the allow rule that came closest to covering a denied request.
type Near struct {
	Rule     string
	Claim    string // what did not fit: an attribute, "scope", "subject token"
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
// target's lifetime, nor after the subject token.
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
func (p *Policy) Decide(f Facts) Decision {
	if f.Workload.IsZero() {
		return deny(RefusedTarget, "no verified workload")
	}
	if !f.Actor.IsZero() {
		return deny(RefusedTarget, "no rule lets anybody act for another")
	}
	target, why := p.resolve(f.Want)
	if target == nil {
		return deny(RefusedTarget, why)
	}
	if l := f.Workload.Token().Lineage(); !l.IsZero() && l.Depth >= MaxDepth {
		return deny(RefusedTarget, fmt.Sprintf("the subject token ends a chain of %d tokens, the most there may be", MaxDepth))
	}
	for _, i := range p.deny[f.Workload.TrustDomain()] {
		if r := &p.rules[i]; r.denies(f.Workload, target.Name) {
			return deny(RefusedTarget, fmt.Sprintf("rule %s (%s) denies%s", r.Name, r.Source, r.absences(f.Workload)))
		}
	}
	reachable, best := "", nearest{misses: 1 << 30}
	for _, i := range p.allow[key{f.Workload.TrustDomain(), f.Workload.Issuer(), target.Name}] {
		r := &p.rules[i]
		if !r.allows(f.Workload) {
			best.consider(r, f)
			continue
		}
		if extra := missing(f.Want.Scopes, r.Scopes); len(extra) > 0 {
			reachable = r.Name
			best.consider(r, f)
			continue
		}
		return grant(r, target, f)
	}
	if reachable != "" {
		d := deny(RefusedScope, fmt.Sprintf("no rule covers scope %s at target %s", strings.Join(f.Want.Scopes, " "), target.Name))
		d.near = best.near
		return d
	}
	d := deny(RefusedTarget, fmt.Sprintf("no rule lets %s reach target %s", f.Workload.ID(), target.Name))
	d.near = best.near
	return d
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

// denies: an absent attribute is a match, so that a token that leaves a claim out cannot slip by.
func (r *Rule) denies(w federation.Workload, target string) bool {
	if len(r.Targets) > 0 && !slices.Contains(r.Targets, target) {
		return false
	}
	if r.Workloads.Issuer != "" && r.Workloads.Issuer != w.Issuer() {
		return false
	}
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

// allows: an absent attribute is no match. Trust domain and issuer were matched by the index.
func (r *Rule) allows(w federation.Workload) bool {
	if !r.accepts(w.Token().Lineage()) {
		return false
	}
	for name, m := range r.Workloads.Where {
		if v, ok := w.Attribute(name); !ok || !m.match(v) {
			return false
		}
	}
	return true
}

// accepts tells a platform's token from one of our own: a rule is for the one or for the other.
func (r *Rule) accepts(l federation.Lineage) bool {
	if l.IsZero() {
		return len(r.ExchangeFrom) == 0
	}
	return slices.Contains(r.ExchangeFrom, l.Target)
}

func grant(r *Rule, t *Target, f Facts) Decision {
	scopes := f.Want.Scopes
	if len(scopes) == 0 {
		scopes = r.Scopes
	}
	// An exchange of our own token never widens it: what it could not do, its child cannot either,
	// when both are for one target.
	if l := f.Workload.Token().Lineage(); l.Target == t.Name {
		if extra := missing(scopes, l.Scopes); len(extra) > 0 {
			return deny(RefusedScope, fmt.Sprintf("the subject token does not have scope %s", strings.Join(extra, " ")))
		}
	}
	lifetime := t.MaxLifetime
	if r.Lifetime > 0 {
		lifetime = min(lifetime, r.Lifetime)
	}
	expires := f.Time.Add(lifetime)
	if end := f.Workload.Token().Expires(); end.Before(expires) {
		expires = end
	}
	if end := f.Actor.Token().Expires(); !end.IsZero() && end.Before(expires) {
		expires = end
	}
	return Decision{
		allowed: true,
		reasons: []string{fmt.Sprintf("rule %s (%s) allows", r.Name, r.Source)},
		grant: Grant{
			workload: f.Workload,
			actor:    f.Actor,
			once:     f.Workload.Token().SingleUse(),
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

// nearest keeps the rule with the fewest things that did not fit; the first of equals.
type nearest struct {
	misses int
	near   *Near
}

func (n *nearest) consider(r *Rule, f Facts) {
	misses, first := r.misses(f)
	if misses > 0 && misses < n.misses {
		n.misses, n.near = misses, &first
	}
}

func (r *Rule) misses(f Facts) (count int, first Near) {
	miss := func(claim, expected, found string) {
		if count == 0 {
			first = Near{Rule: r.Name, Claim: claim, Expected: expected, Found: found}
		}
		count++
	}
	if l := f.Workload.Token().Lineage(); !r.accepts(l) {
		switch {
		case l.IsZero():
			miss("subject token", "one minted here for "+strings.Join(r.ExchangeFrom, ", "), "a platform's token")
		case len(r.ExchangeFrom) == 0:
			miss("subject token", "a platform's token", "one minted here for "+l.Target)
		default:
			miss("subject token", "one minted here for "+strings.Join(r.ExchangeFrom, ", "), "one minted here for "+l.Target)
		}
	}
	for _, name := range keys(r.Workloads.Where) {
		m := r.Workloads.Where[name]
		v, ok := f.Workload.Attribute(name)
		if !ok || !m.match(v) {
			miss(name, m.String(), render(v))
		}
	}
	if extra := missing(f.Want.Scopes, r.Scopes); len(extra) > 0 {
		miss("scope", strings.Join(r.Scopes, " "), strings.Join(f.Want.Scopes, " "))
	}
	return count, first
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
