package policy

import (
	"slices"
	"strings"
)

// onward checks what rules with exchange_from do to each other. It runs on rules that are sound by themselves.
func (c *checker) onward() {
	all := map[source]*ways{}
	for i := range c.policy.rules {
		r := &c.policy.rules[i]
		if r.Effect != Allow || len(r.ExchangeFrom) == 0 {
			continue
		}
		if d := c.shadow(r); d != nil {
			c.rule(i, "exchange_from", "this rule can never allow: deny rule %s (%s) asks for attributes, a token minted here carries none, and in a deny rule what is absent matches; give the deny rule the targets or the issuer that it is about", d.Name, d.Source)
		}
		s := source{r.Workloads.TrustDomain, r.Workloads.Issuer}
		if all[s] == nil {
			all[s] = c.ways(s)
		}
		if circle := all[s].circle(r); circle != nil {
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

// ways is how tokens of one issuer's workloads can be exchanged onward. An exchange keeps trust domain and issuer.
type ways struct {
	into map[string][]string          // a target -> those whose tokens may be exchanged for it, but for itself
	back map[string]map[string]string // what towards has worked out
}

func (c *checker) ways(s source) *ways {
	w := &ways{into: map[string][]string{}, back: map[string]map[string]string{}}
	for i := range c.policy.rules {
		r := &c.policy.rules[i]
		if r.Effect != Allow || r.Workloads.TrustDomain != s.trustDomain || r.Workloads.Issuer != s.issuer {
			continue
		}
		for _, from := range r.ExchangeFrom {
			for _, to := range r.Targets {
				if from != to && !slices.Contains(w.into[to], from) {
					w.into[to] = append(w.into[to], from)
				}
			}
		}
	}
	return w
}

// towards returns, for each target whose tokens can become tokens of end, the next one on a shortest way there. Each
// step is looked at once: there can be more ways than anybody could follow.
func (w *ways) towards(end string) map[string]string {
	next := w.back[end]
	if next != nil {
		return next
	}
	next = map[string]string{}
	for queue := []string{end}; len(queue) > 0; queue = queue[1:] {
		for _, from := range w.into[queue[0]] {
			if next[from] == "" && from != end {
				next[from] = queue[0]
				queue = append(queue, from)
			}
		}
	}
	w.back[end] = next
	return next
}

// circle returns the targets by which a token of one that r is for can come back to it, nil if by none.
func (w *ways) circle(r *Rule) []string {
	for _, from := range r.ExchangeFrom {
		next := w.towards(from)
		for _, to := range r.Targets {
			if to == from || next[to] == "" {
				continue
			}
			path := []string{from}
			for at := to; at != from; at = next[at] {
				path = append(path, at)
			}
			return append(path, from)
		}
	}
	return nil
}
