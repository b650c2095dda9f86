package policy

import (
	"slices"
	"strings"
)

// anchor demands that an allow rule about an issuer that many customers share names at least one anchor by exact value:
// names on such a platform can be given up by one customer and taken by another. Rules with exchange_from are about
// tokens minted here, which carry no attributes; their workload was let in by a rule that this check has seen.
func (c *checker) anchor(i int) {
	r := &c.policy.rules[i]
	at := slices.IndexFunc(c.cfg.Issuers, func(is Issuer) bool {
		return is.TrustDomain == r.Workloads.TrustDomain && is.Name == r.Workloads.Issuer
	})
	if at < 0 || !c.cfg.Issuers[at].MultiTenant || r.Effect != Allow || r.ExchangeFrom != nil {
		return
	}
	var anchors []string
	for _, a := range c.cfg.Issuers[at].Schema {
		if !a.Anchor {
			continue
		}
		if m, ok := r.Workloads.Where[a.Name]; ok && len(m.OneOf) > 0 && m.Prefix == "" && m.Contains == nil {
			return
		}
		anchors = append(anchors, a.Name)
	}
	c.rule(i, "workloads.where", "issuer %s serves many customers, and everything this rule names can be given to somebody else later; add the exact value of one of %s",
		r.Workloads.Issuer, strings.Join(anchors, ", "))
}
