package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// ownData gives a replica a data directory of its own, where several run from one configuration directory. The audit log
// follows it when it lay inside.
func ownData(server *config.Server, dir string) error {
	if dir == "" {
		return nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if rel, err := filepath.Rel(server.DataDir, server.Audit.Dir); err == nil && filepath.IsLocal(rel) {
		server.Audit.Dir = filepath.Join(abs, rel)
	}
	server.DataDir = abs
	return nil
}

// openRedis returns what replicas share; nil when the configuration names nothing. It does not connect.
func openRedis(dir string, server config.Server) (*redis.DB, error) {
	c := server.Store.Redis
	if c.URL.IsZero() {
		return nil, nil
	}
	url, err := c.URL.Resolve(dir)
	if err != nil {
		return nil, fmt.Errorf("store.redis.url: %w", err)
	}
	db, err := redis.Open(redis.Config{URL: url, CAFile: c.CAFile, AllowPlain: c.AllowPlain, Prefix: c.Prefix})
	if err != nil {
		return nil, fmt.Errorf("store.redis: %w", err)
	}
	return db, nil
}

// shareRevocations joins this replica with the others, if there is something that they share. Nothing is issued
// before follow has caught up.
func (s *service) shareRevocations() error {
	if s.redis == nil {
		return nil
	}
	var err error
	if s.replica, err = s.redis.Replica(s.revocations, s.keys.MAC(), s.server.Revocation.MaxStaleness); err != nil {
		return err
	}
	s.revocations.Share(s.replica)
	return nil
}

// marks opens the single-use marks: what replicas share, or our own. It comes after shareRevocations.
func (s *service) marks() (replay.Marks, error) {
	if s.redis != nil {
		return s.redis.Marks(time.Now), nil
	}
	var err error
	s.ownMarks, err = s.store.Marks(time.Now)
	return s.ownMarks, err
}

// pruneMarks forgets our own marks that are long past; Redis does so by itself.
func (s *service) pruneMarks(ctx context.Context) error {
	if s.ownMarks == nil {
		return nil
	}
	_, err := s.ownMarks.Prune(ctx)
	return err
}

// follow keeps the replica up to date until ctx ends or the service is closed.
func (s *service) follow(ctx context.Context) {
	if s.replica == nil {
		return
	}
	ctx, s.unfollow = context.WithCancel(ctx)
	s.followed = make(chan struct{})
	go func() {
		defer close(s.followed)
		s.replica.Follow(ctx)
	}()
}

// leave ends following and closes the connections.
func (s *service) leave() error {
	if s.redis == nil {
		return nil
	}
	if s.unfollow != nil {
		s.unfollow()
		<-s.followed
	}
	if s.untell != nil {
		s.untell()
		<-s.told
	}
	return s.redis.Close()
}

// storeDurable is how the shared store can lose what it confirmed.
func (s *service) storeDurable() error {
	if s.replica == nil {
		return nil
	}
	return s.replica.Durable()
}

// lockWarning is how long before its end a lock is warned of: what it holds off comes back then.
const lockWarning = time.Hour

// locksEnding counts locks whose time is over soon.
func (s *service) locksEnding() error {
	soon, now := 0, time.Now()
	for _, l := range s.revocations.Locks(now) {
		if l.Until.Sub(now) < lockWarning {
			soon++
		}
	}
	if soon == 0 {
		return nil
	}
	return fmt.Errorf("%s within %s, and what they hold off comes back; see sallyport locks, and set anew those that are still needed", plural(soon, "lock ends", "locks end"), lockWarning)
}

// storeCheck is why nothing is issued because of what replicas share.
func (s *service) storeCheck() sts.Check {
	return sts.Check{Name: "store", Err: s.revocations.Fresh}
}
