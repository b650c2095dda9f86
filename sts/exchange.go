package sts

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// State is everything that configuration says, compiled. It is immutable; a reload swaps it whole.
type State struct {
	Trust     *federation.Trust
	Policy    *policy.Policy
	Brokers   map[string]brokers.Broker // by target name
	Hash      string                    // of the configuration, for the audit record
	Operators *operator.Authority       // who may respond over the network, and what takes two; nil: nobody, and nothing
	Reuse     map[string]bool           // targets whose credentials may answer more than one exchange, by name
}

// Exchanger runs exchanges. It is safe for concurrent use.
type Exchanger struct {
	state       atomic.Pointer[State]
	audit       Audit
	revocations *revocation.Set
	marks       replay.Marks  // nil: whatever needs a mark is refused
	leases      *lease.Keeper // nil: nothing that lives outside is minted
	now         func() time.Time
	newID       func() string
	limits      *Limits // nil: none
	proposals   []byte  // key of what takes two operators
	minted      Minted  // nil: nobody remembers
	alarm       func(federation.Token)
	unsure      func()
	alarmed     *alarmed
	later       *minted.Later
	feeds       *feeds
	status      StatusLists // nil: none
}

// NewExchanger returns an Exchanger that works with s until [Exchanger.Swap]. newID returns decision ids:
// 128 random bits, printable without quoting. marks may be nil: what may be used only once is then not exchanged at all.
func NewExchanger(s *State, log Audit, r *revocation.Set, marks replay.Marks, now func() time.Time, newID func() string) (*Exchanger, error) {
	if s == nil || s.Trust == nil || s.Policy == nil || log == nil || r == nil || now == nil || newID == nil {
		return nil, fmt.Errorf("exchanger needs a state, an audit log, revocations, a clock and ids")
	}
	x := &Exchanger{audit: log, revocations: r, marks: marks, now: now, newID: newID, feeds: newFeeds(newID())}
	x.state.Store(s)
	return x, nil
}

// Swap puts a new state in force for every exchange that begins after it returns.
func (x *Exchanger) Swap(s *State) { x.state.Store(s) }

// ConfigHash names the configuration in force.
func (x *Exchanger) ConfigHash() string { return x.state.Load().Hash }

// Keep gives x the ledger of what lives outside. It is called once, before anything is served.
func (x *Exchanger) Keep(k *lease.Keeper) { x.leases = k }

// Revoker returns the broker in force of a target whose credentials live outside.
func (x *Exchanger) Revoker(target string) (brokers.Revoker, bool) {
	b, ok := x.state.Load().Brokers[target].(brokers.Revoker)
	return b, ok
}

// Exchange answers one token exchange request (RFC 8693 section 2). The error is always a [*Refusal]: what
// the wire may say. What the operator may know is in the audit record of the same decision id.
func (x *Exchanger) Exchange(ctx context.Context, in Request) (Response, error) {
	entry := x.open(in) // one entry per attempt, closed on every path below
	defer entry.panicked(ctx)
	req, err := parse(in)
	if err != nil {
		return Response{}, entry.refuse(ctx, err)
	}
	who, err := x.identify(ctx, req, entry)
	if err != nil {
		return Response{}, entry.refuse(ctx, err)
	}
	grant, err := x.authorize(who, req, entry)
	if err != nil {
		return Response{}, entry.refuse(ctx, err)
	}
	if err := x.once(ctx, grant, entry); err != nil {
		return Response{}, entry.refuse(ctx, err)
	}
	cred, err := x.mint(ctx, req, who, grant, entry)
	if err != nil {
		if madeNothing(err) {
			x.release(ctx, entry)
		}
		return Response{}, entry.refuse(ctx, err)
	}
	if err := entry.issued(ctx, cred); err != nil {
		x.withdraw(ctx, grant.Target(), entry)
		return Response{}, entry.refuse(ctx, err) // no record, no token
	}
	x.noted(cred.Fingerprint, entry.now, cred.Expires)
	return respond(cred, entry), nil
}

