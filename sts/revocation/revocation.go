// Package revocation knows what is dead. A revocation is an entry in a grow-only log at a position; a
// token is dead when its own lease, or any lease it descends from, has been revoked. Nothing is ever
// un-revoked: an entry is dropped only after the last token it could match has expired.
//
// [Set] is the one place that answers: exchange, introspection and the check after the mint all ask it.
// It answers from memory; the log is behind the small interface [Log], with which the embedded store
// keeps it across restarts. Order is by position, not by clock.
//
// Of several replicas each has a Set and a log of its own, its journal; [Shared] carries entries between them
// (sts/store/redis has the protocol). A replica that has not heard from the others for too long says so in Fresh.
package revocation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Position is where the log stood: (epoch, n). A new epoch begins when a store lost data.
type Position struct {
	Epoch uint64
	N     uint64
}

// String renders "epoch.n", as tokens and audit records carry it.
func (p Position) String() string {
	return strconv.FormatUint(p.Epoch, 10) + "." + strconv.FormatUint(p.N, 10)
}

// After reports whether p comes after q.
func (p Position) After(q Position) bool {
	return p.Epoch > q.Epoch || p.Epoch == q.Epoch && p.N > q.N
}

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	epoch, n, ok := strings.Cut(s, ".")
	e, err1 := strconv.ParseUint(epoch, 10, 64)
	m, err2 := strconv.ParseUint(n, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Position{}, fmt.Errorf("position %q is not EPOCH.N", s)
	}
	return Position{e, m}, nil
}

// Entry is one revocation, a lock, or the end of a lock. It names a lease, a selector, or the lock that it lifts.
type Entry struct {
	Lease    string    `json:"lease,omitempty"`    // dead, with everything that descends from it
	Selector Selector  `json:"selector,omitempty"` // what it matches and was decided before it is dead, with everything that descends from it
	Before   time.Time `json:"before,omitzero"`    // what Selector matches is dead only if it was decided before this moment, which is past; zero: before the entry itself
	Lock     bool      `json:"lock,omitempty"`     // what Selector matches is dead until it is lifted or Until, whenever it was decided
	Lifts    string    `json:"lifts,omitempty"`    // the id of a lock
	Decision string    `json:"decision"`           // its own id: that of the request
	Position Position  `json:"position,omitzero"`  // of one with a selector, once the log has placed it
	At       time.Time `json:"at"`                 // order is by position; for platforms' tokens, which have none, it is this
	Until    time.Time `json:"until"`              // nothing that it matches can live past this instant; of a lock, its end
	Why      string    `json:"why,omitempty"`      // for people
	By       string    `json:"by,omitempty"`
}

// Key names an entry: no two have the same, and one that is known is not news.
func (e Entry) Key() string {
	if e.Lease != "" {
		return e.Lease
	}
	return e.Decision
}

// Placed reports whether an entry says where in the log it is. One that names a lease need not.
func (e Entry) Placed() bool { return e.Lease != "" || e.Lifts != "" || e.Position != Position{} }

// check refuses what no entry is.
func (e Entry) check() error {
	n := 0
	for _, is := range []bool{e.Lease != "", len(e.Selector) > 0, e.Lifts != ""} {
		if is {
			n++
		}
	}
	if n != 1 || e.Decision == "" && e.Lease == "" {
		return errors.New("a revocation names one lease, one selector, or the lock that it lifts")
	}
	if !e.Before.IsZero() && (len(e.Selector) == 0 || e.Lock) {
		return errors.New("only a revocation by selector has a moment, and a lock has none")
	}
	return nil
}

// Log keeps entries durably, in order. Append returns only when the entry is synced. Load calls each
// with every live entry, in order, and returns the position of the newest entry ever appended.
// Implementations are safe for concurrent use.
type Log interface {
	Append(ctx context.Context, e Entry) (Position, error)
	Load(ctx context.Context, each func(Position, Entry) error) (Position, error)
	Prune(ctx context.Context, now time.Time) (int, error)
}

// ErrUnavailable wraps a failure of the log: the entry is not durable, the caller must treat the token
// as live and try again (RFC 7009 section 2.2.1).
var ErrUnavailable = errors.New("revocation log is unavailable")

// ErrUnshared means that an entry is durable and effective here, and not known to outlive this replica: elsewhere it is in
// force as soon as it can be shared. It is an ErrUnavailable.
var ErrUnshared = fmt.Errorf("%w: in force on this replica alone", ErrUnavailable)

