package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// Keys keeps the sealed document of the deployment's keys. It is safe for concurrent use. What it holds is sealed:
// who reads the Redis learns no key, and who writes to it can destroy but not choose one.
type Keys struct{ db *DB }

var _ keys.Store = (*Keys)(nil)

// Keys returns the keys of the deployment.
func (d *DB) Keys() *Keys { return &Keys{db: d} }

// Load implements [keys.Store].
func (k *Keys) Load(ctx context.Context) ([]byte, string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	v, err := k.db.rdb.HMGet(ctx, k.db.key("keys"), "sealed", "revision").Result()
	if err != nil {
		return nil, "", fmt.Errorf("reading keys from Redis: %w", err)
	}
	sealed, ok1 := v[0].(string)
	revision, ok2 := v[1].(string)
	if !ok1 && !ok2 {
		return nil, "", nil
	}
	if !ok1 || !ok2 || revision == "" {
		return nil, "", errors.New("the keys in Redis are damaged: a field is missing")
	}
	return []byte(sealed), revision, nil
}

var swap = redis.NewScript(`
local have = redis.call('HGET', KEYS[1], 'revision') or ''
if have == ARGV[2] then return 1 end
if have ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'sealed', ARGV[3])
return 1`)

// Swap implements [keys.Store]. A revision is random, so that a Swap that was sent twice is found out as done.
func (k *Keys) Swap(ctx context.Context, revision string, sealed []byte) (string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	next := rand.Text()
	done, err := swap.Run(ctx, k.db.rdb, []string{k.db.key("keys")}, revision, next, sealed).Int()
	if err != nil {
		return "", fmt.Errorf("writing keys to Redis: %w", err)
	}
	if done == 0 {
		return "", keys.ErrConflict
	}
	return next, nil
}
