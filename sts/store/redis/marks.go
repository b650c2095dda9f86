package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/replay"
)

// Marks keeps single-use marks that all replicas share. It is safe for concurrent use.
type Marks struct {
	db  *DB
	now func() time.Time
}

var _ replay.Marks = (*Marks)(nil)

// Marks returns the marks of the deployment.
func (d *DB) Marks(now func() time.Time) *Marks { return &Marks{db: d, now: now} }

// minMark is how long a mark lives at least: clocks of replicas differ.
const minMark = time.Minute

// Mark implements [replay.Marks] by SET NX, which has one winner. The value is the decision: when the answer to a
// SET got lost and it was sent again, the mark that is found is our own, and counts as set.
func (m *Marks) Mark(ctx context.Context, k replay.Key, decision string, until time.Time) error {
	ctx, cancel := within(ctx)
	defer cancel()
	key := m.key(k)
	old, err := m.db.rdb.SetArgs(ctx, key, decision, redis.SetArgs{Mode: "NX", Get: true, TTL: max(until.Sub(m.now()), minMark)}).Result()
	switch {
	case errors.Is(err, redis.Nil), err == nil && old == decision:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", replay.ErrUnavailable, err)
	default:
		return replay.ErrUsed
	}
}

var release = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)

// Release implements [replay.Marks].
func (m *Marks) Release(ctx context.Context, k replay.Key, decision string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := release.Run(ctx, m.db.rdb, []string{m.key(k)}, decision).Err(); err != nil {
		return fmt.Errorf("%w: %w", replay.ErrUnavailable, err)
	}
	return nil
}

func (m *Marks) key(k replay.Key) string { return m.db.key("mark:" + hex.EncodeToString(k[:])) }
