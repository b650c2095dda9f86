package redis_test

import (
	"context"
	"errors"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// A Redis that drops keys when its memory is full would make used tokens good again. Nothing is served from it.
func TestRedisThatEvictsIsNotServedFrom(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	for name, value := range map[string]string{"maxmemory": "64mb", "maxmemory-policy": "volatile-lru"} {
		if err := s.Client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, s, t.TempDir())
	a.stale("maxmemory-policy")
	if err := s.Client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	a.fresh()
}

// documentedRules are those of the user that docs/replicas.md gives to us, for keys with a tag, without its password.
func documentedRules(t *testing.T, tag string) (out []string) {
	t.Helper()
	page, err := os.ReadFile("../../../docs/replicas.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := regexp.MustCompile(`(?m)^ACL SETUSER sallyport on >PASSWORD (.*)$`).FindSubmatch(page)
	if rules == nil {
		t.Fatal("docs/replicas.md shows no user")
	}
	for _, rule := range strings.Fields(string(rules[1])) {
		out = append(out, strings.ReplaceAll(rule, "{sallyport}", tag))
	}
	return out
}

// The user that docs/replicas.md gives to us is enough for everything that we do, and for nothing else.
func TestDocumentedUserOfRedisIsEnoughAndNoMore(t *testing.T) {
	t.Parallel()
	s, err := redistest.StartNode()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	args := []any{"ACL", "SETUSER", "sallyport"}
	for _, rule := range append(documentedRules(t, "{test}"), "on", ">"+s.Password) {
		args = append(args, rule)
	}
	if err := s.Client.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	s.URL = "redis://sallyport:" + s.Password + "@" + s.Address + "/0"
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	a.revoked("one")
	b.knows("one")
	if _, err := a.set.Replicas(t.Context()); err != nil {
		t.Error(err)
	}
	db := open(t, s, "test")
	key := replay.KeyOf("i", "t", "x")
	if err := db.Marks(time.Now).Mark(t.Context(), key, "d", time.Now().Add(time.Hour)); err != nil {
		t.Errorf("marks: %v", err)
	}
	if _, err := db.Keys().Swap(t.Context(), "", []byte("sealed")); err != nil {
		t.Errorf("keys: %v", err)
	}
	ledger := leases(t, db)
	one := lease.Lease{ID: "l", Family: "l", Target: "x", Workload: "w", State: lease.Live, Fingerprint: "f", Ancestors: []string{"p"}, Opened: time.Now(), Expires: time.Now(), Due: time.Now()}
	_, leadErr := ledger.Lead(t.Context())
	openErr := ledger.Open(t.Context(), one, lease.Limits{})
	_, updateErr := ledger.Update(t.Context(), []string{"l"}, func(l *lease.Lease) lease.Verdict { l.Why = "x"; return lease.Write })
	_, findErr := ledger.Find(t.Context(), "f")
	_, belowErr := ledger.Below(t.Context(), "p")
	_, dueErr := ledger.Due(t.Context(), "x", time.Now(), 10)
	_, countErr := ledger.Counts(t.Context())
	eachErr := ledger.Each(t.Context(), func(lease.Lease) error { return nil })
	if err := errors.Join(leadErr, openErr, updateErr, findErr, belowErr, dueErr, countErr, eachErr, ledger.Rebuild(t.Context()), ledger.Close(t.Context())); err != nil {
		t.Errorf("leases: %v", err)
	}
	c := goredis.NewClient(&goredis.Options{Addr: s.Address, Username: "sallyport", Password: s.Password, Protocol: 2, DisableIdentity: true})
	defer c.Close()
	for what, err := range map[string]error{
		"another deployment's keys": c.Get(t.Context(), "{other}:keys").Err(), "FLUSHALL": c.FlushAll(t.Context()).Err(), "CONFIG": c.ConfigGet(t.Context(), "*").Err(),
		"KEYS": c.Keys(t.Context(), "*").Err(), "another user": c.Do(t.Context(), "ACL", "LIST").Err(), "REPLICAOF": c.ReplicaOf(t.Context(), "no", "one").Err(),
	} {
		if err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("%s is allowed: %v", what, err)
		}
	}
}

// A Redis that takes writes without its replicas is a primary for somebody when another was made one: it is warned of.
func TestRedisThatGoesOnWithoutItsReplicasIsWarnedOf(t *testing.T) {
	t.Parallel()
	var nodes [2]*redistest.Server
	for i := range nodes {
		var err error
		if nodes[i], err = redistest.StartNode("appendonly yes"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nodes[i].Close() })
	}
	durable := func() string {
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
		r, err := open(t, nodes[0], "test").Replica(set, mac, staleness)
		if err != nil {
			t.Fatal(err)
		}
		set.Share(r)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); r.Follow(ctx) }()
		defer func() { cancel(); <-done }()
		(&node{t: t, set: set, stop: func() {}}).fresh()
		if err := r.Durable(); err != nil {
			return err.Error()
		}
		return ""
	}
	if why := durable(); why != "" {
		t.Errorf("alone: %s", why)
	}
	host, port, _ := net.SplitHostPort(nodes[0].Address)
	if err := errors.Join(nodes[1].Client.ConfigSet(t.Context(), "masterauth", nodes[0].Password).Err(), nodes[1].Client.ReplicaOf(t.Context(), host, port).Err()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replication", func() error {
		if info := nodes[0].Client.Info(t.Context(), "replication").Val(); !strings.Contains(info, "state=online") {
			return errors.New(info)
		}
		return nil
	})
	if why := durable(); !strings.Contains(why, "min-replicas-to-write 1") {
		t.Errorf("with a replica that nobody waits for: %q", why)
	}
	if err := nodes[0].Client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if why := durable(); why != "" {
		t.Errorf("with one that it does not go on without: %s", why)
	}
}
