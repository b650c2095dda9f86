package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Known is what a responder knows of whoever asks, before anybody does: a workload, a repository, a whole issuer, or one token.
type Known struct {
	TrustDomain string              // "" for any
	Issuer      string              // name inside the trust domain, "" for any
	Attributes  map[string][]string // as text; of a list, each element
	Complete    bool                // there are no other attributes: they are those of a verified token
	Own         string              // it is a token minted here for this target, "" for a platform's
	Target      string              // only this target, "" for any
	Rule        string              // only this rule, "" for any
}

// KnownOf is all there is to know of a verified workload and its token.
func KnownOf(w federation.Workload) Known {
	k := Known{TrustDomain: w.TrustDomain(), Issuer: w.Issuer(), Attributes: map[string][]string{}, Complete: true, Own: w.Token().Lineage().Target}
	for name, v := range w.Attributes() {
		if list, ok := v.Any().([]string); ok {
			k.Attributes[name] = list
		} else {
			k.Attributes[name] = []string{render(v)}
		}
	}
	return k
}

// Reachable is what one allow rule lets somebody of whom no more is known obtain.
type Reachable struct {
	Rule     string
	Source   string // "policy/orders.yaml:3"
	Target   string
	Scopes   []string
	Lifetime time.Duration // at most
	From     []string      // targets whose tokens are exchanged onward for it; none for a platform's token
	Needs    []string      // what else has to hold, in words
	Unless   []string      // deny rules that may match
}

