package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestPercentileIsNearestRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 50, 0},
		{hundred[:1], 50, 1},
		{hundred[:1], 99, 1},
		{hundred[:2], 50, 1},
		{hundred[:3], 50, 2},
		{hundred[:4], 99, 4},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
		{hundred, 0.0001, 1},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile of %d values at %v: got %d, want %d", len(c.sorted), c.p, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{1, 1, 1, 100}, 1},
	} {
		before := slices.Clone(c.xs)
		if got := median(c.xs); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(c.xs, before) {
			t.Errorf("median changed its argument from %v to %v", before, c.xs)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v, want NaN", got)
	}
}

// TestPairedRatiosCancelDrift is the reason for pairing: the machine slows down fourfold from round to round, and the
// ratio does not notice, while the ratio of the medians would.
func TestPairedRatiosCancelDrift(t *testing.T) {
	base := []float64{1, 2, 4}
	slower := []float64{1.5, 3, 6}
	got := newSpread(pairedRatios(slower, base))
	if want := (spread{1.5, 1.5, 1.5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// A burst that hits one window of one round moves one ratio, not the median.
	got = newSpread(pairedRatios([]float64{1.5, 30, 6}, base))
	if want := (spread{Median: 1.5, Min: 1.5, Max: 15}); got != want {
		t.Errorf("with a burst: got %+v, want %+v", got, want)
	}
}

func TestPairedRatiosSkipRoundsWithoutBothHalves(t *testing.T) {
	got := pairedRatios([]float64{2, 0, 8, 10}, []float64{1, 1, 0})
	if !slices.Equal(got, []float64{2}) {
		t.Errorf("got %v, want only the first round's 2", got)
	}
	if got := newSpread(nil); got != (spread{}) {
		t.Errorf("spread of nothing: got %+v, want zero", got)
	}
}
