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
	// Missing reports whether nobody minted a token, although everybody who could have has told of that time.
	Missing(ctx context.Context, t minted.Token, issued time.Time) (bool, error)
}

// Alone is [Minted] of a deployment with one replica.
type Alone struct{ *minted.Index }

// Look implements [Minted].
func (a Alone) Look(t minted.Token, issued time.Time) (was, known bool) {
	return a.Has(t, issued), true
}

// Missing implements [Minted].
func (a Alone) Missing(_ context.Context, t minted.Token, issued time.Time) (bool, error) {
	return a.Covers(issued) && !a.Has(t, issued), nil
}

// Remember gives x the index of what is minted, and whom to tell of a token that is not in it. It is called once, before
// anything is served.
func (x *Exchanger) Remember(m Minted, alarm func(token federation.Token)) {
	x.minted, x.alarm = m, alarm
	x.checking = make(chan struct{}, maxChecking)
}

// maxChecking is how many tokens are looked for among what other replicas minted at once, behind exchanges.
const maxChecking = 64

// noted remembers a token that is about to leave.
func (x *Exchanger) noted(fingerprint string, issued, expires time.Time) {
	if t, ok := minted.Parse(fingerprint); ok && x.minted != nil {
		x.minted.Add(t, issued, expires)
	}
}

// genuine asks whether one of our own tokens was minted, also by others. What cannot be known is taken for genuine: its
// signature is good.
func (x *Exchanger) genuine(ctx context.Context, w federation.Workload) error {
	if x.minted == nil || w.Token().Lineage().IsZero() {
		return nil
	}
	t := w.Token()
	if missing, err := x.minted.Missing(ctx, minted.Of(t.Fingerprint()), t.IssuedAt()); err != nil || !missing {
		return nil
	}
	x.forged(ctx, w)
	return ErrForged
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
	select {
	case x.checking <- struct{}{}:
	default: // a verifier that introspects will ask
		return nil
	}
	go func() {
		defer func() { <-x.checking }()
		later, cancel := context.WithTimeout(context.WithoutCancel(ctx), mostWait*time.Second)
		defer cancel()
		_ = x.genuine(later, w)
	}()
	return nil
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