// Reach says what k could obtain now: every allow rule that no known fact keeps from matching, directly and through tokens
// that are exchanged onward, to the depth that chains may have. It is an upper bound: what a condition says, and what is not
// known, stands in Needs. A deny rule that is certain to match takes what it denies away. Order is that of the rules.
func (p *Policy) Reach(k Known) []Reachable {
	found := map[[2]int]Reachable{} // by rule and target
	var denies []*Rule
	for i := range p.rules {
		if p.rules[i].Effect == Deny && k.is(p.rules[i].Workloads.TrustDomain, p.rules[i].Workloads.Issuer) {
			denies = append(denies, &p.rules[i])
		}
	}
	reached := map[string]bool{}
	if k.Own != "" {
		reached[k.Own] = true
	}
	for range MaxDepth {
		before := len(found)
		for i := range p.rules {
			for _, target := range p.rules[i].Targets {
				t, ok := p.byName[target]
				if _, done := found[[2]int{i, t}]; done || !ok {
					continue
				}
				if r, ok := p.reach(i, &p.targets[t], k, reached, denies); ok {
					found[[2]int{i, t}] = r
				}
			}
		}
		for at := range found {
			reached[p.targets[at[1]].Name] = true
		}
		if len(found) == before {
			break
		}
	}
	order := make([][2]int, 0, len(found))
	for at := range found {
		order = append(order, at)
	}
	slices.SortFunc(order, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	var out []Reachable
	for _, at := range order {
		r := found[at]
		if (k.Target == "" || k.Target == r.Target) && (k.Rule == "" || k.Rule == r.Rule) {
			out = append(out, r)
		}
	}
	return out
}

// reach asks one rule about one of its targets.
func (p *Policy) reach(i int, t *Target, k Known, reached map[string]bool, denies []*Rule) (Reachable, bool) {
	r := &p.rules[i]
	out := Reachable{Rule: r.Name, Source: r.Source, Target: t.Name, Scopes: r.Scopes, Lifetime: t.MaxLifetime}
	if r.Lifetime > 0 {
		out.Lifetime = min(r.Lifetime, t.MaxLifetime)
	}
	if r.Effect != Allow || !k.is(r.Workloads.TrustDomain, r.Workloads.Issuer) {
		return out, false
	}
	own := len(r.ExchangeFrom) > 0
	if !own && !p.names(r.Workloads, k) {
		return out, false
	}
	for _, from := range r.ExchangeFrom {
		if reached[from] {
			out.From = append(out.From, from)
		}
	}
	if own && len(out.From) == 0 || !own && k.Own != "" {
		return out, false
	}
	if own {
		k.Attributes, k.Complete = nil, true // a token minted here carries none
	}
	for _, name := range keys(r.Workloads.Where) {
		switch k.holds(name, r.Workloads.Where[name]) {
		case no:
			return out, false
		case perhaps:
			out.Needs = append(out.Needs, name+" is "+r.Workloads.Where[name].String())
		}
	}
	if r.Workloads.TrustDomain != "" && k.TrustDomain == "" {
		out.Needs = append(out.Needs, "trust domain "+r.Workloads.TrustDomain)
	}
	if r.Workloads.Issuer != "" && k.Issuer == "" {
		out.Needs = append(out.Needs, "issuer "+r.Workloads.Issuer)
	}
	if r.Actors != nil {
		out.Needs = append(out.Needs, "an actor of "+r.Actors.TrustDomain+"/"+r.Actors.Issuer)
	}
	if r.When != "" {
		out.Needs = append(out.Needs, "when "+r.When)
	}
	if r.Require.Fresh > 0 {
		out.Needs = append(out.Needs, "a token at most "+r.Require.Fresh.String()+" old")
	}
	if r.Require.SingleUse {
		out.Needs = append(out.Needs, "a token that was not used for this target")
	}
	for _, d := range denies {
		if len(d.Targets) > 0 && !slices.Contains(d.Targets, t.Name) {
			continue
		}
		switch d.denied(k) {
		case yes:
			return out, false
		case perhaps:
			out.Unless = append(out.Unless, d.Name)
		}
	}
	return out, true
}

// names reports whether an issuer whose workloads a rule is about names the attributes that are known.
func (p *Policy) names(w Workloads, k Known) bool {
	return len(k.Attributes) == 0 || k.Complete || slices.ContainsFunc(p.issuers, func(is Issuer) bool {
		if w.TrustDomain != "" && w.TrustDomain != is.TrustDomain || w.Issuer != "" && w.Issuer != is.Name || !k.is(is.TrustDomain, is.Name) {
			return false
		}
		for name := range k.Attributes {
			if !slices.ContainsFunc(is.Schema, func(a federation.Attribute) bool { return a.Name == name }) {
				return false
			}
		}
		return true
	})
}

// Strange says why KEY=VALUE of a selector names nothing that this policy has, "" when it does, or names something else.
func (p *Policy) Strange(key, value string) string {
	var have []string
	what := key + " " + value
	if name, ok := strings.CutPrefix(key, "attr."); ok {
		for _, is := range p.issuers {
			for _, a := range is.Schema {
				have = append(have, a.Name)
			}
		}
		what, value = "attribute "+name, name
	}
	switch key {
	case "target":
		for _, t := range p.targets {
			have = append(have, t.Name)
		}
	case "rule":
		for _, r := range p.rules {
			have = append(have, r.Name)
		}
	case "issuer":
		for _, is := range p.issuers {
			have = append(have, is.TrustDomain+"/"+is.Name)
		}
	case "trust_domain":
		for _, is := range p.issuers {
			have = append(have, is.TrustDomain)
		}
	default:
		if !strings.HasPrefix(key, "attr.") {
			return ""
		}
	}
	if slices.Contains(have, value) {
		return ""
	}
	slices.Sort(have)
	return "the configuration in force has no " + what + didYouMean(value, slices.Compact(have))
}

// maybe is an answer about what is only partly known.
type maybe int

const (
	no maybe = iota
	perhaps
	yes
)

// is reports whether k can be of a trust domain and an issuer.
func (k Known) is(trustDomain, issuer string) bool {
	return (k.TrustDomain == "" || trustDomain == "" || k.TrustDomain == trustDomain) && (k.Issuer == "" || issuer == "" || k.Issuer == issuer)
}

// holds reports whether an attribute satisfies a matcher.
func (k Known) holds(name string, m Matcher) maybe {
	values, known := k.Attributes[name]
	switch {
	case known && slices.ContainsFunc(values, m.matchText):
		return yes
	case known && m.Contains == nil || k.Complete: // of a list that is not complete, another element may be the one
		return no
	default:
		return perhaps
	}
}

// matchText is match for a value of which only the text is known, or for one element of a list.
func (m Matcher) matchText(s string) bool {
	switch {
	case m.Prefix != "":
		return s == m.Prefix || strings.HasPrefix(s, strings.TrimSuffix(m.Prefix, "/")+"/")
	case m.Contains != nil:
		return render(*m.Contains) == s
	default:
		return slices.ContainsFunc(m.OneOf, func(v federation.Value) bool { return render(v) == s })
	}
}

// denied reports whether a deny rule matches: in it an absent attribute does.
func (d *Rule) denied(k Known) maybe {
	out := yes
	if d.When != "" || d.Workloads.TrustDomain != "" && k.TrustDomain == "" || d.Workloads.Issuer != "" && k.Issuer == "" {
		out = perhaps
	}
	for name, m := range d.Workloads.Where {
		values, known := k.Attributes[name]
		switch {
		case known && slices.ContainsFunc(values, m.matchText), !known && k.Complete:
		case known && m.Contains == nil, known && k.Complete:
			return no
		default:
			out = perhaps
		}
	}
	return out
}
