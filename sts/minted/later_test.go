package minted_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/sts/minted"
)

// Attack: a forged token is presented the moment after it was made, when no replica has told of that time yet. It is asked for
// until it can be said what it is.
func TestLaterAsksUntilItCanBeSaid(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		after   time.Duration // until then
		then    minted.Fate
		err     error // until then
		missing int64
		unsure  int64
	}{
		"at once":                    {0, minted.Missing, nil, 1, 0},
		"genuine":                    {0, minted.Genuine, nil, 0, 0},
		"when the index has passed":  {25 * time.Second, minted.Missing, nil, 1, 0},
		"when it was told":           {25 * time.Second, minted.Genuine, nil, 0, 0},
		"when the store is back":     {5 * time.Minute, minted.Missing, errors.New("no store"), 1, 0},
		"forgotten by all":           {25 * time.Second, minted.Forgotten, nil, 0, 1},
		"never":                      {time.Hour, minted.Missing, nil, 0, 1},
		"not while the store is out": {time.Hour, minted.Missing, errors.New("no store"), 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			var missing, unsure, asked atomic.Int64
			start := time.Now()
			minted.NewLater(func() { unsure.Add(1) }).Look(minted.Token{1}, func(context.Context) (minted.Fate, error) {
				asked.Add(1)
				if time.Since(start) < tc.after {
					return minted.Undecided, tc.err
				}
				return tc.then, nil
			}, func() { missing.Add(1) })
			time.Sleep(20 * time.Minute)
			synctest.Wait()
			if missing.Load() != tc.missing || unsure.Load() != tc.unsure || asked.Load() > 100 {
				t.Errorf("%s: missing %d times, unsure %d times, asked %d times; want %d, %d and a few", name, missing.Load(), unsure.Load(), asked.Load(), tc.missing, tc.unsure)
			}
		})
	}
}

// A flood of tokens takes a bounded place, and what finds none is counted. A token takes one, however often it is presented.
func TestLaterIsBoundedAndCountsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var unsure, missing atomic.Int64
		l := minted.NewLater(func() { unsure.Add(1) })
		start := time.Now()
		ask := func(context.Context) (minted.Fate, error) {
			if time.Since(start) < 30*time.Second {
				return minted.Undecided, nil
			}
			return minted.Missing, nil
		}
		for i := range 10_000 {
			for range 3 {
				l.Look(minted.Token{byte(i), byte(i >> 8)}, ask, func() { missing.Add(1) })
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if missing.Load() != 8192 || unsure.Load() != 3*(10_000-8192) {
			t.Errorf("%d tokens were found missing and %d calls found no place", missing.Load(), unsure.Load())
		}
		l.Look(minted.Token{1, 2, 3}, ask, func() { missing.Add(1) })
		synctest.Wait()
		if missing.Load() != 8193 {
			t.Error("a place that is free again is not used")
		}
	})
}
