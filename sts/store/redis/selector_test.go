package redis_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// decided is what a decision on n about somebody would carry.
func (n *node) decided(subject string) revocation.Facts {
	at := n.set.Position()
	return revocation.Facts{Lease: fmt.Sprint("l-", time.Now().UnixNano()), Parts: []revocation.Part{{At: at, Terms: []revocation.Digest{n.set.Hasher().Term("subject", subject)}}}}
}

func (n *node) selected(e revocation.Entry) {
	n.t.Helper()
	e.At, e.Until = time.Now().UTC(), time.Now().Add(time.Hour).UTC()
	eventually(n.t, "revoking", func() error { _, _, err := n.set.Revoke(n.t.Context(), e); return err })
}

func (n *node) sees(f revocation.Facts, dead bool) error {
	if _, got := n.set.Dead(f); got != dead {
		return fmt.Errorf("dead %v, want %v", got, dead)
	}
	return nil
}

// A selector kills on every replica what was decided anywhere before it, and nothing that was decided after it: also when a
// replica restarts, when Redis loses all it had, and on one that joins later.
func TestSelectorKeepsItsPlaceWhateverRedisLoses(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	dir := t.TempDir()
	a, b := start(t, s, dir).fresh(), start(t, s, t.TempDir()).fresh()
	before := []revocation.Facts{a.decided("x"), b.decided("x")}
	other := a.decided("y")
	a.selected(revocation.Entry{Selector: revocation.Selector{"subject=x"}, Decision: "revocation-1"})
	var after []revocation.Facts
	eventually(t, "the other replica", func() error { return b.sees(before[0], true) })
	check := func(what string, n *node) {
		t.Helper()
		n.fresh()
		for _, f := range before {
			if err := n.sees(f, true); err != nil {
				t.Errorf("%s: decided before: %v", what, err)
			}
		}
		for _, f := range append(after, other) {
			if err := n.sees(f, false); err != nil {
				t.Errorf("%s: decided after, or another's: %v", what, err)
			}
		}
	}
	check("one replica", a)
	check("the other", b)
	eventually(t, "both replicas to have it", func() error {
		if a.set.Position() != b.set.Position() {
			return fmt.Errorf("%v and %v", a.set.Position(), b.set.Position())
		}
		return nil
	})
	after = append(after, a.decided("x"), b.decided("x"))
	check("one replica, later", a)
	check("the other, later", b)
	a.stop()
	a = start(t, s, dir)
	check("after a restart", a)
	s.Kill()
	a.stale("Redis was last heard")
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	check("after Redis came back empty", a)
	check("the other, after Redis came back empty", b)
	check("one that joins", start(t, s, t.TempDir()))
	after = append(after, a.decided("x"))
	check("in the next epoch", b)
}

// A lock stands on every replica until it is lifted on any, in whatever order the two are heard of.
func TestLockOfOneReplicaIsLiftedByAnother(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	a.selected(revocation.Entry{Selector: revocation.Selector{"subject=x"}, Lock: true, Decision: "lock-1"})
	eventually(t, "the lock on the other", func() error { return b.sees(b.decided("x"), true) })
	b.selected(revocation.Entry{Lifts: "lock-1", Decision: "unlock-1"})
	eventually(t, "its end on the first", func() error { return a.sees(a.decided("x"), false) })
	c := start(t, s, t.TempDir()).fresh()
	if err := c.sees(c.decided("x"), false); err != nil {
		t.Errorf("one that joins: %v", err)
	}
	if n := len(c.set.Locks(time.Now())); n != 0 {
		t.Errorf("%d locks stand on one that joins", n)
	}
}

// While Redis is away a revocation is in force where it was asked for, over everything that it matches: nobody can say what came
// after it.
func TestSelectorWithoutAPlaceKillsAllThatItMatches(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a := start(t, s, t.TempDir()).fresh()
	s.Kill()
	if _, _, err := a.set.Revoke(t.Context(), revocation.Entry{Selector: revocation.Selector{"subject=x"}, Decision: "r", At: time.Now(), Until: time.Now().Add(time.Hour)}); err == nil {
		t.Error("acknowledged without Redis")
	}
	f := a.decided("x")
	if err := a.sees(f, true); err != nil {
		t.Error(err)
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	a.fresh()
	eventually(t, "its place", func() error { return a.sees(a.decided("x"), false) })
	if err := a.sees(f, true); err != nil {
		t.Errorf("decided before it had a place: %v", err)
	}
}

// Every replica says how far it is, and one that is gone is named as silent.
func TestReplicasAreNamedWithWhatTheyApplied(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := start(t, s, t.TempDir()).fresh(), start(t, s, t.TempDir()).fresh()
	a.revoked("one")
	p := a.set.Position()
	eventually(t, "both to have applied it", func() error {
		list, err := a.set.Replicas(t.Context())
		if err != nil || len(list) != 2 {
			return fmt.Errorf("%v, %v", list, err)
		}
		for _, r := range list {
			if p.After(r.At) || !r.Serves {
				return fmt.Errorf("%v of %v", r, p)
			}
		}
		return nil
	})
	b.stop()
	eventually(t, "one to serve nothing", func() error {
		list, err := a.set.Replicas(t.Context())
		silent := 0
		for _, r := range list {
			if !r.Serves {
				silent++
			}
		}
		if err != nil || silent != 1 {
			return fmt.Errorf("%v, %v", list, err)
		}
		return nil
	})
}

// A lock that stands for long does not keep the stream from being trimmed, and is not lost by it.
func TestLockOutlivesTheTrimmingOfWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a := start(t, s, t.TempDir()).fresh()
	eventually(t, "locking", func() error {
		_, _, err := a.set.Revoke(t.Context(), revocation.Entry{Selector: revocation.Selector{"subject=x"}, Lock: true, Decision: "lock-1", At: time.Now(), Until: time.Now().Add(1000 * time.Hour)})
		return err
	})
	place := a.set.Locks(time.Now())[0].Position
	for i := range 20 {
		a.revoked(fmt.Sprint("l-", i))
	}
	now := time.Now().Add(2 * time.Hour) // the leases are over, the lock is not
	if err := a.set.Prune(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if n := s.Client.XLen(t.Context(), "{test}:stream").Val(); n > 2 {
		t.Errorf("%d entries are left in the stream, want the lock", n)
	}
	b := start(t, s, t.TempDir()).fresh()
	if err := b.sees(b.decided("x"), true); err != nil {
		t.Errorf("one that joins: %v", err)
	}
	if locks := b.set.Locks(now); len(locks) != 1 || locks[0].Position != place {
		t.Errorf("one that joins has the locks %+v, want one at %v", locks, place)
	}
}
