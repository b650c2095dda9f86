package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Push implements [revocation.Shared].
func (r *Replica) Push(ctx context.Context, e revocation.Entry, news bool) error {
	ctx, cancel := context.WithTimeout(ctx, pushWithin)
	defer cancel()
	r.mu.Lock()
	p := r.own[e.Key()]
	if p == nil {
		if !news && r.ever.Load() {
			r.mu.Unlock()
			return nil // acknowledged before, or another replica's
		}
		p = &pushed{entry: e}
		r.own[e.Key()] = p
	}
	r.mu.Unlock()
	select {
	case <-r.turn:
	case <-ctx.Done():
		return fmt.Errorf("waiting for Redis: %w: %s", ctx.Err(), *r.why.Load())
	}
	err := r.catchUp(ctx)
	r.turn <- struct{}{}
	if err != nil {
		return err
	}
	if err := r.held(ctx, p); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.own, e.Key())
	r.mu.Unlock()
	return nil
}

// Replicas implements [revocation.Shared].
func (r *Replica) Replicas(ctx context.Context) ([]revocation.Replica, error) {
	v, err := r.look(ctx, "+", 1)
	if err != nil {
		return nil, err
	}
	var out []revocation.Replica
	for name, text := range v.replicas {
		h, ok := parseHeartbeat(r.mac, name, text)
		if !ok {
			continue
		}
		silent := time.Duration(v.millis-min(h.millis, v.millis)) * time.Millisecond
		out = append(out, revocation.Replica{Name: name, At: revocation.Position{Epoch: h.epoch, N: h.n}, Silent: silent, Serves: silent <= r.maxStale+beat})
	}
	slices.SortFunc(out, func(a, b revocation.Replica) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Name is this replica among others, as [Replica.Replicas] lists it.
func (r *Replica) Name() string { return r.id }

// name is this replica among others: its host, and something that no other process has.
func name() string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	return host[:min(len(host), 63)] + "/" + strings.ToLower(rand.Text()[:8])
}

// held waits until one other place than this machine and the Redis has the entry, if there is one.
func (r *Replica) held(ctx context.Context, p *pushed) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		v, err := r.look(ctx, "+", 1)
		if err != nil {
			return err
		}
		switch held, alone := r.heldNow(v, p); {
		case held:
			return nil
		case alone:
			return r.copied(ctx)
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return errors.New("no other replica has confirmed the revocation yet")
		}
	}
}

// heldNow reports whether another replica has applied an entry, by what a look saw; alone that there is no other one that
// lives, and the entry stands in Redis.
func (r *Replica) heldNow(v view, p *pushed) (held, alone bool) {
	r.mu.Lock()
	epoch, n := p.epoch, p.n
	r.mu.Unlock()
	others := 0
	for name, text := range v.replicas {
		h, ok := parseHeartbeat(r.mac, name, text)
		if !ok || name == r.id || h.millis+uint64(live.Milliseconds()) < v.millis {
			continue
		}
		others++
		if n != 0 && h.epoch == epoch && h.n >= n {
			return true, false
		}
	}
	return false, n != 0 && v.epoch == epoch && others == 0
}

// copied returns nil when a replica of Redis has confirmed all we wrote, or Redis has none.
func (r *Replica) copied(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	node, err := r.db.node(ctx)
	if err != nil {
		return fmt.Errorf("finding the node of our keys: %w", err)
	}
	info, err := node.Info(ctx, "replication").Result()
	if err != nil {
		return fmt.Errorf("asking Redis for its replicas: %w", err)
	}
	if strings.Contains(info, "connected_slaves:0") {
		return nil
	}
	conn := node.Conn()
	defer conn.Close()
	if err := conn.HSet(ctx, r.db.key("replicas"), "wait", "").Err(); err != nil { // WAIT counts from this connection's last write
		return fmt.Errorf("writing to Redis: %w", err)
	}
	n, err := conn.Wait(ctx, 1, commandTimeout/2).Result()
	if err != nil || n < 1 {
		return fmt.Errorf("no replica of Redis has confirmed the revocation (%v)", err)
	}
	return nil
}
