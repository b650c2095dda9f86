package sts

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// ErrDelegation means that a subject and an actor token do not go together: a token's own word, not policy.
var ErrDelegation = errors.New("the actor may not act for the subject")

// maxAncestors is how many leases a token's life may hang on: each is 26 bytes of a token that has a size.
const maxAncestors = 16

// parties is who asks: a verified subject and, where somebody acts for it, an actor. The actor that was presented is
// a verified workload with a token; one that the subject token of ours carries has none.
type parties struct{ subject, actor federation.Workload }

// checkDelegation holds the two tokens to what they say of each other (RFC 8693 sections 4.1 and 4.4).
func (p parties) checkDelegation(presented bool) error {
	subject, actor := p.subject.Token(), p.actor.Token()
	who, limited := subject.MayAct()
	switch {
	case limited && !presented:
		return fmt.Errorf("%w: may_act names who may, and no actor token proves to be that party", ErrDelegation)
	case limited && who != federation.Party{Issuer: actor.Issuer(), Subject: actor.Subject()}:
		return fmt.Errorf("%w: may_act names another party", ErrDelegation)
	case limited && actor.IssuerIsShared() && (p.actor.TrustDomain() != p.subject.TrustDomain() || p.actor.Issuer() != p.subject.Issuer()):
		// The claim cannot say which of the clusters with this iss it means; the subject's own may speak for itself.
		return fmt.Errorf("%w: may_act names an iss that several issuers here have", ErrDelegation)
	case presented && actor.Delegated():
		return fmt.Errorf("%w: the actor token has an act of its own, and whose chain that is nobody can say", ErrDelegation)
	}
	_, err := p.chain()
	return err
}

// chain is who acts for the subject in what is about to be minted, current actor first. Without an actor token the
// chain of the subject token is carried unchanged; an actor that is the current one already proves itself again.
func (p parties) chain() ([]string, error) {
	before := p.subject.Token().Actors()
	id := p.actor.ID()
	switch {
	case id == "" || len(before) > 0 && before[0] == id:
		return before, nil
	case slices.Contains(before, id):
		return nil, fmt.Errorf("%w: the chain of actors would be a circle", ErrDelegation)
	case len(before) >= federation.MaxActors:
		return nil, fmt.Errorf("%w: the chain of actors has %d already", ErrDelegation, len(before))
	}
	return append([]string{id}, before...), nil
}

// descend fills in what a new lease hangs on: both parents, where they are tokens of ours.
func (p parties) descend(l *brokers.Lease) error {
	var err error
	if l.Actors, err = p.chain(); err != nil {
		return err
	}
	l.Depth = 1
	for _, parent := range []federation.Lineage{p.subject.Token().Lineage(), p.actor.Token().Lineage()} {
		if parent.IsZero() {
			continue
		}
		l.Depth = max(l.Depth, parent.Depth+1)
		for _, lease := range append(slices.Clone(parent.Ancestors), parent.Lease) {
			if !slices.Contains(l.Ancestors, lease) {
				l.Ancestors = append(l.Ancestors, lease)
			}
		}
	}
	if l.Depth > policy.MaxDepth || len(l.Ancestors) > maxAncestors {
		return fmt.Errorf("%w: it would descend from %d tokens, %d deep", ErrDelegation, len(l.Ancestors), l.Depth)
	}
	return nil
}
