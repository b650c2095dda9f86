package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// fresh reports whether the token was issued at most so long before now. A token that does not say when it was
// issued is not fresh.
func (q Require) fresh(t federation.Token, now time.Time) bool {
	return q.Fresh == 0 || !t.IssuedAt().IsZero() && now.Sub(t.IssuedAt()) <= q.Fresh
}

// age says how old a token is, for an operator.
func age(t federation.Token, now time.Time) string {
	if t.IssuedAt().IsZero() {
		return "no iat"
	}
	return fmt.Sprintf("issued %s ago", now.Sub(t.IssuedAt()).Truncate(time.Second))
}

// require refuses demands that can never be met, and openings where they would open too much.
func (c *checker) require(i int) {
	r := &c.policy.rules[i]
	if r.Effect == Deny {
		if r.Require != (Require{}) || r.OutlivesSubject || r.Actors != nil || r.ActorsFrom != nil {
			c.rule(i, "effect", "a deny rule refuses its workloads, whether they are the subject or act for it; actors, actors_from, require and outlives_subject have no place in it")
		}
		return
	}
	if r.Require.Bound {
		c.rule(i, "require.bound", "no token can be bound to a key in this version, so this rule could never allow; leave bound out, or the rule")
	}
	if r.Require.Fresh < 0 || r.Require.Fresh > 0 && r.Require.Fresh < time.Second {
		c.rule(i, "require.fresh", "fresh %s is below one second", r.Require.Fresh)
	}
	if r.OutlivesSubject && r.ExchangeFrom != nil {
		c.rule(i, "outlives_subject", "a token minted here never lives longer than the one it was exchanged from; outlives_subject is for tokens of platforms, without exchange_from")
	}
}

// actors checks the block of those who may act for a rule's workloads, by the same measure as the workloads.
func (c *checker) actors(i int) {
	r := &c.policy.rules[i]
	if r.Effect != Allow {
		return
	}
	c.actorsFrom(i)
	if r.Actors == nil {
		return
	}
	domain, ok := c.issuers[r.Actors.TrustDomain]
	if !ok {
		c.rule(i, "actors.trust_domain", "trust domain %q has no trust file%s", r.Actors.TrustDomain, didYouMean(r.Actors.TrustDomain, keys(c.issuers)))
		return
	}
	if r.Actors.Issuer == "" {
		c.rule(i, "actors.issuer", "actors name their issuer; the issuers of %s are %s", r.Actors.TrustDomain, strings.Join(keys(domain), ", "))
		return
	}
	schema, ok := domain[r.Actors.Issuer]
	if !ok {
		c.rule(i, "actors.issuer", "issuer %q is not in trust domain %s%s", r.Actors.Issuer, r.Actors.TrustDomain, didYouMean(r.Actors.Issuer, keys(domain)))
		return
	}
	if len(r.Actors.Where) == 0 && r.ActorsFrom == nil && r.ExchangeFrom == nil {
		c.rule(i, "actors.where", "a rule says which workloads of %s may act (where: ...)", r.Actors.Issuer)
	}
	for j, name := range r.Targets {
		if t, ok := c.policy.byName[name]; ok {
			if g := c.policy.targets[t].GrantableTo; g != nil && !slices.Contains(g, r.Actors.TrustDomain) {
				c.rule(i, fmt.Sprintf("targets[%d]", j), "target %s is grantable to %s only, and who acts receives the credential; its owner must add %s to grantable_to first", name, strings.Join(g, ", "), r.Actors.TrustDomain)
			}
		}
	}
	c.where(i, "actors", r.Actors, schema)
	c.anchorActors(i)
}

// actorsFrom checks the list of targets whose tokens actors may present.
func (c *checker) actorsFrom(i int) {
	r := &c.policy.rules[i]
	switch {
	case r.ActorsFrom == nil:
		return
	case len(r.ActorsFrom) == 0:
		c.rule(i, "actors_from", "actors_from lists no target; name those whose tokens may be presented as actor tokens, or leave the key out")
	case r.Actors == nil:
		c.rule(i, "actors_from", "actors_from says what actors present, and the rule has no actors; name them, or leave the key out")
	case len(r.Actors.Where) > 0:
		c.rule(i, "actors.where", "a token minted here carries no platform attributes, so where would never match; leave it out of a rule with actors_from")
	}
	for j, t := range r.ActorsFrom {
		if _, ok := c.policy.byName[t]; !ok {
			c.rule(i, fmt.Sprintf("actors_from[%d]", j), "target %q is not defined%s", t, didYouMean(t, keys(c.policy.byName)))
		} else if slices.Contains(r.Targets, t) || slices.Contains(r.ExchangeFrom, t) {
			c.rule(i, fmt.Sprintf("actors_from[%d]", j), "who serves target %s holds tokens of all its callers, and could present one as its own; let actors have tokens for a target that is for nothing else", t)
		}
	}
}

// anchorActors holds actors of an issuer that many customers share to what [checker.anchor] demands of workloads.
func (c *checker) anchorActors(i int) {
	a := c.policy.rules[i].Actors
	if len(a.Where) == 0 {
		return // by our own word: the rule by which they got it looked at them
	}
	for _, is := range c.cfg.Issuers {
		if is.TrustDomain != a.TrustDomain || is.Name != a.Issuer || !is.MultiTenant {
			continue
		}
		for _, attribute := range is.Schema {
			if attribute.Anchor && len(a.Where[attribute.Name].OneOf) > 0 {
				return
			}
		}
		c.rule(i, "actors.where", "issuer %s serves many customers, and everything that is asked of the actors can be given to somebody else later; add the exact value of an anchor, as workloads need one", a.Issuer)
	}
}
