package sts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
)

// once sets the marks of what may be exchanged for this target only once: the subject token by the word of its
// issuer or of the rule, the actor token by that of its issuer. It comes after the decision, so that a refusal uses
// nothing up, and before the mint, so that of two callers with one token at most one gets something.
func (x *Exchanger) once(ctx context.Context, g policy.Grant, e *entry) error {
	var tokens []federation.Token
	if g.SingleUse() {
		tokens = append(tokens, g.Workload().Token())
	}
	if actor := g.Actor().Token(); actor.SingleUse() {
		tokens = append(tokens, actor)
	}
	if len(tokens) > 0 && x.marks == nil {
		return fmt.Errorf("%w: none is configured, and a token may be used only once", replay.ErrUnavailable)
	}
	for _, t := range tokens {
		k := replay.KeyOf(t.Issuer(), t.ID(), g.Target())
		if slices.Contains(e.marks, k) {
			continue // one token in both places
		}
		if err := x.marks.Mark(ctx, k, e.decision, t.Expires().Add(federation.MaxSkew)); err != nil {
			x.release(ctx, e) // of the first token, when the second was used: nothing was made
			return err
		}
		e.marks = append(e.marks, k)
	}
	return nil
}

// release lets go of the attempt's marks. One that cannot be released stays: the token is used up, which is safe.
func (x *Exchanger) release(ctx context.Context, e *entry) {
	for _, k := range e.marks {
		_ = x.marks.Release(context.WithoutCancel(ctx), k, e.decision)
	}
	e.marks = nil
}

// madeNothing reports whether a failed mint provably left nothing behind. What was made and then found too wide, or
// withdrawn, or lost on the way, existed.
func madeNothing(err error) bool {
	if errors.Is(err, brokers.ErrUncertain) || errors.Is(err, ErrWithdrawn) {
		return false
	}
	for _, sure := range []error{
		brokers.ErrUnavailable, brokers.ErrMisconfigured, brokers.ErrTooShort, brokers.ErrScopes, brokers.ErrInput,
		lease.ErrLimit, lease.ErrUnavailable, ErrTargetUnservable, ErrDelegation, ErrForm, ErrLocked, ErrRevoked,
	} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}
