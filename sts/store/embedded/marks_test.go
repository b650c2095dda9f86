package embedded_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

func TestMarks(t *testing.T) {
	t.Parallel()
	db, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m, err := db.Marks(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	storetest.RunMarks(t, m, m)
}

func TestMarksOutliveARestartAndArePrunedLongAfterTheirEnd(t *testing.T) {
	t.Parallel()
	dir, now, k := t.TempDir(), time.Now(), replay.KeyOf("x")
	for _, step := range []struct {
		at     time.Duration
		pruned int
		want   error
	}{{0, 0, nil}, {30 * time.Minute, 0, replay.ErrUsed}, {3 * time.Hour, 1, nil}} {
		db, err := embedded.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := db.Marks(func() time.Time { return now.Add(step.at) })
		if err != nil {
			t.Fatal(err)
		}
		if n, err := m.Prune(t.Context()); n != step.pruned || err != nil {
			t.Errorf("after %s: pruned %d (%v), want %d", step.at, n, err, step.pruned)
		}
		if err := m.Mark(t.Context(), k, "d", now.Add(time.Minute)); !errors.Is(err, step.want) {
			t.Errorf("after %s: %v, want %v", step.at, err, step.want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
