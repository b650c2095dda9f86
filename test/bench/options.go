package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Limits on one run. The subject tokens live an hour (tokenLifetime), so a run must end well before.
const (
	maxRounds   = 100
	maxTokens   = 60_000  // subject tokens; each takes about 1.4 KiB here for each server
	maxScenario = 200_000 // rules, issuers
	maxRevoked  = 2_000_000
	maxConns    = 1024 // connections; each is a goroutine here and in the server
	maxLevels   = 8    // entries of -conns
	minDuration = 50 * time.Millisecond
	maxTotal    = 45 * time.Minute // load time of the whole run, warm-up and start not counted
)

// options are the parsed command line.
type options struct {
	bin      string        // path of the sallyport binary; empty when no row needs it
	rounds   int           // windows per row and number of connections
	duration time.Duration // of one window
	conns    []int         // numbers of connections
	rows     []string      // keys of the rows to run, in table order, "A" always among them
	format   string        // table or json
	tokens   int           // distinct subject tokens; a server sees all of them before it sees one again
	profile  string        // folder for perf profiles, or empty
	scenario scenario      // what rows C to F are configured with
}

// rowKeys are the rows in table order, and those of them that need a sallyport binary.
const (
	rowKeys       = "ABCDEF"
	sallyportRows = "CDEF"
)

// parseOptions reads the command line. It prints what is wrong, and the usage, to stderr.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var conns, rows string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.bin, "bin", "", "path of the sallyport binary to measure (required for rows C to F)")
	fs.IntVar(&o.rounds, "rounds", 6, "rounds; each measures every row at every number of connections")
	fs.DurationVar(&o.duration, "duration", 1500*time.Millisecond, "length of one window of load")
	fs.StringVar(&conns, "conns", "1,16,64", "numbers of connections, comma separated")
	fs.StringVar(&rows, "rows", "A,B,C,D,E", "rows to run, comma separated; A is the base of the ratios and always runs; F needs redis-server")
	fs.IntVar(&o.tokens, "tokens", 40_000, "distinct subject tokens; more than a server remembers, so that each is new to it")
	fs.IntVar(&o.scenario.rules, "rules", 1000, "allow rules of one issuer and one target; the caller's is the last")
	fs.IntVar(&o.scenario.conditions, "conditions", 100, "how many of them carry a CEL condition, the caller's among them")
	fs.IntVar(&o.scenario.issuers, "issuers", 100, "trusted issuers; the caller's is the last")
	fs.IntVar(&o.scenario.revocations, "revocations", 100_000, "live revocations")
	fs.StringVar(&o.format, "o", "table", "output: table or json")
	fs.StringVar(&o.profile, "profile", "", "folder for CPU profiles by perf(1), taken after the measured rounds")
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench -bin PATH_TO_SALLYPORT [flags]")
		fmt.Fprintln(stderr, "Build the binary first: go build -o bin/sallyport ./cmd/sallyport")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	err := o.finish(conns, rows, fs.Args())
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		fs.Usage()
	}
	return o, err
}

// finish parses the lists and checks the whole.
func (o *options) finish(conns, rows string, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	var err error
	if o.conns, err = parseConns(conns); err != nil {
		return err
	}
	if o.rows, err = parseRows(rows); err != nil {
		return err
	}
	switch {
	case o.rounds < 1 || o.rounds > maxRounds:
		return fmt.Errorf("-rounds must be between 1 and %d", maxRounds)
	case o.tokens < 1 || o.tokens > maxTokens:
		return fmt.Errorf("-tokens must be between 1 and %d", maxTokens)
	case o.duration < minDuration || o.duration > maxTotal: // the second half keeps total from overflowing
		return fmt.Errorf("-duration must be between %v and %v", minDuration, maxTotal)
	case o.total() > maxTotal:
		return fmt.Errorf("%v of load is more than %v: lower -rounds, -duration or -conns", o.total(), maxTotal)
	case o.scenario.rules < 1 || o.scenario.rules > maxScenario || o.scenario.issuers < 1 || o.scenario.issuers > maxScenario:
		return fmt.Errorf("-rules and -issuers must be between 1 and %d", maxScenario)
	case o.scenario.conditions < 0 || o.scenario.conditions > o.scenario.rules:
		return errors.New("-conditions must be between 0 and -rules")
	case o.scenario.revocations < 0 || o.scenario.revocations > maxRevoked:
		return fmt.Errorf("-revocations must be between 0 and %d", maxRevoked)
	case o.format != "table" && o.format != "json":
		return fmt.Errorf("-o must be table or json, not %q", o.format)
	case o.bin == "" && o.needsBinary():
		return errors.New("-bin is missing: rows C to F measure a sallyport binary (-rows A,B runs without one)")
	}
	return nil
}

// total is the load time of the whole run.
func (o *options) total() time.Duration {
	return time.Duration(o.rounds*len(o.conns)*len(o.rows)) * o.duration
}

func (o *options) needsBinary() bool {
	for _, key := range o.rows {
		if strings.Contains(sallyportRows, key) {
			return true
		}
	}
	return false
}

func parseConns(list string) ([]int, error) {
	var out []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > maxConns {
			return nil, fmt.Errorf("-conns: %q is not a number between 1 and %d", word, maxConns)
		}
		out = append(out, n)
	}
	if len(out) > maxLevels {
		return nil, fmt.Errorf("-conns: at most %d numbers", maxLevels)
	}
	return out, nil
}

// parseRows returns the keys in table order; A is added when missing.
func parseRows(list string) ([]string, error) {
	want := map[string]bool{"A": true}
	for word := range strings.SplitSeq(list, ",") {
		key := strings.ToUpper(strings.TrimSpace(word))
		if len(key) != 1 || !strings.Contains(rowKeys, key) {
			return nil, fmt.Errorf("-rows: %q is not one of A to F", word)
		}
		want[key] = true
	}
	var out []string
	for _, key := range strings.Split(rowKeys, "") {
		if want[key] {
			out = append(out, key)
		}
	}
	return out, nil
}
