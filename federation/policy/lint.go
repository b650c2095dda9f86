package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Severity says how sure it is that a finding is a mistake.
type Severity int

// The severities. An error is dead or contradicts itself; a warning is seldom meant; a note is worth knowing.
const (
	Error Severity = iota + 1
	Warning
	Note
)

// String returns the severity as the command line prints it.
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	case Note:
		return "note"
	default:
		return "invalid"
	}
}

// Finding is something that loads and is probably not meant.
type Finding struct {
	Severity Severity
	Part     string // "rule", "target" or "issuer"
	Index    int    // in the Config
	Path     string // inside that entry
	Message  string // what, and the fix
}

// Lint returns what is probably not meant in a policy that loads. It compares rules with rules, which takes time in the
// square of their number: it is for people and pipelines, not for servers.
func (p *Policy) Lint() []Finding {
	l := &linter{policy: p}
	for i := range p.rules {
		r := &p.rules[i]
		l.condition(i)
		if r.Effect == Deny {
			l.broadDeny(i)
			continue
		}
		l.dead(i)
		l.opening(i)
		l.names(i, "workloads", &r.Workloads)
		if r.Actors != nil {
			l.names(i, "actors", r.Actors)
		}
	}
	l.unused()
	return l.findings
}

type linter struct {
	policy   *Policy
	findings []Finding
}

func (l *linter) add(s Severity, part string, i int, path, format string, args ...any) {
	l.findings = append(l.findings, Finding{s, part, i, path, fmt.Sprintf(format, args...)})
}

// dead finds allow rules that never decide: an earlier rule covers whatever they would, or a deny rule without a
// condition refuses all of it.
func (l *linter) dead(i int) {
	r := &l.policy.rules[i]
	for j := range l.policy.rules {
		o := &l.policy.rules[j]
		switch {
		case o.Effect == Deny && l.policy.conditions[j] == nil && l.refuses(o, r):
			l.add(Error, "rule", i, "name", "rule %s can never allow: deny rule %s (%s) matches every workload and target of it; remove one of the two", r.Name, o.Name, o.Source)
			return
		case o.Effect == Allow && j < i && l.policy.conditions[j] == nil && l.covers(o, r):
			l.add(Error, "rule", i, "name", "rule %s never decides: rule %s (%s) comes first and covers all that it does; remove one, or narrow the first", r.Name, o.Name, o.Source)
			return
		}
	}
}

// refuses reports whether deny rule d matches everything that allow rule r is about.
func (l *linter) refuses(d, r *Rule) bool {
	return d.Workloads.TrustDomain == r.Workloads.TrustDomain &&
		(d.Workloads.Issuer == "" || d.Workloads.Issuer == r.Workloads.Issuer) &&
		(len(d.Targets) == 0 || len(missing(r.Targets, d.Targets)) == 0) &&
		wider(d.Workloads.Where, r.Workloads.Where)
}

// covers reports whether the earlier allow rule o answers every request that r would.
func (l *linter) covers(o, r *Rule) bool {
	return o.Workloads.TrustDomain == r.Workloads.TrustDomain && o.Workloads.Issuer == r.Workloads.Issuer &&
		len(missing(r.Targets, o.Targets)) == 0 &&
		len(missing(r.Scopes, o.Scopes)) == 0 &&
		(o.ExchangeFrom == nil) == (r.ExchangeFrom == nil) && len(missing(r.ExchangeFrom, o.ExchangeFrom)) == 0 &&
		(o.Require.Fresh == 0 || r.Require.Fresh != 0 && r.Require.Fresh <= o.Require.Fresh) &&
		(o.Actors == nil) == (r.Actors == nil) &&
		(o.Actors == nil || o.Actors.TrustDomain == r.Actors.TrustDomain && o.Actors.Issuer == r.Actors.Issuer &&
			(len(o.Actors.Where) == 0) == (len(r.Actors.Where) == 0) && slices.Equal(o.ActorsFrom, r.ActorsFrom) && // the same kind of proof
			wider(o.Actors.Where, r.Actors.Where)) &&
		wider(o.Workloads.Where, r.Workloads.Where)
}

// wider reports whether every workload with what b asks for has what a asks for.
func wider(a, b map[string]Matcher) bool {
	for name, m := range a {
		n, ok := b[name]
		if !ok || !m.includes(n) {
			return false
		}
	}
	return true
}

// includes reports whether every value that n matches is matched by m.
func (m Matcher) includes(n Matcher) bool {
	switch {
	case n.Contains != nil:
		return m.Contains != nil && equal(*m.Contains, *n.Contains)
	case n.Prefix != "":
		return m.Prefix != "" && (trimmed(n.Prefix) == trimmed(m.Prefix) || strings.HasPrefix(n.Prefix, strings.TrimSuffix(m.Prefix, "/")+"/"))
	default:
		for _, v := range n.OneOf {
			if !m.match(v) {
				return false
			}
		}
		return len(n.OneOf) > 0
	}
}

