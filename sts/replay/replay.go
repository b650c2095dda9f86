// Package replay remembers what may happen only once: the exchange of a token whose issuer or whose rule says
// single_use. A mark is set after the decision and before the mint, and let go only when the broker provably made
// nothing (design section 3). Marks are kept by a store behind the small interface [Marks]; when it cannot be
// asked, nothing that needs a mark is minted.
package replay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// Errors of marks.
var (
	// ErrUsed means that the token has been exchanged for this target before: a theft signal.
	ErrUsed = errors.New("the token was used before, and may be used once")
	// ErrUnavailable wraps a failure of the store: whether the token was used is not known.
	ErrUnavailable = errors.New("the store of single-use marks is unavailable")
)

// Key names one thing that may happen once.
type Key [sha256.Size]byte

// KeyOf returns the key of its parts in their order: (issuer, token id, target). No two lists of parts share a key.
func KeyOf(parts ...string) Key {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return Key(h.Sum(nil))
}

// Marks keeps marks. Implementations are safe for concurrent use, also by several replicas.
type Marks interface {
	// Mark sets the mark of k for the decision, durably, until an instant after which the token is expired for
	// every replica. Of all calls with one key, exactly one returns nil; the others return ErrUsed. Any other
	// error wraps ErrUnavailable.
	Mark(ctx context.Context, k Key, decision string, until time.Time) error
	// Release lets go of the mark that the decision set, and of no other. A mark that is not there is no error.
	Release(ctx context.Context, k Key, decision string) error
}
