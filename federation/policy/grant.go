package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Grant is what an allowing decision yields, and the only thing that a broker accepts. The zero Grant
// grants nothing. Values are immutable.
type Grant struct {
	workload federation.Workload
	actor    federation.Workload
	target   string
	resource string
	audience string
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

// Audience returns the aud of a token that is minted by this grant.
func (g Grant) Audience() string { return g.audience }

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
			audience: cmp.Or(t.Audience, t.Resource, t.Name),
			scopes:   slices.Clone(scopes),
			rule:     r.Name,
			expires:  expires,
		},
	}
}
