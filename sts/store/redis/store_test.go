package redis_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

func TestMarksOfTwoReplicas(t *testing.T) {
	t.Parallel()
	s := startServer(t, true)
	storetest.RunMarks(t, open(t, s, "").Marks(time.Now), open(t, s, "").Marks(time.Now))
}

func TestKeysOfTwoReplicas(t *testing.T) {
	t.Parallel()
	s := startServer(t, true)
	storetest.RunKeys(t, open(t, s, "").Keys(), open(t, s, "").Keys())
}

// A mark that cannot be set is not taken for one that was.
func TestMarksNeverFailOpen(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	marks := open(t, s, "").Marks(time.Now)
	s.Kill()
	if err := marks.Mark(t.Context(), replay.KeyOf("x"), "d", time.Now().Add(time.Hour)); !errors.Is(err, replay.ErrUnavailable) {
		t.Errorf("without Redis: %v, want ErrUnavailable", err)
	}
	if err := marks.Release(t.Context(), replay.KeyOf("x"), "d"); !errors.Is(err, replay.ErrUnavailable) {
		t.Errorf("releasing without Redis: %v, want ErrUnavailable", err)
	}
}

// Deployments that share a Redis share nothing else.
func TestPrefixesKeepDeploymentsApart(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	k := replay.KeyOf("x")
	for _, prefix := range []string{"one", "other"} {
		if err := open(t, s, prefix).Marks(time.Now).Mark(t.Context(), k, "d-"+prefix, time.Now().Add(time.Hour)); err != nil {
			t.Errorf("%s: %v", prefix, err)
		}
	}
}
