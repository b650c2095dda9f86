package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the nearest-rank percentile of sorted: the smallest value with at least p percent
// (0 < p <= 100) of the values at or below it. It returns 0 for no values.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median returns the middle value, or the mean of the middle two, and NaN for no values. It does not
// change xs.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// spread is a median with the extremes it came from.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// newSpread summarises xs; it is all zero for no values, because NaN has no JSON form.
func newSpread(xs []float64) spread {
	if len(xs) == 0 {
		return spread{}
	}
	return spread{Median: median(xs), Min: slices.Min(xs), Max: slices.Max(xs)}
}

// pairedRatios divides each value of xs by the value of base from the same round: the two were taken
// seconds apart, so most of what the machine did to one it did to the other. A round where either is
// missing or not positive yields nothing rather than a wild ratio.
func pairedRatios(xs, base []float64) []float64 {
	var out []float64
	for i := range min(len(xs), len(base)) {
		if xs[i] > 0 && base[i] > 0 {
			out = append(out, xs[i]/base[i])
		}
	}
	return out
}