// ErrStale means that this replica has not heard from the store that the others share for too long: it cannot say
// what is alive. It is an ErrUnavailable.
var ErrStale = fmt.Errorf("%w: this replica may have missed some", ErrUnavailable)

// Shared is what several replicas have in common. A deployment of one replica has none.
type Shared interface {
	// Push returns nil when the entry, durable here already, is acknowledged: it outlives this replica. news is
	// false for one that was pushed before, or came from another replica.
	Push(ctx context.Context, e Entry, news bool) error
	// Fresh returns nil while this replica knows what the others knew a bounded time ago, else ErrStale with why.
	Fresh() error
	// Prune forgets there what no living token can match.
	Prune(ctx context.Context, now time.Time) error
	// Replicas returns the replicas that were heard of lately, this one among them.
	Replicas(ctx context.Context) ([]Replica, error)
}

// Replica is what one replica said of itself last.
type Replica struct {
	Name   string
	At     Position      // everything up to here is in force there
	Silent time.Duration // since it said so
	Serves bool          // it may: one that has been silent for longer than it may be stale answers nothing
}

// Set is the in-memory mirror of a Log. It is safe for concurrent use.
type Set struct {
	log    Log
	shared Shared   // nil for one replica
	mirror mirror   // entries that name a lease
	index  *index   // all others
	feed   feed     // all of them, for those who verify tokens by themselves
	own    []string // of them, by id, those that have the place of this log and no other
	loaded uint64   // the newest epoch of a place that the log had
}

