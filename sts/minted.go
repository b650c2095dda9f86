package sts

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Minted remembers the tokens that were minted, by all replicas.
type Minted interface {
	// Add remembers a token that is about to leave. It does not wait.
	Add(t minted.Token, issued, expires time.Time)
	// Look says, without asking anybody, whether a token was minted; known is false when only others can say.
	Look(t minted.Token, issued time.Time) (was, known bool)
	// Ask asks everybody.
	Ask(ctx context.Context, t minted.Token, issued time.Time) (minted.Fate, error)
}

// Alone is [Minted] of a deployment with one replica.
type Alone struct{ *minted.Index }

// Look implements [Minted].
func (a Alone) Look(t minted.Token, issued time.Time) (was, known bool) {
	return a.Has(t, issued), true
}

// Ask implements [Minted].
func (a Alone) Ask(_ context.Context, t minted.Token, issued time.Time) (minted.Fate, error) {
	if a.Covers(issued) && !a.Has(t, issued) {
		return minted.Missing, nil
	}
	return minted.Genuine, nil
}

// Remember gives x the index of what is minted, whom to tell of a token that is not in it, and of one of which it cannot be
// said. It is called once, before anything is served.
func (x *Exchanger) Remember(m Minted, alarm func(token federation.Token), unsure func()) {
	x.minted, x.alarm, x.later = m, alarm, minted.NewLater(unsure)
}

// noted remembers a token that is about to leave.
func (x *Exchanger) noted(fingerprint string, issued, expires time.Time) {
	if t, ok := minted.Parse(fingerprint); ok && x.minted != nil {
		x.minted.Add(t, issued, expires)
	}
}

// genuine asks whether one of our own tokens was minted, also by others. What cannot be known yet is taken for genuine, since
// its signature is good, and looked for until it is known.
func (x *Exchanger) genuine(ctx context.Context, w federation.Workload) error {
	if x.minted == nil || w.Token().Lineage().IsZero() {
		return nil
	}
	fate, err := x.ask(ctx, w)
	switch {
	case err != nil || fate == minted.Undecided:
		x.askLater(ctx, w)
	case fate == minted.Missing:
		x.forged(ctx, w)
		return ErrForged
	}
	return nil
}

// genuineHere is genuine without a look at the network: what only others can say is asked behind the exchange, and what comes
// of a forged token is revoked.
func (x *Exchanger) genuineHere(ctx context.Context, w federation.Workload) error {
	if x.minted == nil || w.Token().Lineage().IsZero() {
		return nil
	}
	t := w.Token()
	was, known := x.minted.Look(minted.Of(t.Fingerprint()), t.IssuedAt())
	switch {
	case was:
		return nil
	case known:
		return x.genuine(ctx, w)
	}
	x.askLater(ctx, w)
	return nil
}

func (x *Exchanger) ask(ctx context.Context, w federation.Workload) (minted.Fate, error) {
	t := w.Token()
	return x.minted.Ask(ctx, minted.Of(t.Fingerprint()), t.IssuedAt())
}

func (x *Exchanger) askLater(ctx context.Context, w federation.Workload) {
	ctx = context.WithoutCancel(ctx)
	x.later.Look(minted.Of(w.Token().Fingerprint()),
		func(ctx context.Context) (minted.Fate, error) { return x.ask(ctx, w) },
		func() { x.forged(ctx, w) })
}

// forged raises the alarm and revokes the token by its fingerprint, with everything that was exchanged from it. Its own words
// about its lease or family are not believed: they would name a victim's.
func (x *Exchanger) forged(ctx context.Context, w federation.Workload) {
	sel := revocation.Selector{revocation.KeyToken + "=" + w.Token().Fingerprint().String()}
	if _, dead := x.revocations.Dead(x.asks(w)); dead {
		return // told already
	}
	x.alarm(w.Token())
	e := x.open(Request{})
	e.identified(w)
	e.rec.Type, e.by, e.wait = audit.TypeRevocation, "sallyport", time.Second
	e.rec.Signal, e.rec.Reason = audit.SignalForged, ErrForged.Error()
	later := context.WithoutCancel(ctx)
	if _, err := x.revokeSelected(later, sel, AdminRevocation{Reason: ErrForged.Error()}, e); err != nil {
		e.refuse(later, fmt.Errorf("revoking a forged token: %w", err))
	}
}