func (l *linter) broadDeny(i int) {
	r := &l.policy.rules[i]
	if len(r.Workloads.Where) > 0 || len(r.Targets) > 0 || r.When != "" {
		return
	}
	who := "every workload of " + r.Workloads.TrustDomain
	if r.Workloads.Issuer != "" {
		who += "/" + r.Workloads.Issuer
	}
	l.add(Warning, "rule", i, "name", "rule %s denies %s everything; if that is meant for good, remove the issuer from trust/ instead", r.Name, who)
}

func (l *linter) opening(i int) {
	if r := &l.policy.rules[i]; r.OutlivesSubject {
		l.add(Warning, "rule", i, "outlives_subject", "rule %s lets a credential outlive the token it was given for: whoever steals the token in its last second gets all of the rule's lifetime; keep lifetime as short as the target allows", r.Name)
	}
}

// names finds rules by names alone where the platform has something better, and prefixes of what can be chosen.
func (l *linter) names(i int, block string, w *Workloads) {
	at := slices.IndexFunc(l.policy.issuers, func(is Issuer) bool { return is.TrustDomain == w.TrustDomain && is.Name == w.Issuer })
	if at < 0 || len(w.Where) == 0 {
		return
	}
	schema := l.policy.issuers[at].Schema
	var anchors []string
	anchored := false
	for _, a := range schema {
		if a.Anchor {
			anchors = append(anchors, a.Name)
			_, asked := w.Where[a.Name]
			anchored = anchored || asked
		}
	}
	r := &l.policy.rules[i]
	if len(anchors) > 0 && !anchored {
		l.add(Note, "rule", i, block+".where", "rule %s goes by names, which can be given to somebody else after they are deleted; where that matters, add one of %s", r.Name, strings.Join(near(w.Where, anchors), ", "))
	}
	for _, name := range keys(w.Where) {
		a, _ := schema.Lookup(name)
		if m := w.Where[name]; m.Prefix != "" && !a.Anchor && !strings.Contains(strings.Trim(m.Prefix, "/"), "/") {
			l.add(Warning, "rule", i, block+".where."+name, "rule %s takes everything below %s, and who may create there is decided on the platform; name a longer path or the values", r.Name, m.Prefix)
		}
	}
}

// near puts the anchors of what a rule names first: service_account_uid for service_account.
func near(where map[string]Matcher, anchors []string) []string {
	fits := func(anchor string) bool {
		for name := range maps.Keys(where) {
			if strings.HasPrefix(anchor, name+"_") {
				return true
			}
		}
		return false
	}
	var first []string
	for _, a := range anchors {
		if fits(a) {
			first = append(first, a)
		}
	}
	if len(first) > 0 {
		return first
	}
	return anchors
}

func (l *linter) condition(i int) {
	c := l.policy.conditions[i]
	if c == nil {
		return
	}
	r := &l.policy.rules[i]
	for _, what := range c.loose {
		l.add(Warning, "rule", i, "when", "the condition of rule %s compares inside a segment: %s also takes what was named to look like it; end a prefix with its separator, or compare with == or in", r.Name, what)
	}
	switch {
	case c.constant == "true":
		l.add(Warning, "rule", i, "when", "the condition of rule %s is always true; leave it out", r.Name)
	case c.constant == "false":
		l.add(Error, "rule", i, "when", "the condition of rule %s is always false, so the rule never matches; remove the rule", r.Name)
	}
}

// unused finds issuers and targets that no allow rule names.
func (l *linter) unused() {
	issuers, targets := map[source]bool{}, map[string]bool{}
	for _, r := range l.policy.rules {
		if r.Effect != Allow {
			continue
		}
		issuers[source{r.Workloads.TrustDomain, r.Workloads.Issuer}] = true
		if r.Actors != nil {
			issuers[source{r.Actors.TrustDomain, r.Actors.Issuer}] = true
		}
		for _, t := range r.Targets {
			targets[t] = true
		}
	}
	for i, is := range l.policy.issuers {
		if !issuers[source{is.TrustDomain, is.Name}] {
			l.add(Warning, "issuer", i, "name", "no allow rule is about issuer %s of %s: it is believed for nothing; remove it until it is needed", is.Name, is.TrustDomain)
		}
	}
	for i, t := range l.policy.targets {
		if !targets[t.Name] {
			l.add(Warning, "target", i, "target", "no allow rule grants target %s, so nobody can get it; remove it, or write the rule", t.Name)
		}
	}
}
