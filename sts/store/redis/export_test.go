package redis

import "github.com/redis/go-redis/v9"

// Hook lets a test stand between the client and the network.
func (d *DB) Hook(h redis.Hook) { d.rdb.AddHook(h) }
