package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrEvicts means that Redis may drop keys when its memory is full: marks that say a token was used, leases, keys. Nothing
// is served from it.
var ErrEvicts = errors.New("the Redis evicts keys when its memory is full (maxmemory-policy); set it to noeviction, or used tokens are good again and leases are forgotten")

// settingsEvery is how often the settings of Redis are looked at: somebody can change them while it runs.
const settingsEvery = time.Minute

// settled looks at the settings of the Redis process that has this run id, now and then.
func (r *Replica) settled(ctx context.Context, run string) error {
	if r.checked.run == run && time.Since(r.checked.at) < settingsEvery {
		return nil
	}
	ctx, cancel := within(ctx)
	defer cancel()
	node, err := r.db.node(ctx)
	if err != nil {
		return fmt.Errorf("finding the node of our keys: %w", err)
	}
	p := node.Pipeline()
	memory, persistence, replication := p.Info(ctx, "memory"), p.Info(ctx, "persistence"), p.Info(ctx, "replication")
	if _, err := p.Exec(ctx); err != nil {
		return fmt.Errorf("asking Redis for its settings: %w", err)
	}
	if limit := infoField(memory.Val(), "maxmemory"); limit != "0" && infoField(memory.Val(), "maxmemory_policy") != "noeviction" {
		return ErrEvicts
	}
	var why []string
	if infoField(persistence.Val(), "aof_enabled") == "0" {
		why = append(why, "Redis keeps no append-only file: after a crash it comes back without leases and single-use marks; set appendonly yes, and appendfsync always if the writes can be borne")
	}
	// Redis tells how many of its replicas are good enough only where it is told to stop without them.
	if n := infoField(replication.Val(), "connected_slaves"); n != "" && n != "0" && infoField(replication.Val(), "min_slaves_good_slaves") == "" {
		why = append(why, "Redis has replicas and takes writes without them: when it is cut off and another is made the primary, whoever is left with it hears of no revocation, and does not know; set min-replicas-to-write 1 and min-replicas-max-lag 2")
	}
	r.lossy.Store(nil)
	if len(why) > 0 {
		all := strings.Join(why, "; ")
		r.lossy.Store(&all)
	}
	r.checked.run, r.checked.at = run, time.Now()
	return nil
}

// Durable returns how this Redis can lose what it confirmed, nil when it cannot or was not asked yet. Revocations are not
// lost: they are in the journals of replicas.
func (r *Replica) Durable() error {
	if why := r.lossy.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// infoField returns one field of an answer to INFO.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
