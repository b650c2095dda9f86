package redis

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Hook lets a test stand between the client and the network.
func (d *DB) Hook(h redis.Hook) { d.rdb.AddHook(h) }

// Tell lets a test tell when its clock says so.
func (m *Minted) Tell(ctx context.Context) error { return m.tell(ctx) }
