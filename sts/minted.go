package sts

import (
	"context"
	"fmt"
	"sync"
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
	switch {
	case a.Has(t, issued):
		return minted.Genuine, nil
	case a.Covers(issued):
		return minted.Missing, nil
	}
	return minted.Forgotten, nil
}

// Remember gives x the index of what is minted, whom to tell of a token that is not in it, and of one of which it cannot be
// said. It is called once, before anything is served.
func (x *Exchanger) Remember(m Minted, alarm func(token federation.Token), unsure func()) {
	x.minted, x.alarm, x.unsure, x.later, x.alarmed = m, alarm, unsure, minted.NewLater(unsure), &alarmed{}
}

// alarmed holds the forged tokens that this process has raised the alarm of, so that each is on record once. That a token is
// dead says nothing of that: who forged it may have had it revoked.
type alarmed struct {
	mu   sync.Mutex
	told map[federation.Fingerprint]struct{}
}

const mostAlarmed = 8192 // tokens; then it begins anew

// first reports whether a token was not told of yet, and notes that it is.
func (a *alarmed) first(f federation.Fingerprint) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, told := a.told[f]
	if !told && (a.told == nil || len(a.told) >= mostAlarmed) {
		a.told = map[federation.Fingerprint]struct{}{}
	}
	a.told[f] = struct{}{}
	return !told
}

// again has a token told of once more when it is presented again.
func (a *alarmed) again(f federation.Fingerprint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.told, f)
}

// noted remembers a token that is about to leave.
func (x *Exchanger) noted(fingerprint string, issued, expires time.Time) {
	if t, ok := minted.Parse(fingerprint); ok && x.minted != nil {
		x.minted.Add(t, issued, expires)
	}
}

// askWait is how long an answer waits for others: they are asked on behind it.
const askWait = 500 * time.Millisecond

// genuine asks whether t, whose signature is ours, was minted, also by others, and also when it is dead. What cannot be known
// yet is taken for genuine, since its signature is good, and looked for until it is known; of what nobody can say any more
// the operator is told.
func (x *Exchanger) genuine(ctx context.Context, t federation.Token) error {
	if x.minted == nil {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	fate, err := x.ask(short, t)
	switch {
	case err != nil || fate == minted.Undecided:
		x.askLater(ctx, t)
	case fate == minted.Forgotten:
		x.unsure()
	case fate == minted.Missing:
		x.forged(ctx, t)
		return ErrForged
	}
	return nil
}

// genuineHere is genuine, of whatever token, without a look at the network: what only others can say is asked behind the
// exchange, and what comes of a forged token is revoked.
func (x *Exchanger) genuineHere(ctx context.Context, t federation.Token) error {
	if x.minted == nil || t.Lineage().IsZero() { // of another issuer
		return nil
	}
	was, known := x.minted.Look(minted.Of(t.Fingerprint()), t.IssuedAt())
	switch {
	case was:
		return nil
	case known:
		return x.genuine(ctx, t)
	}
	x.askLater(ctx, t)
	return nil
}

func (x *Exchanger) ask(ctx context.Context, t federation.Token) (minted.Fate, error) {
	return x.minted.Ask(ctx, minted.Of(t.Fingerprint()), t.IssuedAt())
}

func (x *Exchanger) askLater(ctx context.Context, t federation.Token) {
	ctx = context.WithoutCancel(ctx)
	x.later.Look(minted.Of(t.Fingerprint()),
		func(ctx context.Context) (minted.Fate, error) { return x.ask(ctx, t) },
		func() { x.forged(ctx, t) })
}

// forged raises the alarm, once for a token, and revokes the token by its fingerprint, with everything that was exchanged from
// it. Its own words about its lease or family are not believed: they would name a victim's.
func (x *Exchanger) forged(ctx context.Context, t federation.Token) {
	if !x.alarmed.first(t.Fingerprint()) {
		return
	}
	x.alarm(t)
	e := x.open(Request{})
	e.presented(t)
	if id, err := federation.ParseID(t.Subject()); err == nil {
		e.rec.Subject.Workload, e.rec.Subject.TrustDomain, e.rec.Subject.Issuer = id.String(), id.TrustDomain, id.Issuer
	}
	e.rec.Type, e.by, e.wait = audit.TypeRevocation, "sallyport", time.Second
	e.rec.Signal, e.rec.Reason = audit.SignalForged, ErrForged.Error()
	later := context.WithoutCancel(ctx)
	sel := revocation.Selector{revocation.KeyToken + "=" + t.Fingerprint().String()}
	if _, err := x.revokeSelected(later, sel, AdminRevocation{Reason: ErrForged.Error()}, e); err != nil {
		x.alarmed.again(t.Fingerprint())
		e.refuse(later, fmt.Errorf("revoking a forged token: %w", err))
	}
}
