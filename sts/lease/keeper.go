package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Times of a mint. What was sent before it ended may still be at work upstream for a while after.
const (
	MintTimeout = 10 * time.Second
	settleAfter = 15 * time.Second // after it was opened, an intent that came to nothing is believed to be nothing
)

// Ended is told once of each credential that ended, or that cannot be killed and when it dies, if it does.
type Ended func(l Lease, r brokers.Receipt)

// Config is what a Keeper works with.
type Config struct {
	Store   Store
	Seal    Sealer
	Brokers func(target string) (brokers.Revoker, bool) // in force now
	// Dead reports whether a lease has been revoked, or one that it descends from, or what was selected of either, and by which
	// revocation, "" when that is not known.
	Dead   func(Lease) (by string, dead bool)
	Limits Limits
	// TargetLimit is the limit of one target, 0 for that of Limits; nil: every target has that.
	TargetLimit func(target string) int
	Ended       Ended // nil: nobody is told
	Now         func() time.Time
	Log         zerolog.Logger
}

// Keeper mints and kills what lives outside. It is safe for concurrent use.
type Keeper struct {
	Config
	wake chan struct{}

	mu        sync.Mutex
	gates     map[string]*gate
	busy      map[job]bool // goroutines of Run
	paused    map[string]rest
	nextSweep time.Time
	reaped    map[string]time.Time
	counts    *counts
	shared    shared
	ended     chan struct{} // closed when Run ends
	running   sync.WaitGroup
}

// job is what is done for one target by one goroutine at a time.
type job struct{ what, target string }

// NewKeeper returns a Keeper. It kills nothing by itself before [Keeper.Run].
func NewKeeper(c Config) (*Keeper, error) {
	if c.Store == nil || c.Brokers == nil || c.Dead == nil || c.Now == nil || c.Seal == (Sealer{}) {
		return nil, errors.New("a keeper of leases needs a store, a sealer, brokers, revocations and a clock")
	}
	if c.Ended == nil {
		c.Ended = func(Lease, brokers.Receipt) {}
	}
	return &Keeper{
		Config: c, wake: make(chan struct{}, 1),
		gates: map[string]*gate{}, busy: map[job]bool{}, paused: map[string]rest{}, reaped: map[string]time.Time{},
		counts: newCounts(), ended: make(chan struct{}), shared: shared{by: map[string]*common{}, holders: map[string]string{}},
	}, nil
}

// Mint has the broker make what o orders, as a lease from before it exists. When it returns an error, nothing that works
// is left: it is dead, or known to be dying. An exchange with a key other than "" may have the credential of an earlier one with the
// same key: whoever makes keys puts everything into them that two exchanges must have in common.
func (k *Keeper) Mint(ctx context.Context, b brokers.Revoker, o brokers.Order, key string) (brokers.Credential, error) {
	// Who hangs up does not stop it: half of it done is worse than all of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MintTimeout)
	defer cancel()
	l := k.intent(o)
	if key != "" {
		if c, ok, err := k.share(ctx, key, l); ok || err != nil {
			return c, err
		}
	}
	leave, err := k.gate(o.Grant().Target()).enter(k.Now())
	if err != nil {
		return brokers.Credential{}, err
	}
	seen := unasked
	defer func() { leave(k.Now(), seen) }()
	if err := k.Store.Open(ctx, l, k.limits(l.Target)); err != nil {
		return brokers.Credential{}, err
	}
	cred, err := k.make(ctx, b, o.WithNote(func(ctx context.Context, data secret.Value) error { return k.note(ctx, l.ID, data) }))
	seen = shown(err)
	if err != nil {
		k.abandon(ctx, l, err)
		return brokers.Credential{}, err
	}
	cred.Fingerprint = Fingerprint(cred.Value)
	if err := k.complete(ctx, l, cred); err != nil {
		k.killNow(ctx, b, l, cred.Data)
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err) // something was made
	}
	if key != "" {
		k.offer(key, l, cred)
	}
	return cred, nil
}

func (k *Keeper) limits(target string) Limits {
	out := k.Limits
	if k.TargetLimit != nil {
		out.Target = cmp.Or(k.TargetLimit(target), out.Target)
	}
	return out
}

// make has the broker mint. One that panics, or returns nothing, may have made something.
func (k *Keeper) make(ctx context.Context, b brokers.Revoker, o brokers.Order) (c brokers.Credential, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, k.panicked(o.Grant().Target(), p))
		}
	}()
	c, err = b.Mint(ctx, o)
	if err == nil && c.Value.IsZero() {
		return c, fmt.Errorf("%w: its broker returned neither a credential nor an error", brokers.ErrUncertain)
	}
	return c, err
}

// shown is what the end of a mint says of the upstream.
func shown(err error) answer {
	switch {
	case err == nil, errors.Is(err, brokers.ErrMisconfigured):
		return answered
	case errors.Is(err, brokers.ErrUnavailable), errors.Is(err, brokers.ErrUncertain), errors.Is(err, context.DeadlineExceeded):
		return silent
	default:
		return unasked
	}
}

func (k *Keeper) gate(target string) *gate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gates[target] == nil {
		k.gates[target] = new(gate)
	}
	return k.gates[target]
}

