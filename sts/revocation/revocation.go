// Package revocation knows what is dead. A revocation is an entry in a grow-only log at a position; a
// token is dead when its own lease, or any lease it descends from, has been revoked. Nothing is ever
// un-revoked: an entry is dropped only after the last token it could match has expired.
//
// [Set] is the one place that answers: exchange, introspection and the check after the mint all ask it.
// It answers from memory; the log is behind the small interface [Log], with which the embedded store
// keeps it across restarts. Order is by position, not by clock.
package revocation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
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

// Set is the in-memory mirror of a Log. It is safe for concurrent use.
type Set struct {
	log Log

	mu       sync.RWMutex
	dead     map[string]Entry
	position Position
}

// New loads the log into memory. Nothing may be served before it returns.
func New(ctx context.Context, log Log) (*Set, error) {
	s := &Set{log: log, dead: map[string]Entry{}}
	position, err := log.Load(ctx, func(p Position, e Entry) error {
		s.apply(p, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading revocations: %w", err)
	}
	s.position = position
	return s, nil
}

// Revoke makes the entry durable, then effective. When it returns nil, every later Dead sees it. It is
// idempotent: revoking what is dead already writes nothing, and news is false.
func (s *Set) Revoke(ctx context.Context, e Entry) (p Position, news bool, err error) {
	s.mu.RLock()
	_, already := s.dead[e.Lease]
	position := s.position
	s.mu.RUnlock()
	if already {
		return position, false, nil
	}
	if p, err = s.log.Append(ctx, e); err != nil {
		return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.apply(p, e)
	return p, true, nil
}

func (s *Set) apply(p Position, e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead[e.Lease] = e
	if p.Epoch > s.position.Epoch || p.Epoch == s.position.Epoch && p.N > s.position.N {
		s.position = p
	}
}

// Dead reports whether the lease or any of its ancestors was revoked, and by which entry. An empty lease
// (a platform's token) is never dead here.
func (s *Set) Dead(lease string, ancestors []string) (Entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.dead) == 0 {
		return Entry{}, false
	}
	if e, ok := s.dead[lease]; ok {
		return e, true
	}
	for _, a := range ancestors {
		if e, ok := s.dead[a]; ok {
			return e, true
		}
	}
	return Entry{}, false
}

// Position returns where the log stands, for the token that a decision is about to yield.
func (s *Set) Position() Position {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.position
}

// Len returns how many revocations are live.
func (s *Set) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.dead)
}

// Prune forgets entries that no living token can match.
func (s *Set) Prune(ctx context.Context, now time.Time) error {
	if _, err := s.log.Prune(ctx, now); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for lease, e := range s.dead {
		if now.After(e.Until) {
			delete(s.dead, lease)
		}
	}
	return nil
}
