package redis_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
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
