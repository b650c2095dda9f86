package policy

import (
	"slices"
	"strings"
)

// onward checks what rules with exchange_from do to each other. It runs on rules that are sound by themselves.
func (c *checker) onward() {
	for i := range c.policy.rules {
		r := &c.policy.rules[i]
		if r.Effect != Allow || len(r.ExchangeFrom) == 0 {
			continue
		}
		if d := c.shadow(r); d != nil {
			c.rule(i, "exchange_from", "this rule can never allow: deny rule %s (%s) asks for attributes, a token minted here carries none, and in a deny rule what is absent matches; give the deny rule the targets or the issuer that it is about", d.Name, d.Source)
		}
		if circle := c.circle(i); circle != nil {
			c.rule(i, "exchange_from", "tokens could go in a circle, %s, and come back with scopes that they did not have; a target may be exchanged for itself, which never widens, but not by way of others", strings.Join(circle, " -> "))
		}
	}
}

// shadow returns a deny rule that asks for attributes and so matches every token the rule is for, at each of its targets.
func (c *checker) shadow(r *Rule) *Rule {
	for i := range c.policy.rules {
		d := &c.policy.rules[i]
		when := c.policy.conditions[i]
		asks := len(d.Workloads.Where) > 0 && when == nil || when != nil && len(when.attributes) > 0
		if d.Effect != Deny || !asks || d.Workloads.TrustDomain != r.Workloads.TrustDomain ||
			d.Workloads.Issuer != "" && d.Workloads.Issuer != r.Workloads.Issuer {
			continue
		}
		if len(d.Targets) == 0 || len(missing(r.Targets, d.Targets)) == 0 {
			return d
		}
	}
	return nil
}

// circle returns the targets by which a token of one of rule i's targets can come back to it, nil if by none. It
// looks at the rules of one trust domain and issuer: an exchange keeps both.
func (c *checker) circle(i int) []string {
	start := &c.policy.rules[i]
	var walk func(path []string) []string
	walk = func(path []string) []string {
		at := path[len(path)-1]
		for j := range c.policy.rules {
			r := &c.policy.rules[j]
			if r.Effect != Allow || r.Workloads.TrustDomain != start.Workloads.TrustDomain || r.Workloads.Issuer != start.Workloads.Issuer || !slices.Contains(r.ExchangeFrom, at) {
				continue
			}
			for _, next := range r.Targets {
				switch {
				case next == at:
				case next == path[0]:
					return append(path, next)
				case !slices.Contains(path, next):
					if found := walk(append(slices.Clone(path), next)); found != nil {
						return found
					}
				}
			}
		}
		return nil
	}
	for _, from := range start.ExchangeFrom {
		for _, to := range start.Targets {
			if to == from {
				continue
			}
			if found := walk([]string{from, to}); found != nil {
				return found
			}
		}
	}
	return nil
}