// identify verifies the subject token and the actor token, each as its own token of its own issuer, and asks whether
// either is dead. The position is read before either is asked about: whatever is revoked from here on is newer than the
// decision, and the check after the mint sees it. Verifying the second may take as long as an issuer's keys do.
func (x *Exchanger) identify(ctx context.Context, req request, e *entry) (parties, error) {
	e.requested(req)
	e.position = x.revocations.Position()
	if err := x.revocations.Fresh(); err != nil {
		return parties{}, err
	}
	var who parties
	var err error
	if who.subject, err = x.verify(ctx, req.subjectToken, req.subjectTokenType, e, e.identified); err != nil {
		return parties{}, err
	}
	presented := !req.actorToken.IsZero()
	if presented {
		who.actor, err = x.verify(ctx, req.actorToken, req.actorTokenType, e, e.acting)
	} else {
		who.actor = who.subject.Actor() // by our own word: the outermost actor, and no other, matters to policy
	}
	if err != nil {
		return parties{}, fmt.Errorf("actor token: %w", err)
	}
	return who, who.checkDelegation(presented)
}

// verify is what one token goes through. known is told of a workload before anything else can refuse it.
func (x *Exchanger) verify(ctx context.Context, raw secret.Value, declared oidc.TokenType, e *entry, known func(federation.Workload)) (federation.Workload, error) {
	who, err := e.state.Trust.Identify(ctx, raw, e.now)
	if err != nil {
		return federation.Workload{}, err
	}
	known(who)
	if err := e.limited(who); err != nil {
		return federation.Workload{}, err
	}
	lineage := who.Token().Lineage()
	switch {
	case declared == oidc.AccessTokenType && lineage.IsZero(), declared == oidc.IDTokenType && !lineage.IsZero():
		return federation.Workload{}, fmt.Errorf("%w: the token is not of the declared type", federation.ErrTokenType)
	}
	if err := x.genuineHere(ctx, who.Token()); err != nil {
		return federation.Workload{}, err
	}
	if dead, ok := x.revocations.Dead(x.asks(who)); ok {
		return federation.Workload{}, fmt.Errorf("%w: %s", lockedOr(dead, ErrRevoked), by(dead))
	}
	return who, nil
}

// by names what kills.
func by(e revocation.Entry) string {
	switch {
	case e.Lease != "":
		return "lease " + e.Lease
	case e.Lock:
		return "lock " + e.Decision
	default:
		return "revocation " + e.Decision
	}
}

// authorize decides, and nothing else.
func (x *Exchanger) authorize(who parties, req request, e *entry) (policy.Grant, error) {
	decision := e.state.Policy.Decide(policy.Facts{Workload: who.subject, Actor: who.actor, Want: req.want, Time: e.now, Address: req.remote})
	e.decided(decision)
	grant, ok := decision.Grant()
	switch {
	case ok:
		return grant, nil
	case decision.Refusal() == policy.RefusedScope:
		return policy.Grant{}, ErrScopeDenied
	default:
		return policy.Grant{}, ErrTargetDenied
	}
}

// mint orders from exactly one broker, checks what came back against the grant, and asks the revocation
// mirror once more: what died meanwhile is withdrawn, not returned.
func (x *Exchanger) mint(ctx context.Context, req request, who parties, g policy.Grant, e *entry) (brokers.Credential, error) {
	broker, ok := e.state.Brokers[g.Target()]
	if !ok {
		return brokers.Credential{}, fmt.Errorf("%w: %s", ErrTargetUnservable, g.Target())
	}
	l, err := e.lease(who, g)
	if err != nil {
		return brokers.Credential{}, err
	}
	facts, err := x.obtains(who, g, l, e.state.Hash, e.position, e.now)
	if err != nil {
		return brokers.Credential{}, err
	}
	l.Facts = encoded(facts)
	if dead, ok := x.revocations.Dead(facts); ok { // nothing that is decided now, but for a lock, or a parent that died since
		return brokers.Credential{}, fmt.Errorf("%w: %s", lockedOr(dead, ErrRevoked), by(dead))
	}
	order, err := brokers.NewOrder(g, l, e.now)
	if err == nil {
		order, err = req.choose(broker, order)
	}
	if err != nil {
		return brokers.Credential{}, err
	}
	key := ""
	if e.state.Reuse[g.Target()] {
		key = reuseKey(who, order, req.taken(broker), e.state.Hash)
	}
	cred, err := x.order(ctx, broker, order, key)
	if errors.Is(err, brokers.ErrTooShort) {
		err = fmt.Errorf("%w; rule %s grants %s, which ends with the token it is given for: the workload needs a token that lives longer, or the rule outlives_subject", err, g.Rule(), g.Expires().Sub(e.now).Truncate(time.Second))
	}
	if err != nil {
		return brokers.Credential{}, err
	}
	if err := x.holds(g, cred, facts, e.now); err != nil {
		x.withdraw(ctx, g.Target(), e)
		return brokers.Credential{}, err
	}
	return cred, nil
}

