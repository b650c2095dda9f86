package operator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Second says what takes two people.
type Second struct {
	Unlock bool // to lift a lock
	Estate bool // to revoke or lock what is of no one trust domain: see [Wide]
	Domain bool // to revoke or lock more than one workload or token: see [Narrow]
}

// Needs reports whether a revocation or lock of what sel names, or the end of a lock, takes two people.
func (s Second) Needs(a Action, sel revocation.Selector) bool {
	return a == Unlock && s.Unlock || a == Revoke && (s.Estate && Wide(sel) || s.Domain && !Narrow(sel))
}

// Why says why a revocation or lock of sel takes two people, and what would not.
func (s Second) Why(sel revocation.Selector) string {
	if s.Domain && !Narrow(sel) {
		return "it takes two people because the selector names no workload, token or lease (second_person: domain); one that does, by subject, actor, token, jti, family or lease, takes one"
	}
	return "it takes two people because the selector names no trust domain, workload or token (second_person: estate); with a term such as trust_domain= it takes one"
}

// Narrow reports whether a selector names one workload, one token or one lease, with what came of it. No other term narrows for
// sure: everything may be of one policy, be granted by one rule, or have one attribute.
func Narrow(sel revocation.Selector) bool {
	return names(sel, revocation.KeyLease, revocation.KeyFamily, revocation.KeyToken, revocation.KeyJTI, revocation.KeySubject, revocation.KeyActor)
}

// Wide reports whether a selector reaches beyond one trust domain: nothing in it says whose credentials die.
func Wide(sel revocation.Selector) bool {
	return !Narrow(sel) && !names(sel, revocation.KeyIssuer, revocation.KeyKey, revocation.KeyTrustDomain)
}

func names(sel revocation.Selector, keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return sel.Value(k) != "" })
}

// Kind says how an operator has shown who it is.
type Kind string

// The kinds.
const (
	User        Kind = "user"        // of the system, at the socket: uid=N
	Certificate Kind = "certificate" // by its URI or email name
	Token       Kind = "token"       // of a person: spiffe://operators/ISSUER/...
)

// Credential is what an operator has shown who it is with, of whatever process, certificate or token.
type Credential struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
}

// Person is somebody with more than one credential, or whose one credential is not known to be of somebody else than
// others'.
type Person struct {
	Name        string
	Credentials []Credential
}

// ErrOnePerson means that two credentials are of one person, or may be. Its text is for the operator.
var ErrOnePerson = errors.New("it takes another person than the one who asked")

// TwoPeople returns nil when two credentials are of two people for all that anybody said: of two that [Authority.People] or
// Same know. Between others nobody can tell: one person may have a certificate, a login and the socket.
func (a *Authority) TwoPeople(x, y Credential) error {
	if x == y {
		return ErrOnePerson
	}
	who, other := a.named(x), a.named(y)
	switch {
	case who != "" && who == other:
		return fmt.Errorf("%w: %s and %s are both %s", ErrOnePerson, x.ID, y.ID, who)
	case who != "" && other != "", x.Kind == Token && y.Kind == Token && issuerOf(x) == issuerOf(y): // which gives each person one login
		return nil
	}
	return fmt.Errorf("%w: %s and %s may be one person's; say whose they are with same_person in operators.yaml", ErrOnePerson, x.ID, y.ID)
}

func (a *Authority) named(c Credential) string {
	for _, p := range a.Same {
		if slices.Contains(p.Credentials, c) {
			return p.Name
		}
	}
	return ""
}

func issuerOf(c Credential) string {
	_, issuer, _ := strings.Cut(strings.TrimPrefix(c.ID, "spiffe://"), "/")
	return first(issuer)
}

// Still returns who showed a credential a short while ago, with those of its roles of then that it has now: grounds are what
// gave it the roles (see [Operator.Grounds]), and each counts while it stands as it was written. What a token said of its
// person is taken to be so still: it would have been, for as long.
func (a *Authority) Still(c Credential, grounds []string) Operator {
	o := Operator{Name: c.ID, By: c, all: c.Kind == User}
	if !o.all {
		o, _ = a.with(o, func(ground string) bool { return slices.Contains(grounds, ground) }) // without a role it may do nothing
	}
	return o
}
