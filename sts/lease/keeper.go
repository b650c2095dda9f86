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

// Ended is told once of each credential that ended, or that cannot be killed and when it dies.
type Ended func(l Lease, r brokers.Receipt)

// Config is what a Keeper works with.
type Config struct {
	Store   Store
	Seal    Sealer
	Brokers func(target string) (brokers.Revoker, bool) // in force now
	// Dead reports whether a lease, or one that it descends from, has been revoked.
	Dead   func(id string, ancestors []string) bool
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

	mu       sync.Mutex
	gates    map[string]*gate
	draining map[string]bool // targets that a goroutine kills for
	paused   map[string]rest
	reaped   map[string]time.Time
	running  sync.WaitGroup
}

// rest is how long a target is left alone after an attempt to kill at which it failed.
type rest struct {
	failures int
	until    time.Time
}

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
		gates: map[string]*gate{}, draining: map[string]bool{}, paused: map[string]rest{}, reaped: map[string]time.Time{},
	}, nil
}

// Mint has the broker make what o orders, as a lease from before it exists. When it returns an error, nothing that works
// is left: it is dead, or known to be dying.
func (k *Keeper) Mint(ctx context.Context, b brokers.Revoker, o brokers.Order) (brokers.Credential, error) {
	// Who hangs up does not stop it: half of it done is worse than all of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MintTimeout)
	defer cancel()
	leave, err := k.gate(o.Grant().Target()).enter(k.Now())
	if err != nil {
		return brokers.Credential{}, err
	}
	failed := true // by a panic, for instance
	defer func() { leave(k.Now(), failed) }()
	l := k.intent(o)
	if err := k.Store.Open(ctx, l, k.limits(l.Target)); err != nil {
		failed = false
		return brokers.Credential{}, err
	}
	cred, err := b.Mint(ctx, o.WithNote(func(ctx context.Context, data secret.Value) error { return k.note(ctx, l.ID, data) }))
	failed = errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, brokers.ErrUncertain)
	if err != nil {
		k.abandon(ctx, l, err)
		return brokers.Credential{}, err
	}
	cred.Fingerprint = Fingerprint(cred.Value)
	if err := k.complete(ctx, l, cred); err != nil {
		k.killNow(ctx, b, l, cred.Data)
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err) // something was made
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
		Scopes: g.Scopes(), Rule: g.Rule(), Position: l.Position,
		State: Minting, Opened: now, Expires: g.Expires(), Due: now.Add(settleAfter),
	}
}

// note keeps what the broker has learned so far, so that a crash from here on is no riddle.
func (k *Keeper) note(ctx context.Context, id string, data secret.Value) error {
	sealed := k.Seal.seal(id, data)
	return k.Store.Update(ctx, []string{id}, func(l *Lease) Verdict {
		l.Handle = sealed
		return Write
	})
}

// complete says that the credential exists. A lease that was revoked meanwhile stays dying.
func (k *Keeper) complete(ctx context.Context, l Lease, c brokers.Credential) error {
	sealed := k.Seal.seal(l.ID, c.Data)
	found, dying := false, false
	err := k.Store.Update(ctx, []string{l.ID}, func(l *Lease) Verdict {
		found, dying = true, l.State == Dying
		if sealed != nil {
			l.Handle = sealed
		}
		l.Fingerprint = c.Fingerprint
		if !dying {
			l.State, l.Expires, l.Due = Live, c.Expires, c.Expires
		} else {
			l.Due = k.Now()
		}
		return Write
	})
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%w: %w: %s was given up before its mint ended", ErrUnavailable, ErrUnknown, l.ID)
	case dying:
		return ErrDying
	}
	return nil
}

// abandon closes the intent of a mint that failed.
func (k *Keeper) abandon(ctx context.Context, l Lease, why error) {
	nothing := madeNothing(why)
	err := k.Store.Update(context.WithoutCancel(ctx), []string{l.ID}, func(l *Lease) Verdict {
		if nothing {
			return Remove
		}
		l.die(WhyAbandoned, k.Now())
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
	for _, sure := range []error{brokers.ErrUnavailable, brokers.ErrMisconfigured, brokers.ErrTooShort, brokers.ErrInput, brokers.ErrZeroOrder} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// killNow kills what was made and cannot be handed out, at once if the upstream lets it; else when the intent is due.
func (k *Keeper) killNow(ctx context.Context, b brokers.Revoker, l Lease, data secret.Value) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	if _, err := b.Revoke(ctx, brokers.Handle{Lease: l.ID, Name: l.Name, Expires: l.Expires, Data: data}); err != nil {
		k.Log.Error().Str("lease", l.ID).Str("target", l.Target).Msg("a credential that was not handed out could not be killed at once; it is tried again")
	}
	k.nudge()
}

// Withdraw kills a credential that was minted and is not handed out. It does not wait for it.
func (k *Keeper) Withdraw(ctx context.Context, id string) {
	err := k.Store.Update(context.WithoutCancel(ctx), []string{id}, func(l *Lease) Verdict {
		l.die(WhyWithdrawn, k.Now())
		return Write
	})
	if err != nil {
		k.Log.Error().Err(err).Str("lease", id).Msg("withdrawing a credential; it is killed when it expires")
	}
	k.nudge()
}

// die makes a lease one that is to be killed from at on.
func (l *Lease) die(why string, at time.Time) {
	if l.State != Dying {
		l.State, l.Why, l.Tries, l.Fault = Dying, why, 0, ""
	}
	l.Due = at
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