// order has the credential made: as a lease in the ledger if it lives outside.
func (x *Exchanger) order(ctx context.Context, b brokers.Broker, o brokers.Order, key string) (brokers.Credential, error) {
	outside, ok := b.(brokers.Revoker)
	switch {
	case !ok:
		return b.Mint(ctx, o)
	case x.leases == nil:
		return brokers.Credential{}, fmt.Errorf("%w: %s makes what lives outside, and there is no ledger for it", ErrTargetUnservable, o.Grant().Target())
	}
	c, err := x.leases.Mint(ctx, outside, o, key)
	if errors.Is(err, lease.ErrDying) {
		err = fmt.Errorf("%w: %w", ErrWithdrawn, err)
	}
	return c, err
}

// lockedOr is ErrLocked for a lock, and else for anything else that kills.
func lockedOr(e revocation.Entry, other error) error {
	if e.Lock {
		return ErrLocked
	}
	return other
}

// holds checks what was minted, against the grant and against what was revoked meanwhile.
func (x *Exchanger) holds(g policy.Grant, c brokers.Credential, f revocation.Facts, now time.Time) error {
	if err := amplifies(g, c, now); err != nil {
		return err
	}
	if err := x.revocations.Fresh(); err != nil { // it may have gone stale meanwhile
		return err
	}
	if dead, ok := x.revocations.Dead(f); ok { // both parents and theirs, and all that was selected since
		return fmt.Errorf("%w: %s", ErrWithdrawn, by(dead))
	}
	return nil
}

// withdraw kills what was minted outside and is not handed out.
func (x *Exchanger) withdraw(ctx context.Context, target string, e *entry) {
	if _, ok := e.state.Brokers[target].(brokers.Revoker); ok && x.leases != nil {
		x.leases.Withdraw(ctx, e.decision)
	}
}

// amplifies is the one check that a credential is no more than its grant: not longer, not wider, for nothing else, and
// still alive when it is handed over.
func amplifies(g policy.Grant, c brokers.Credential, now time.Time) error {
	switch {
	case c.Value.IsZero():
		return fmt.Errorf("%w: an empty credential", ErrAmplified)
	case c.Expires.IsZero():
		return fmt.Errorf("%w: it says nothing of its end", ErrAmplified)
	case c.Expires.After(g.Expires()):
		return fmt.Errorf("%w: it expires %s after the grant", ErrAmplified, c.Expires.Sub(g.Expires()))
	case !g.Actor().Token().Expires().IsZero() && c.Expires.After(g.Actor().Token().Expires()):
		return fmt.Errorf("%w: it outlives the actor token", ErrAmplified)
	case c.Expires.Sub(now) < time.Second:
		return fmt.Errorf("%w: less than a second is left of it", federation.ErrExpired)
	case !addressed(g, c):
		return fmt.Errorf("%w: it is good for %q", ErrAmplified, c.Audience)
	}
	allowed := make(map[string]bool, len(g.Scopes()))
	for _, s := range g.Scopes() {
		allowed[s] = true
	}
	for _, s := range c.Scopes {
		if !allowed[s] {
			return fmt.Errorf("%w: scope %s", ErrAmplified, s)
		}
	}
	return nil
}

// addressed reports whether c is good for the target of g. What a token is for stands in its aud, and policy knows that
// by configuration, not from the broker: one that stands where another belongs is noticed. Any other credential
// is for its target by name; one that is no token may leave that out.
func addressed(g policy.Grant, c brokers.Credential) bool {
	switch {
	case c.Fingerprint != "":
		return c.Audience == g.Audience()
	case c.Audience == "":
		return c.TokenType == brokers.NotApplicable
	default:
		return c.Audience == g.Target()
	}
}

// Response is a successful exchange.
type Response struct {
	Body     oidc.TokenExchangeResponse // RFC 8693 section 2.2.1
	Decision string
}

func respond(c brokers.Credential, e *entry) Response {
	return Response{
		Decision: e.decision,
		Body: oidc.TokenExchangeResponse{
			AccessToken:     c.Value.Reveal(),
			IssuedTokenType: oidc.TokenType(c.Type),
			TokenType:       c.TokenType,
			ExpiresIn:       uint64(c.Expires.Sub(e.now) / time.Second),
			Scopes:          c.Scopes,
		},
	}
}