func (k *Keeper) intent(o brokers.Order) Lease {
	g, l, now := o.Grant(), o.Lease(), k.Now()
	return Lease{
		ID: l.ID, Family: l.Family, Ancestors: l.Ancestors, Target: g.Target(), Workload: g.Workload().ID(), Name: o.Name(),
		Scopes: g.Scopes(), Rule: g.Rule(), Position: l.Position, Facts: l.Facts,
		State: Minting, Opened: now, Expires: g.Expires(), Due: now.Add(settleAfter),
	}
}

// note keeps what the broker has learned so far, so that a crash from here on is no riddle.
func (k *Keeper) note(ctx context.Context, id string, data secret.Value) error {
	sealed := k.Seal.seal(id, data)
	kept, err := k.Store.Update(ctx, []string{id}, func(l *Lease) Verdict {
		l.Handle = sealed
		return Write
	})
	if err == nil && len(kept) == 0 {
		return fmt.Errorf("%w: %s was given up while its mint ran", ErrUnknown, id)
	}
	return err
}

// complete says that the credential exists. A lease that was revoked meanwhile stays dying.
func (k *Keeper) complete(ctx context.Context, l Lease, c brokers.Credential) error {
	sealed := k.Seal.seal(l.ID, c.Data)
	kept, err := k.Store.Update(ctx, []string{l.ID}, func(l *Lease) Verdict {
		if sealed != nil {
			l.Handle = sealed
		}
		l.Fingerprint, l.Stays = c.Fingerprint, c.Stays
		if l.State == Dying {
			l.Due, l.Dies = k.Now(), "" // what was seen of it so far was seen before it was made
			return Write
		}
		l.State = Live
		if !c.Expires.IsZero() && c.Expires.Before(l.Expires) { // it is never kept for longer than was granted
			l.Expires = c.Expires
		}
		l.Due = l.Expires
		return Write
	})
	switch {
	case err != nil:
		return err
	case len(kept) == 0:
		return fmt.Errorf("%w: %w: %s was given up before its mint ended", ErrUnavailable, ErrUnknown, l.ID)
	case kept[0].State == Dying:
		return ErrDying
	}
	return nil
}

// abandon closes the intent of a mint that failed.
func (k *Keeper) abandon(ctx context.Context, l Lease, why error) {
	nothing := madeNothing(why)
	_, err := k.Store.Update(context.WithoutCancel(ctx), []string{l.ID}, func(l *Lease) Verdict {
		if nothing {
			return Remove
		}
		l.die(WhyAbandoned, k.Now(), k.Now())
		return Write
	})
	if err != nil { // the intent stands, and is taken for abandoned when it is due
		k.Log.Error().Err(err).Str("lease", l.ID).Msg("closing the intent of a mint that failed")
	}
	k.nudge()
}

// madeNothing reports whether a broker's error means that nothing came to be.
func madeNothing(err error) bool {
	if errors.Is(err, brokers.ErrUncertain) {
		return false
	}
	for _, sure := range []error{brokers.ErrUnavailable, brokers.ErrMisconfigured, brokers.ErrTooShort, brokers.ErrScopes, brokers.ErrInput, brokers.ErrZeroOrder} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// killNow kills what was made and cannot be handed out, whatever the ledger can be told: at once if the upstream lets it,
// else when its lease is due. The ledger may hold it as live, when only the answer to that got lost.
func (k *Keeper) killNow(ctx context.Context, b brokers.Revoker, l Lease, data secret.Value) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	condemn := func(l *Lease) Verdict {
		if sealed := k.Seal.seal(l.ID, data); sealed != nil {
			l.Handle = sealed
		}
		l.die(WhyWithdrawn, k.Now(), k.Now())
		return Write
	}
	known, err := k.Store.Update(ctx, []string{l.ID}, condemn)
	if err == nil && len(known) == 0 { // given up too early: what it had is known again
		condemn(&l)
		err = k.Store.Open(ctx, l, Limits{})
	}
	if err != nil {
		k.Log.Error().Err(err).Str("lease", l.ID).Msg("a credential that was not handed out could not be put into the ledger as dying")
	}
	r := k.revoke(ctx, l.Target, b, brokers.Handle{Lease: l.ID, Name: l.Name, Expires: l.Expires, Data: data})
	if r.Err != nil {
		k.Log.Error().Str("lease", l.ID).Str("target", l.Target).Str("fault", faultOf(r.Err)).Msg("a credential that was not handed out could not be killed at once; it is tried again")
	}
	k.nudge()
}

// Withdraw kills a credential that was minted and is not handed out. It does not wait for it.
func (k *Keeper) Withdraw(ctx context.Context, id string) {
	k.shared.forget(id)
	_, err := k.Store.Update(context.WithoutCancel(ctx), []string{id}, func(l *Lease) Verdict {
		l.die(WhyWithdrawn, k.Now(), k.Now())
		return Write
	})
	if err != nil {
		k.Log.Error().Err(err).Str("lease", id).Msg("withdrawing a credential; it is killed when it expires")
	}
	k.nudge()
}

// die makes a lease one that is dying since now, and is to be killed at due.
func (l *Lease) die(why string, now, due time.Time) {
	if l.State != Dying {
		l.State, l.Why, l.Tries, l.Fault, l.Condemned = Dying, why, 0, "", now
	}
	l.Due = due
}

// Find returns the lease of a credential, by its holder's proof: the credential itself.
func (k *Keeper) Find(ctx context.Context, credential secret.Value) (Lease, error) {
	return k.Store.Find(ctx, Fingerprint(credential))
}

func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}
