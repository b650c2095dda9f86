package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

var mac = []byte("0123456789abcdef0123456789abcdef")

// staleness of replicas in tests; also how long an epoch settles.
const staleness = 4 * time.Second

const patience = time.Minute

func startServer(t *testing.T, durable bool) *redistest.Server {
	t.Helper()
	s, err := redistest.Start(durable)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, s *redistest.Server, prefix string) *redis.DB {
	t.Helper()
	db, err := redis.Open(redis.Config{URL: secret.New(s.URL), CAFile: s.CAFile, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// node is one replica: a journal, a mirror, a follower.
type node struct {
	t    *testing.T
	set  *revocation.Set
	stop func()
}

// start runs a replica on the journal in dir. It ends with the test, or with stop.
func start(t *testing.T, s *redistest.Server, dir string) *node {
	t.Helper()
	journal, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	log, err := journal.Revocations(mac)
	if err != nil {
		t.Fatal(err)
	}
	set, err := revocation.New(t.Context(), log, mac)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, s, "test")
	r, err := db.Replica(set, mac, staleness)
	if err != nil {
		t.Fatal(err)
	}
	set.Share(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Follow(ctx) }()
	n := &node{t: t, set: set, stop: sync.OnceFunc(func() {
		cancel()
		<-done
		_ = db.Close()
		if err := journal.Close(); err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(n.stop)
	return n
}

func (n *node) revoke(lease string) error {
	_, _, err := n.set.Revoke(context.Background(), revocation.Entry{Lease: lease, Decision: "d-" + lease, At: time.Now().UTC(), Until: time.Now().Add(time.Hour).UTC()})
	return err
}

// revoked revokes, again while the answer is an error: a slow machine may let an epoch begin in between.
func (n *node) revoked(lease string) {
	n.t.Helper()
	eventually(n.t, "revoking "+lease, func() error { return n.revoke(lease) })
}

func (n *node) fresh() *node {
	n.t.Helper()
	eventually(n.t, "a fresh replica", n.set.Fresh)
	return n
}

func (n *node) dead(lease string) error {
	if _, ok := n.set.Dead(revocation.Facts{Lease: lease}); !ok {
		return fmt.Errorf("%s lives", lease)
	}
	return nil
}

func (n *node) knows(leases ...string) {
	n.t.Helper()
	for _, l := range leases {
		eventually(n.t, l+" is dead", func() error { return n.dead(l) })
	}
}

// servesOnlyWith fails if the replica is ever fresh while one of the leases lives, until it is fresh.
func (n *node) servesOnlyWith(leases ...string) {
	n.t.Helper()
	eventually(n.t, "a fresh replica", func() error {
		if err := n.set.Fresh(); err != nil {
			return err
		}
		for _, l := range leases {
			if err := n.dead(l); err != nil {
				n.t.Fatalf("the replica serves although %v", err)
			}
		}
		return nil
	})
}

// stays fails unless the replica grows stale for a reason, and remains so.
func (n *node) stale(why string) {
	n.t.Helper()
	eventually(n.t, "stale because "+why, func() error {
		err := n.set.Fresh()
		if err == nil || !errors.Is(err, revocation.ErrStale) || !errors.Is(err, revocation.ErrUnavailable) || !strings.Contains(err.Error(), why) {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
}

func eventually(t *testing.T, want string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s; at last: %v", patience, want, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRevocationOfOneReplicaIsKnownToTheOther(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	a.revoked("from-a")
	b.knows("from-a")
	b.revoked("from-b")
	a.knows("from-b")
	var all sync.WaitGroup
	for i := range 64 { // two writers at once: every position is given once
		all.Go(func() { []*node{a, b}[i%2].revoked(fmt.Sprint("c-", i)) })
	}
	all.Wait()
	for i := range 64 {
		a.knows(fmt.Sprint("c-", i))
		b.knows(fmt.Sprint("c-", i))
	}
	c := start(t, s, t.TempDir()) // the stream is its own snapshot
	c.servesOnlyWith("from-a", "from-b", "c-0", "c-63")
}

// Acknowledged means that another replica has it, if there is one, when the answer goes out.
func TestAcknowledgedRevocationIsAppliedByAnotherReplica(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	for i := range 20 {
		lease := fmt.Sprint("l-", i)
		if err := a.revoke(lease); err != nil {
			continue // not acknowledged: nothing is promised
		}
		if err := b.dead(lease); err != nil {
			t.Errorf("acknowledged, and on the only other replica %v", err)
		}
	}
}

// A Redis that dies with all it had: the journals put it back before anybody serves.
func TestKilledRedisThatComesBackEmptyLosesNoRevocation(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	a.revoked("one")
	b.revoked("two")
	s.Kill()
	if err := a.revoke("during"); !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("revoking without Redis says %v, want ErrUnavailable", err)
	}
	if err := a.dead("during"); err != nil {
		t.Errorf("not in force where it was asked for: %v", err)
	}
	if err := b.dead("during"); err == nil {
		t.Error("the other replica knows it without Redis: the test shows nothing")
	}
	a.stale("Redis was last heard")
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	c := start(t, s, t.TempDir()) // has nothing; must not serve before the others have offered what they know
	c.servesOnlyWith("one", "two", "during")
	a.fresh()
	b.fresh().knows("during")
	eventually(t, "the second try", func() error { return a.revoke("during") })
}

func TestJournalOfOneReplicaFillsAnEmptyRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	dir := t.TempDir()
	a := start(t, s, dir).fresh()
	a.revoked("kept")
	a.stop()
	if err := s.Client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	again := start(t, s, dir)
	if err := again.dead("kept"); err != nil {
		t.Errorf("from the journal alone: %v", err)
	}
	again.fresh()
	start(t, s, t.TempDir()).servesOnlyWith("kept")
}

// A failover to an older copy: the head goes back, under the same and under another run id.
func TestRedisRolledBackLosesNoRevocation(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a := start(t, s, t.TempDir()).fresh()
	a.revoked("old")
	keys := []string{"{test}:head", "{test}:stream"}
	var dumps []string
	for _, k := range keys {
		d, err := s.Client.Dump(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		dumps = append(dumps, d)
	}
	a.revoked("new")
	before := a.set.Position()
	for i, k := range keys {
		if err := s.Client.RestoreReplace(t.Context(), k, 0, dumps[i]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "another epoch", func() error {
		if p := a.set.Position(); p.Epoch <= before.Epoch {
			return fmt.Errorf("position %v after %v", p, before)
		}
		return nil
	})
	start(t, s, t.TempDir()).servesOnlyWith("old", "new")
}

// Whoever writes to Redis without our key can stop replicas from serving, and cannot make them forget or believe.
func TestStreamWrittenByOthersIsNotServedFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spoil func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error
	}{
		{"an entry taken out", func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error {
			return c.XDel(ctx, "{test}:stream", m[1].ID).Err()
		}},
		{"the oldest trimmed", func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error {
			return c.XTrimMinID(ctx, "{test}:stream", m[2].ID).Err()
		}},
		{"two exchanged", func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error {
			return rewrite(ctx, c, m[0].Values, m[2].Values, m[1].Values, m)
		}},
		{"one forged", func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error {
			m[1].Values["entry"] = strings.Replace(m[1].Values["entry"].(string), "two", "owt", 1)
			return rewrite(ctx, c, m[0].Values, m[1].Values, m[2].Values, m)
		}},
		{"the floor forged", func(ctx context.Context, c *goredis.Client, m []goredis.XMessage) error {
			if err := c.HSet(ctx, "{test}:head", "floor", "2", "floor_mac", m[1].Values["mac"], "floor_sum", "x").Err(); err != nil {
				return err
			}
			return c.XTrimMinID(ctx, "{test}:stream", m[2].ID).Err()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, false)
			a := start(t, s, t.TempDir()).fresh()
			for _, l := range []string{"one", "two", "three"} {
				a.revoked(l)
			}
			m, err := s.Client.XRange(t.Context(), "{test}:stream", "-", "+").Result()
			if err != nil || len(m) != 3 {
				t.Fatalf("the stream has %d entries (%v)", len(m), err)
			}
			if err := tc.spoil(t.Context(), s.Client, m); err != nil {
				t.Fatal(err)
			}
			b := start(t, s, t.TempDir())
			b.stale("damaged")
			for _, l := range []string{"one", "two", "three"} {
				if err := a.dead(l); err != nil {
					t.Error(err)
				}
			}
			if err := s.Client.Del(t.Context(), "{test}:head", "{test}:stream").Err(); err != nil {
				t.Fatal(err)
			}
			b.servesOnlyWith("one", "two", "three")
		})
	}
}

func rewrite(ctx context.Context, c *goredis.Client, a, b, d map[string]any, m []goredis.XMessage) error {
	if err := c.Del(ctx, "{test}:stream").Err(); err != nil {
		return err
	}
	for i, v := range []map[string]any{a, b, d} {
		if err := c.XAdd(ctx, &goredis.XAddArgs{Stream: "{test}:stream", ID: m[i].ID, Values: v}).Err(); err != nil {
			return err
		}
	}
	return nil
}

// A Redis that hangs is like one that is gone, and nothing waits for it for ever.
func TestHangingRedisMakesReplicasStaleAndIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a.stale("Redis was last heard")
	b.stale("Redis was last heard")
	if err := a.revoke("x"); !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("revoking says %v, want ErrUnavailable", err)
	}
	if err := s.Continue(); err != nil {
		t.Fatal(err)
	}
	a.fresh()
	b.knows("x")
	b.fresh()
}

func TestTrimmedStreamServesOnAndToNewReplicas(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	for i := range 5 {
		a.revoked(fmt.Sprint("old-", i))
	}
	eventually(t, "a trimmed stream", func() error {
		if err := a.set.Prune(t.Context(), time.Now().Add(3*time.Hour)); err != nil {
			return err
		}
		if n := s.Client.XLen(t.Context(), "{test}:stream").Val(); n != 0 {
			return fmt.Errorf("%d entries left", n)
		}
		return nil
	})
	b.revoked("after")
	a.knows("after")
	c := start(t, s, t.TempDir())
	c.servesOnlyWith("after")
	c.revoked("again")
	a.knows("again")
}

func TestPasswordIsInNoError(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://:s3cret-word@127.0.0.1:1", "redis://:s3cret-word@redis.example:6379", "redis://:s3cret-word@127.0.0.1:1/x", "s3cret-word", "redis://:s3cret-word@127.0.0.1:1%zz",
		"redis://:s3cret-word@127.0.0.1:1?nonsense=s3cret-word", "redis://:s3cret-word@redis.example:1?master_name=m&password=s3cret-word", "redis://127.0.0.1:1?master_name=m&addr=redis.example:1&password=s3cret-word",
		"redis://127.0.0.1:1?master_name=&password=s3cret-word", "unix:///s?master_name=m&password=s3cret-word",
		"redis://:s3cret-word@127.0.0.1:1?cluster=yes", "redis://:s3cret-word@127.0.0.1:1/3?cluster=true", "redis://:s3cret-word@redis.example:1?cluster=true", "redis://:s3cret-word@127.0.0.1:1?cluster=true&addr=redis.example:2",
		"redis://:s3cret-word@127.0.0.1:1?cluster=true&nonsense=s3cret-word", "unix:///s?cluster=true&password=s3cret-word",
	} {
		db, err := redis.Open(redis.Config{URL: secret.New(url)})
		if err == nil {
			_ = db.Close()
			t.Errorf("%s is accepted", url)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
	db, err := redis.Open(redis.Config{URL: secret.New("redis://:s3cret-word@127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, _, err := db.Keys().Load(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("without a server: %v", err)
	}
	if err := redis.Check(redis.Config{URL: secret.New("rediss://:p@redis.example:6379"), CAFile: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing ca_file: %v", err)
	}
}

// beforeCommands calls do with the arguments of each command before it is sent.
type beforeCommands struct{ do func(args []any) }

func (beforeCommands) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (h beforeCommands) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, c goredis.Cmder) error { h.do(c.Args()); return next(ctx, c) }
}

func (beforeCommands) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// Attack: while one replica trims, another appends between its look and its writing of what stands on. The lock that stands is not
// trimmed away: a replica that joins knows it.
func TestTrimmingLosesNothingWhenAnotherAppends(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	journal, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	log, err := journal.Revocations(mac)
	if err != nil {
		t.Fatal(err)
	}
	set, err := revocation.New(t.Context(), log, mac)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, s, "test")
	r, err := db.Replica(set, mac, staleness)
	if err != nil {
		t.Fatal(err)
	}
	set.Share(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Follow(ctx) }()
	defer func() { cancel(); <-done }()
	a, b := (&node{t: t, set: set, stop: func() {}}).fresh(), start(t, s, t.TempDir()).fresh()
	eventually(t, "the lock", func() error {
		_, _, err := a.set.Revoke(t.Context(), revocation.Entry{Selector: revocation.Selector{"subject=x"}, Lock: true, Decision: "lock-1", At: time.Now(), Until: time.Now().Add(1000 * time.Hour)})
		return err
	})
	for i := range 20 {
		a.revoked(fmt.Sprint("l-", i))
	}
	eventually(t, "the other replica", func() error { return b.dead("l-19") })
	var armed atomic.Bool
	var once sync.Once
	length := func() int64 { return s.Client.XLen(context.Background(), "{test}:stream").Val() }
	db.Hook(beforeCommands{func(args []any) {
		if !armed.Load() || len(args) < 12 || fmt.Sprint(args[0]) != "evalsha" || !strings.Contains(fmt.Sprint(args[11]), "lock-1") {
			return
		}
		once.Do(func() { // this is the writing of what stands on
			n := length()
			go func() { _ = b.revoke("someone-else") }()
			for end := time.Now().Add(patience); length() == n && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			armed.Store(false)
		})
	}})
	armed.Store(true)
	if err := a.set.Prune(t.Context(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if armed.Load() {
		t.Fatal("nobody appended in between, and the test shows nothing")
	}
	if length() > 5 {
		t.Errorf("%d entries stand, and nothing was trimmed", length())
	}
	c := start(t, s, t.TempDir()).fresh()
	if err := c.sees(c.decided("x"), true); err != nil {
		t.Errorf("one that joins does not know the lock that stands: %v", err)
	}
}
