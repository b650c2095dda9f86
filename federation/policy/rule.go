package policy

import (
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Effect says what a matching rule does.
type Effect int

// The effects. The zero Effect is no effect and does not load.
const (
	Allow Effect = iota + 1
	Deny
)

// String returns the effect as configuration spells it.
func (e Effect) String() string {
	switch e {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	default:
		return "invalid"
	}
}

// Rule is one rule as configured.
type Rule struct {
	Name      string
	Source    string // "policy/orders.yaml:3", for reasons
	Effect    Effect
	Workloads Workloads
	Targets   []string      // names; empty in a deny rule means every target
	Scopes    []string      // what an allow rule grants, at most; never "all"
	Lifetime  time.Duration // of the credential; 0 means the target's maximum

	// ExchangeFrom makes an allow rule one for tokens that this deployment minted: those of the
	// listed targets, presented as subject tokens. Without it a rule never matches an own token.
	ExchangeFrom []string

	// Actors makes an allow rule one for requests in which somebody acts for the workloads. With Where they
	// present a platform's token. Without it, and without ActorsFrom, they are named in the subject token, one of
	// our own, and nobody presents an actor token. Without Actors a rule covers no request in which anybody acts
	// for another.
	Actors *Workloads

	// ActorsFrom says that the actors present a token that this deployment minted for one of the listed targets.
	// Whoever receives tokens for a target could present those of its callers, so it should be a target that is
	// for nothing else. Without it an own token is never an actor token.
	ActorsFrom []string

	When    string  // a condition in CEL, "" for none; it can only narrow
	Require Require // what an allow rule demands of the subject token

	// OutlivesSubject lets the credential live past the subject token, up to the rule's and the target's
	// lifetime: an opening, for platforms whose tokens live shorter than any useful credential.
	OutlivesSubject bool
}

// Require is what a rule demands of the subject token beyond its attributes. The zero Require demands nothing.
type Require struct {
	Fresh     time.Duration // issued (iat) at most so long ago; 0 for any age. A token without iat is never fresh
	SingleUse bool          // exchanged for the target at most once
	Bound     bool          // bound to a key; no token can be yet, so a rule with it does not load
}

// Workloads says whom a rule is about.
type Workloads struct {
	TrustDomain string
	Issuer      string             // name inside the trust domain; "" in a deny rule means every issuer of it
	Where       map[string]Matcher // attribute name -> what its value must be; all must match
}

// Matcher matches one attribute value. Exactly one field is set. Claim values are data here, never a
// pattern: there is no regular expression and no glob.
type Matcher struct {
	OneOf    []federation.Value // equal to one of these, type and value
	Prefix   string             // a string attribute that is this path or below it, by whole segments
	Contains *federation.Value  // a strings attribute that has this element
}

// String renders the matcher for an operator.
func (m Matcher) String() string {
	switch {
	case m.Prefix != "":
		return m.Prefix + " or below"
	case m.Contains != nil:
		return "contains " + render(*m.Contains)
	case len(m.OneOf) == 1:
		return render(m.OneOf[0])
	default:
		parts := make([]string, len(m.OneOf))
		for i, v := range m.OneOf {
			parts[i] = render(v)
		}
		return "one of " + strings.Join(parts, ", ")
	}
}

// match reports whether v satisfies m. Values of unlike types never do.
func (m Matcher) match(v federation.Value) bool {
	switch {
	case m.Prefix != "":
		s, ok := v.Any().(string)
		return ok && (s == m.Prefix || strings.HasPrefix(s, strings.TrimSuffix(m.Prefix, "/")+"/"))
	case m.Contains != nil:
		list, ok := v.Any().([]string)
		want, isString := m.Contains.Any().(string)
		if !ok || !isString {
			return false
		}
		for _, s := range list {
			if s == want {
				return true
			}
		}
		return false
	default:
		for _, want := range m.OneOf {
			if equal(want, v) {
				return true
			}
		}
		return false
	}
}

// Target is what policy knows of a target.
type Target struct {
	Name            string
	Resource        string        // absolute URI by which it can also be asked for; "" for none
	Audience        string        // aud of the tokens that are minted for it; "" for the resource, else the name
	MaxLifetime     time.Duration // of a credential; 0 means [DefaultLifetime]
	MinLifetime     time.Duration // the shortest that a credential for it can have; 0 for any
	Scopes          []string      // the words it defines
	GrantableTo     []string      // trust domains whose workloads may get it; nil means every configured one
	ResourceServers []string      // workload ids, or id prefixes ending in "/*", that may introspect its tokens
}

// Lifetimes of minted credentials (design section 6).
const (
	DefaultLifetime = 15 * time.Minute
	MaxLifetime     = federation.OwnMaxLifetime
)

// MaxDepth is how many tokens a chain of exchanges may have, the first included: each carries its ancestors, and
// a token has a size.
const MaxDepth = 5

// Issuer is what policy knows of an issuer: its name and the attributes its adapter declares.
type Issuer struct {
	TrustDomain string
	Name        string
	Schema      federation.Schema
	MultiTenant bool // it signs for customers that do not know each other: allow rules need an anchor
}
