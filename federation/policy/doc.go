// Package policy is door two: what a verified workload may have, and why. Rules are compiled once by
// [New] into an immutable [Policy]; [Policy.Decide] is a pure function of its arguments: no clock, no
// network, no key, no token.
//
// Everything is denied unless a rule allows it. A deny rule wins over every allow rule. One allow rule
// must cover all that was asked: rules are never added up, and a request is never silently narrowed.
// In an allow rule an absent attribute is no match; in a deny rule it is a match. A [Grant], the only
// thing a broker accepts, comes from an allowing [Decision] and from nowhere else.
package policy
