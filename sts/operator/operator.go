// Package operator knows who may respond to an incident, and where. An [Operator] is who called the admin listener, with
// what its roles let it do in which trust domains; an [Authority] makes one of a client certificate or of a person's token,
// verified directly: no token that was minted here ever makes one, since a compromised service must not authorise the
// response to itself.
package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Action is what an operator does.
type Action string

// The actions.
const (
	Look   Action = "look"   // see leases, locks, reach, dry runs, and how the server does
	Revoke Action = "revoke" // revoke and lock
	Unlock Action = "unlock" // lift locks
)

// Actions are all of them.
func Actions() []Action { return []Action{Look, Revoke, Unlock} }

// Operator is who called, as the listener itself knows.
type Operator struct {
	Name    string // for the record, such as uid=0 pid=4711
	By      Credential
	roles   []Role
	grounds []string
	all     bool // a local one: who may open the socket may do everything
}

// Local is who opened the admin socket, a user of the system such as uid=0: the socket's file permission is the authority.
func Local(name, user string) Operator {
	return Operator{Name: name, By: Credential{User, user}, all: true}
}

// Remote reports whether o came over the network.
func (o Operator) Remote() bool { return !o.all }

// Grounds are what gave o its roles: a role's name, and that a certificate is listed or which entry of people holds. None of a
// local one.
func (o Operator) Grounds() []string { return slices.Clone(o.grounds) }

type key struct{}

// With is for the listener alone: it says who makes the requests of ctx. Nothing in a request can set it.
func With(ctx context.Context, o Operator) context.Context { return context.WithValue(ctx, key{}, o) }

// From returns who called. It is false when the listener could not tell, and then nothing may be done.
func From(ctx context.Context) (Operator, bool) {
	o, ok := ctx.Value(key{}).(Operator)
	return o, ok && o.Name != ""
}

// ErrForbidden means that no role of an operator lets it do what it asked for. Its text is for the operator.
var ErrForbidden = errors.New("not allowed")

// May returns nil if a role lets o do something somewhere.
func (o Operator) May(a Action) error {
	if list, estate := o.domains(a); estate || len(list) > 0 {
		return nil
	}
	return fmt.Errorf("%w: %s has no role with %s", ErrForbidden, o.Name, a)
}

// domains are the trust domains in which o may do something; estate is true when it may everywhere.
func (o Operator) domains(a Action) (list []string, estate bool) {
	if o.all {
		return nil, true
	}
	for _, r := range o.roles {
		if !slices.Contains(r.May, a) {
			continue
		}
		if r.Estate {
			return nil, true
		}
		list = append(list, r.TrustDomains...)
	}
	slices.Sort(list)
	return slices.Compact(list), false
}

// In returns nil if o may do something in a trust domain.
func (o Operator) In(a Action, domain string) error {
	list, estate := o.domains(a)
	if estate || slices.Contains(list, domain) {
		return nil
	}
	return fmt.Errorf("%w: %s has no role with %s in trust domain %s", ErrForbidden, o.Name, a, domain)
}

// Sees reports whether o may do something to what is of some trust domains, as of says.
func (o Operator) Sees(a Action, of func(domain string) bool) bool {
	list, estate := o.domains(a)
	return estate || slices.ContainsFunc(list, of)
}

// Everywhere reports whether o may do something in every trust domain.
func (o Operator) Everywhere(a Action) bool { _, estate := o.domains(a); return estate }

// Confine returns the selector of what o may touch of what it asked for: of an operator with some trust domains, one that
// has the trust domain as a further term, so that it matches what identities of that domain obtained and nothing else.
func (o Operator) Confine(a Action, sel revocation.Selector) (revocation.Selector, error) {
	list, estate := o.domains(a)
	if estate {
		return sel, nil
	}
	if len(list) == 0 {
		return nil, o.May(a)
	}
	if sel.Value(revocation.KeyLease) != "" {
		return nil, fmt.Errorf("%w: lease=ID is for operators of every trust domain, since an id does not say whose it is; name its family, its subject or its token", ErrForbidden)
	}
	domain := sel.Value(revocation.KeyTrustDomain)
	if domain == "" && len(list) == 1 {
		sel, err := revocation.ParseSelector(append(slices.Clone(sel), revocation.KeyTrustDomain+"="+list[0]))
		if err != nil {
			return nil, err
		}
		return sel, foreign(sel, list[0])
	}
	if domain == "" {
		return nil, fmt.Errorf("%w: %s has roles in some trust domains; say which, with trust_domain=%s", ErrForbidden, o.Name, strings.Join(list, " or trust_domain="))
	}
	if err := o.In(a, domain); err != nil {
		return nil, err
	}
	return sel, foreign(sel, domain)
}

// foreign refuses a selector whose terms name another trust domain than the one that confines it: it would match nothing,
// and whoever reads that nothing died would believe it.
func foreign(sel revocation.Selector, domain string) error {
	for key, cut := range map[string]func(string) string{
		revocation.KeySubject: inID, revocation.KeyIssuer: first, revocation.KeyKey: first,
	} {
		if v := sel.Value(key); v != "" && cut(v) != domain {
			return fmt.Errorf("%w: %s names trust domain %s, and this is about %s", ErrForbidden, key, cut(v), domain)
		}
	}
	return nil
}

func first(s string) string { name, _, _ := strings.Cut(s, "/"); return name }
func inID(s string) string  { return first(strings.TrimPrefix(s, "spiffe://")) }
