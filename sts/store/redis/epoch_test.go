package redis_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

// Who writes to Redis without our key cannot put a revocation before what it has to kill: by a head of an epoch that is over.
func TestHeadOfAnOlderEpochMakesNoRevocationOlder(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a := start(t, s, t.TempDir()).fresh()
	a.revoked("one")
	before := a.decided("x")
	p := s.Client.TxPipeline()
	p.Del(t.Context(), "{test}:stream")
	p.HSet(t.Context(), "{test}:head", "epoch", "1", "n", "0", "mac", "")
	p.HDel(t.Context(), "{test}:head", "floor", "floor_mac", "floor_sum")
	if _, err := p.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a stream again", func() error {
		if n := s.Client.XLen(t.Context(), "{test}:stream").Val(); n == 0 {
			return errors.New("it is empty")
		}
		return nil
	})
	a.selected(revocation.Entry{Selector: revocation.Selector{"subject=x"}, Decision: "revocation-1"})
	if err := a.sees(before, true); err != nil {
		t.Errorf("decided before the revocation: %v; positions %v and %v", err, before.Parts[0].At, a.set.Position())
	}
	if s.Client.HGet(t.Context(), "{test}:head", "epoch").Val() == "1" {
		t.Error("the epoch of strangers is served from")
	}
}

// A replica that missed a revocation, which Redis then lost, mints nothing that is newer than it while the others have not put
// it back.
func TestWhatIsDecidedWhileAnEpochSettlesIsOlderThanWhatIsPutBack(t *testing.T) {
	t.Parallel()
	const tries = 5 // a slow machine is past the moment before it can look
	for range tries {
		if decidesWhileSettling(t) {
			return
		}
	}
	t.Errorf("%d times the replica was stale before anything could be decided; the test shows nothing", tries)
}

// decidesWhileSettling plays it once, and reports whether the moment was met.
func decidesWhileSettling(t *testing.T) bool {
	t.Helper()
	s := startServer(t, false)
	dir := t.TempDir()
	b := start(t, s, dir).fresh()
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
	r, err := open(t, s, "test").Replica(set, mac, staleness)
	if err != nil {
		t.Fatal(err)
	}
	set.Share(r)
	a := &node{t: t, set: set}
	follow := func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Follow(ctx) }()
		return func() { cancel(); <-done }
	}
	b.revoked("first")
	pause := follow()
	a.fresh().knows("first")
	eventually(t, "the same place", func() error {
		if a.set.Position() != b.set.Position() {
			return errors.New("not yet")
		}
		return nil
	})
	pause() // it hangs, and is fresh
	var dumps []string
	keys := []string{"{test}:head", "{test}:stream"}
	for _, k := range keys {
		dumps = append(dumps, s.Client.Dump(t.Context(), k).Val())
	}
	b.selected(revocation.Entry{Selector: revocation.Selector{"subject=x"}, Decision: "lost"})
	b.stop()
	for i, k := range keys {
		if err := s.Client.RestoreReplace(t.Context(), k, 0, dumps[i]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	old := a.set.Epoch()
	pause = follow()
	defer func() { pause() }()
	eventually(t, "the next epoch", func() error {
		if a.set.Epoch() == old {
			return errors.New("not yet")
		}
		return nil
	})
	if a.set.Fresh() != nil {
		return false
	}
	minted := a.decided("x")
	start(t, s, dir)
	eventually(t, "the revocation, put back", func() error {
		return a.sees(revocation.Facts{Parts: []revocation.Part{{Terms: minted.Parts[0].Terms}}}, true)
	})
	if err := a.sees(minted, true); err != nil {
		t.Errorf("minted at %v by a replica that had missed the revocation: %v", minted.Parts[0].At, err)
	}
	return true
}
