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

// Entry is one revocation.
type Entry struct {
	Lease    string    `json:"lease"`    // dead, with everything that descends from it
	Decision string    `json:"decision"` // the id of the request that revoked it
	At       time.Time `json:"at"`       // for people; order is by position
	Until    time.Time `json:"until"`    // no matching token can live past this instant
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
}

// Set is the in-memory mirror of a Log. It is safe for concurrent use.
type Set struct {
	log    Log
	shared Shared // nil for one replica
	mirror mirror
}

// New loads the log into memory. Nothing may be served before it returns.
func New(ctx context.Context, log Log) (*Set, error) {
	s := &Set{log: log, mirror: mirror{dead: newTable()}}
	position, err := log.Load(ctx, func(p Position, e Entry) error {
		s.mirror.add(e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading revocations: %w", err)
	}
	s.mirror.reach(position)
	return s, nil
}

// Share makes every later Revoke known to the other replicas. It is called once, before anything is served.
func (s *Set) Share(with Shared) {
	s.mirror.position = Position{} // from here on, positions are those that all replicas share
	s.shared = with
}

// Revoke makes the entry durable, then effective, then known to the other replicas. When it returns nil, every later
// Dead sees it. It is idempotent: revoking what is dead already writes nothing, and news is false. An entry that is
// durable and effective here but not yet shared is ErrUnavailable: elsewhere the token may live (RFC 7009 section
// 2.2.1); it is shared as soon as that is possible, and a later call says so.
func (s *Set) Revoke(ctx context.Context, e Entry) (p Position, news bool, err error) {
	if _, already := s.mirror.has(e.Lease); !already {
		news = true
		if p, err = s.log.Append(ctx, e); err != nil {
			return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		s.mirror.add(e)
		if s.shared == nil {
			s.mirror.reach(p)
			return p, true, nil
		}
	}
	if s.shared != nil {
		if err := s.shared.Push(ctx, e, news); err != nil {
			return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return s.Position(), news, nil
}

// Learn takes what other replicas revoked: durable here when it returns, then effective. What is known is skipped.
func (s *Set) Learn(ctx context.Context, entries []Entry) error {
	news := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if _, ok := s.mirror.has(e.Lease); !ok {
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
		s.mirror.add(e)
	}
	return nil
}

// Reached says that everything up to a shared position is known.
func (s *Set) Reached(p Position) { s.mirror.reach(p) }

// Each calls do with every entry that this replica keeps.
func (s *Set) Each(ctx context.Context, do func(Entry) error) error {
	_, err := s.log.Load(ctx, func(_ Position, e Entry) error { return do(e) })
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

// Dead reports whether the lease or any of its ancestors was revoked; the entry has the lease that was, and until
// when it is kept. An empty lease (a platform's token) is never dead here.
func (s *Set) Dead(lease string, ancestors []string) (Entry, bool) {
	if lease != "" {
		if until, ok := s.mirror.has(lease); ok {
			return Entry{Lease: lease, Until: until}, true
		}
	}
	for _, a := range ancestors {
		if until, ok := s.mirror.has(a); ok {
			return Entry{Lease: a, Until: until}, true
		}
	}
	return Entry{}, false
}

// Position returns where the log stands, for the token that a decision is about to yield.
func (s *Set) Position() Position {
	s.mirror.mu.RLock()
	defer s.mirror.mu.RUnlock()
	return s.mirror.position
}

// Len returns how many revocations are live.
func (s *Set) Len() int { return int(s.mirror.dead.live.Load()) }

// Prune forgets entries that no living token can match.
func (s *Set) Prune(ctx context.Context, now time.Time) error {
	if _, err := s.log.Prune(ctx, now); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.mirror.dead.forget(now)
	if s.shared != nil {
		if err := s.shared.Prune(ctx, now); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil
}
