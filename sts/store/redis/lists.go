package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Lists is where replicas leave their status lists for each other. They are signed: what stands here need not be believed.
type Lists struct{ db *DB }

// Lists returns those of the deployment.
func (d *DB) Lists() *Lists { return &Lists{d} }

// Put implements statuslist.Shared.
func (l *Lists) Put(ctx context.Context, id, jwt string, life time.Duration) error {
	ctx, cancel := within(ctx)
	defer cancel()
	if err := l.db.rdb.Set(ctx, l.db.key("status:"+id), jwt, life).Err(); err != nil {
		return fmt.Errorf("%w: leaving a status list: %w", revocation.ErrUnavailable, err)
	}
	return nil
}

// Get implements statuslist.Shared.
func (l *Lists) Get(ctx context.Context, id string) (string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	jwt, err := l.db.rdb.Get(ctx, l.db.key("status:"+id)).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: finding a status list: %w", revocation.ErrUnavailable, err)
	}
	return jwt, nil
}
