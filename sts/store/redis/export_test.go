package redis

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Hook lets a test stand between the client and the network.
func (d *DB) Hook(h redis.Hook) { d.rdb.AddHook(h) }

// Tell lets a test tell when its clock says so.
func (m *Minted) Tell(ctx context.Context) error { return m.tell(ctx) }

// Queue lets an entry wait to be pushed, as Push does before it asks for the turn.
func (r *Replica) Queue(e revocation.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own[e.Key()] = &pushed{entry: e}
}

// CatchUp is one look, and reports whether it made the replica fresh.
func (r *Replica) CatchUp(ctx context.Context) (fresh bool, err error) {
	before := r.heard.Load()
	err = r.catchUp(ctx)
	return r.heard.Load() != before, err
}

// Acknowledged looks once whether what was queued may be called acknowledged.
func (r *Replica) Acknowledged(ctx context.Context, key string) (bool, error) {
	r.mu.Lock()
	p := r.own[key]
	r.mu.Unlock()
	v, err := r.look(ctx, "+", 1)
	if err != nil {
		return false, err
	}
	held, alone := r.heldNow(v, p)
	if alone {
		return r.copied(ctx) == nil, nil
	}
	return held, nil
}

// Key is the name of a key.
func (d *DB) Key(name string) string { return d.key(name) }