// New loads the log into memory. mac is the key that authenticates it, 32 bytes; digests are derived from it. Nothing may
// be served before it returns.
func New(ctx context.Context, log Log, mac []byte) (*Set, error) {
	if len(mac) < 32 {
		return nil, fmt.Errorf("revocations: the key has %d bytes, needs 32", len(mac))
	}
	s := &Set{log: log, mirror: mirror{dead: newTable()}, index: newIndex(NewHasher(mac))}
	position, err := log.Load(ctx, func(p Position, e Entry) error {
		if err := e.check(); err != nil {
			return fmt.Errorf("entry %s: %w; a newer version may have written it", p, err)
		}
		if !e.Placed() {
			e.Position = p
			s.own = append(s.own, e.Decision)
		} else {
			s.loaded = max(s.loaded, e.Position.Epoch)
		}
		s.keep(e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading revocations: %w", err)
	}
	s.mirror.reach(position, true)
	return s, nil
}

// Share makes every later Revoke known to the other replicas. It is called once, before anything is served.
func (s *Set) Share(with Shared) {
	s.mirror.position, s.mirror.applied = Position{}, Position{} // from here on, positions are those that all replicas share
	s.index.displace(s.own)
	s.shared = with
}

// Revoke makes the entry durable, then effective, then known to the other replicas. When it returns nil, every later
// Dead sees it. It is idempotent: revoking what is dead already writes nothing, and news is false. An entry that is
// durable and effective here but not yet shared is ErrUnshared: elsewhere the token may live (RFC 7009 section
// 2.2.1); it is shared as soon as that is possible, and a later call says so.
func (s *Set) Revoke(ctx context.Context, e Entry) (p Position, news bool, err error) {
	if err := e.check(); err != nil {
		return Position{}, false, err
	}
	if !s.knows(e) {
		news = true
		if s.shared == nil {
			s.mirror.begins()
			defer func() { s.mirror.ends(p) }()
		}
		if p, err = s.log.Append(ctx, e); err != nil {
			return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if s.shared == nil {
			e.Position = p // what is decided from here on reads a later one
			s.add(e)
			return p, true, nil
		}
		s.add(e)
	}
	if s.shared != nil {
		if err := s.shared.Push(ctx, e, news); err != nil {
			return Position{}, false, fmt.Errorf("%w: %w", ErrUnshared, err)
		}
	}
	return s.mirror.upTo(), news, nil
}

// Learn takes what other replicas revoked: durable here when it returns, then effective. What is known is skipped. Entries
// among which one is of no known kind are refused.
func (s *Set) Learn(ctx context.Context, entries []Entry) error {
	news := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if err := e.check(); err != nil { // what it kills nobody here can say
			return fmt.Errorf("%w: %w; a newer version may have written it", ErrUnavailable, err)
		}
		if !s.knows(e) {
			news = append(news, e)
		}
	}
	if len(news) == 0 {
		return nil
	}
	if many, ok := s.log.(interface {
		AppendAll(context.Context, []Entry) error
	}); ok {
		if err := many.AppendAll(ctx, news); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	} else {
		for _, e := range news {
			if _, err := s.log.Append(ctx, e); err != nil {
				return fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
	}
	for _, e := range news {
		s.add(e)
	}
	return nil
}

// keep puts an entry into force, and add tells of it as well.
func (s *Set) keep(e Entry) {
	if e.Lease != "" {
		s.mirror.add(e)
	} else {
		s.index.add(e)
	}
}

func (s *Set) add(e Entry) {
	s.keep(e)
	s.feed.tell(newsOf(s.index.hasher, e))
}

func (s *Set) knows(e Entry) bool {
	if e.Lease != "" {
		_, ok := s.mirror.has(e.Lease)
		return ok
	}
	return s.index.knows(e)
}

// Knows reports whether an entry of this id, with a selector, is in force or was.
func (s *Set) Knows(id string) bool { return s.index.knows(Entry{Decision: id}) }

// Hasher makes the digests that Facts are made of.
func (s *Set) Hasher() Hasher { return s.index.hasher }

// Replicas returns the replicas that share this log; nil for a deployment of one.
func (s *Set) Replicas(ctx context.Context) ([]Replica, error) {
	if s.shared == nil {
		return nil, nil
	}
	return s.shared.Replicas(ctx)
}

// Locks returns the locks that stand at now, in no order.
func (s *Set) Locks(now time.Time) []Entry { return s.index.locks(now) }

// IsShared reports whether there may be other replicas.
func (s *Set) IsShared() bool { return s.shared != nil }

// Clock sets the clock by which locks end; [time.Now] is it without. It is called before anything is asked.
func (s *Set) Clock(now func() time.Time) { s.index.now = now }

// Reached says that everything that is shared up to a position is known. Before its epoch has settled, what was lost with
// the one before may not be: it keeps its place there, and what is decided meanwhile must not come after it.
func (s *Set) Reached(p Position, settled bool) { s.mirror.reach(p, settled) }

// Each calls do with every entry that this replica keeps, once.
func (s *Set) Each(ctx context.Context, do func(Entry) error) error {
	waiting := map[string]Entry{}
	_, err := s.log.Load(ctx, func(_ Position, e Entry) error {
		if e.Lease == "" {
			if have, ok := waiting[e.Key()]; !ok || !have.Placed() { // it is written again when it has its place
				waiting[e.Key()] = e
			}
			return nil
		}
		return do(e)
	})
	for _, e := range waiting {
		if err != nil {
			return err
		}
		err = do(e)
	}
	return err
}

// Fresh returns nil when Dead may be relied upon, and ErrStale, with why, when this replica may have missed
// revocations of others. Who is about to say that something lives asks it first.
func (s *Set) Fresh() error {
	if s.shared == nil {
		return nil
	}
	return s.shared.Fresh()
}

// Dead reports whether a revocation or a lock kills what f is known of: the one place where that is decided. The entry
// says which; of one that names a lease it has no more than the lease, and until when it is kept.
func (s *Set) Dead(f Facts) (Entry, bool) {
	if f.Lease != "" {
		if until, ok := s.mirror.has(f.Lease); ok {
			return Entry{Lease: f.Lease, Until: until}, true
		}
	}
	for _, a := range f.Ancestors {
		if until, ok := s.mirror.has(a); ok {
			return Entry{Lease: a, Until: until}, true
		}
	}
	return s.index.dead(f.Parts)
}

// Position returns where the log stands, for the token that a decision is about to yield.
func (s *Set) Position() Position {
	s.mirror.mu.RLock()
	defer s.mirror.mu.RUnlock()
	return s.mirror.position
}

// Applied returns up to where everything is in force here.
func (s *Set) Applied() Position {
	if s.shared == nil {
		return s.Position()
	}
	return s.mirror.upTo()
}

// Epoch returns the newest epoch that this replica has seen. What is placed in an older one would not kill what was decided
// since.
func (s *Set) Epoch() uint64 { return max(s.mirror.upTo().Epoch, s.loaded) }

// Len returns how many revocations are live.
func (s *Set) Len() int { return int(s.mirror.dead.live.Load()) + s.index.len() }

// Prune forgets entries that no living token can match.
func (s *Set) Prune(ctx context.Context, now time.Time) error {
	if _, err := s.log.Prune(ctx, now); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.mirror.dead.forget(now)
	s.index.forget(now)
	if s.shared != nil {
		if err := s.shared.Prune(ctx, now); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil
}
