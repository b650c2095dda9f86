package redis_test

import (
	"errors"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/revocation"
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
