package keys

import (
	"context"
	"errors"
)

// Store keeps the one sealed document of a deployment's keys: a file of one replica, or a place that all replicas
// share. Implementations are safe for concurrent use.
type Store interface {
	// Load returns the document and its revision, an opaque word; nil and "" when there is none.
	Load(ctx context.Context) (sealed []byte, revision string, err error)
	// Swap replaces the document of the given revision ("" for none), durably, and returns the new revision.
	// When the revision is not the newest it changes nothing and returns ErrConflict: somebody else was first.
	Swap(ctx context.Context, revision string, sealed []byte) (string, error)
}

// ErrConflict means that the keys were changed meanwhile; load them again.
var ErrConflict = errors.New("the keys were changed by somebody else meanwhile")

// bounded is a store whose calls end in time, each by itself: making RSA keys between two of them takes as long as
// the processor needs, and must not use up what the store is given.
type bounded struct{ Store }

// Load implements [Store].
func (b bounded) Load(ctx context.Context) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return b.Store.Load(ctx)
}

// Swap implements [Store].
func (b bounded) Swap(ctx context.Context, revision string, sealed []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return b.Store.Swap(ctx, revision, sealed)
}
