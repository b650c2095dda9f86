// Package policy is door two: what a verified workload may have, and why. Rules are compiled once by
// [New] into an immutable [Policy]; [Policy.Decide] is a pure function of its arguments: no clock, no
// network, no key, no token.
//
// Everything is denied unless a rule allows it. A deny rule wins over every allow rule. One allow rule
// must cover all that was asked: rules are never added up, and a request is never silently narrowed.
// In an allow rule an absent attribute is no match; in a deny rule it is a match. A [Grant], the only
// thing a broker accepts, comes from an allowing [Decision] and from nowhere else.
//
// A rule can carry a condition in CEL, compiled once over typed names; it can only narrow, and nothing that is
// missing or fails in it helps an allow rule. Rules are filed by what they ask for, so that a decision looks at
// those that can match and not at all. [Policy.Lint] says what loads and is probably not meant.
package policy
