package brokers

import (
	"regexp"
	"strings"
	"testing"
)

func TestPasswordsAreSafeForEveryConsumerAndEvenlyDrawn(t *testing.T) {
	t.Parallel()
	const n = 4000
	seen, counts := map[string]bool{}, map[rune]int{}
	for range n {
		p := NewPassword().Reveal()
		if !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(p) || seen[p] {
			t.Fatalf("password %q is not 32 fresh letters and digits", p)
		}
		seen[p] = true
		for _, c := range p {
			counts[c]++
		}
	}
	if len(counts) != len(passwordChars) {
		t.Errorf("%d characters occur, want all %d", len(counts), len(passwordChars))
	}
	// The biased remainder would give the first 8 characters 25 % more; ten standard deviations are 22 %.
	mean := float64(n*passwordLength) / float64(len(passwordChars))
	for _, c := range passwordChars {
		if f := float64(counts[c]) / mean; f < 0.8 || f > 1.2 {
			t.Errorf("%q occurs %.2f times as often as the mean (%s)", c, f, strings.Repeat("*", int(10*f)))
		}
	}
}
