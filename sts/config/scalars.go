package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// duration is a length of time as written: a number and a unit, Go's and d for days of 24 hours. At least
// one second, because zero would mean a default.
type duration string

var _ checker = (*duration)(nil)

func (*duration) check(d *document, n *yaml.Node, path string) bool {
	d.duration(n, path)
	return true
}

func (d *document) duration(n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.place(n, path, "%s must be a duration such as 90s, 15m, 12h or 30d, not %s", last(path), kindOf(n))
		return
	}
	if _, err := parseDuration(n.Value); err != nil {
		d.place(n, path, "%s %s %s", last(path), show(n.Value), err)
	}
}

var (
	errNoUnit   = errors.New("has no unit; write for instance 90s, 15m, 12h or 30d")
	errDuration = errors.New("is not a duration; write for instance 90s, 15m, 12h or 30d")
	errTooLong  = errors.New("is longer than a hundred years")
	errTooShort = errors.New("is below one second; leave it out for the default, there is no way to mean none")
)

// A duration is days, then what Go takes. Signs and bare points are not among it.
const durationPattern = `^(?:([0-9]{1,6})d)?((?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:h|m|s|ms|us|µs|ns))*)$`

var (
	durations = regexp.MustCompile(durationPattern)
	unitless  = regexp.MustCompile(`^[0-9.]+$`)
)

// ParseDuration reads a duration as the configuration writes it: Go's, and days. 1 s is the least.
func ParseDuration(s string) (time.Duration, error) { return parseDuration(s) }

// parseDuration reads Go's durations and days: "400d", "1d12h".
func parseDuration(s string) (time.Duration, error) {
	if unitless.MatchString(s) {
		return 0, errNoUnit
	}
	parts := durations.FindStringSubmatch(s)
	if parts == nil || s == "" {
		return 0, errDuration
	}
	var total time.Duration
	if parts[1] != "" {
		n, err := strconv.Atoi(parts[1])
		if err != nil || n > maxDays {
			return 0, errTooLong
		}
		total = time.Duration(n) * 24 * time.Hour
	}
	if parts[2] != "" {
		rest, err := time.ParseDuration(parts[2])
		if err != nil || rest > maxDays*24*time.Hour {
			return 0, errTooLong
		}
		total += rest
	}
	if total < time.Second {
		return 0, errTooShort
	}
	return total, nil
}

// maxDays keeps sums of durations far from overflowing.
const maxDays = 36_500

// value returns the duration; it was checked. The zero duration is "not written".
func (s duration) value() time.Duration {
	v, err := parseDuration(string(s))
	if err != nil {
		return 0
	}
	return v
}

// size is a number of bytes as written: a whole number and KiB, MiB, GiB or TiB.
type size string

var _ checker = (*size)(nil)

func (*size) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.place(n, path, "%s must be a size such as 64MiB, not %s", last(path), kindOf(n))
	} else if _, err := parseSize(n.Value); err != nil {
		d.place(n, path, "%s %s %s", last(path), show(n.Value), err)
	}
	return true
}

var sizes = regexp.MustCompile(`^([0-9]{1,6})(KiB|MiB|GiB|TiB)$`)

func parseSize(s string) (int64, error) {
	parts := sizes.FindStringSubmatch(s)
	if parts == nil {
		return 0, errors.New("is not a size; write a whole number and a unit: KiB, MiB, GiB or TiB, for instance 64MiB")
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("is not a size: %w", err)
	}
	shift := map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[parts[2]]
	return n << shift, nil
}

func (s size) value() int64 {
	v, err := parseSize(string(s))
	if err != nil {
		return 0
	}
	return v
}

// brief prints a duration without the units that are zero: 24h, not 24h0m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
