package policy

import (
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
	effort  effort
}

// Near is the allow rule that came closest to covering a denied request.
type Near struct {
	Rule     string
	Claim    string // what did not fit: an attribute, "actor", "actor.ATTRIBUTE", "fresh", "scope", "when", "subject token"
	Expected string
	Found    string
}

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

func deny(why Refusal, reason string) Decision {
	return Decision{refusal: why, reasons: []string{reason}}
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
