package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
	"github.com/sallyport-sts/sallyport/test/ports"
	"github.com/sallyport-sts/sallyport/test/stage"
)

const (
	warmUp     = 500 * time.Millisecond // at most, of discarded load for each server before the first round
	syncProbes = 32                     // synced writes that the disk is timed with
	syncBytes  = 512                    // of each
)

// rowNames are the rows by key.
var rowNames = map[string]string{
	"A": "floor-raw", "B": "floor-jose", "C": "sallyport/process", "D": "sallyport/machine", "E": "sallyport/again", "F": "sallyport/redis",
}

// againTokens is how many tokens row E presents over and over: as many workloads that re-read theirs from a file.
const againTokens = 64

// measure does the whole run. Whatever happens, it ends the servers it started and removes its folder.
func measure(ctx context.Context, o options, progress io.Writer) (*report, error) {
	bin, err := findBinary(o)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(progress, "signing %d subject tokens\n", o.tokens)
	tokens, err := newSubjects(o.tokens, time.Now())
	if err != nil {
		return nil, err
	}
	redisURL := ""
	if slices.Contains(o.rows, "F") {
		shared, err := redistest.Start(true)
		if err != nil {
			return nil, fmt.Errorf("row F: %w", err)
		}
		defer shared.Close()
		redisURL = shared.URL
	}
	servers, err := newServers(o, bin, dir, redisURL, tokens)
	if err != nil {
		return nil, err
	}
	out := newReport(o)
	if out.Machine.SyncMS, err = timeSync(dir); err != nil {
		return nil, err
	}
	if out.Machine.LoadBefore, err = loadAverage(); err != nil {
		return nil, err
	}
	for _, s := range servers {
		defer s.stop()
		if err := prepare(ctx, s, slices.Max(o.conns), min(o.duration, warmUp)); err != nil {
			return nil, err
		}
	}
	samples, err := rounds(ctx, o, servers, progress)
	if err != nil {
		return nil, err
	}
	if out.Machine.LoadAfter, err = loadAverage(); err != nil {
		return nil, err
	}
	if o.profile != "" {
		if err := profileAll(ctx, o, servers, progress); err != nil {
			return nil, err
		}
	}
	out.fill(o, servers, samples)
	return out, nil
}

// findBinary returns the absolute path of the sallyport binary, because a server's working directory is its own
// folder; nothing when no row needs it.
func findBinary(o options) (string, error) {
	if !o.needsBinary() {
		return "", nil
	}
	bin, err := exec.LookPath(o.bin)
	if err != nil {
		return "", fmt.Errorf("-bin: %w", err)
	}
	return filepath.Abs(bin)
}

// newServers writes the configuration of every row and returns the servers, not started, in table order.
func newServers(o options, bin, dir, redisURL string, tokens *subjects) ([]*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var servers []*server
	for _, key := range o.rows {
		s := &server{key: key, name: rowNames[key], dir: filepath.Join(dir, key), addr: ports.Address()}
		s.ready = s.addr
		var files map[string][]byte
		switch key {
		case "A", "B":
			variant := map[string]string{"A": "raw", "B": "jose"}[key]
			s.argv = []string{self, floorCommand, "-variant", variant, "-addr", s.addr, "-dir", s.dir}
			files, err = floorFiles(tokens.keyJSON, signing)
		default:
			durability := map[string]string{"D": "machine"}[key]
			s.ready = ports.Address()
			s.argv = []string{bin, "serve", s.dir}
			s.revocations = o.scenario.revocations
			files = o.scenario.files(tokens.keyJSON, s.addr, s.ready, cmp.Or(durability, "process"))
			if key == "F" {
				shareStore(files, redisURL)
			}
		}
		if err != nil {
			return nil, err
		}
		if err := writeFiles(s.dir, files); err != nil {
			return nil, err
		}
		s.requests = renderAll(s.addr, tokens.tokens)
		if key == "E" {
			s.requests = s.requests[:min(len(s.requests), againTokens)]
		}
		s.forged = renderRequest(s.addr, tokens.forged)
		servers = append(servers, s)
	}
	return servers, nil
}

// prepare starts a server twice, the second time with the state the first has left, checks that it checks, and
// warms it up.
func prepare(ctx context.Context, s *server, conns int, warm time.Duration) error {
	var err error
	if s.first, err = s.start(ctx); err != nil {
		return err
	}
	s.stop()
	if s.revocations > 0 {
		if err := stage.FillRevocations(ctx, s.dir, s.revocations); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if s.restart, err = s.start(ctx); err != nil {
		return err
	}
	if s.idle, err = residentBytes(s.pid()); err != nil {
		return err
	}
	if err := s.mustRefuseForged(ctx); err != nil {
		return err
	}
	if _, err := window(ctx, s, conns, warm); err != nil {
		return fmt.Errorf("warming up %s: %w\n%s", s.name, err, s.logTail())
	}
	return nil
}

// slot names the windows that are compared with each other over the rounds.
type slot struct {
	row   string
	conns int
}

// rounds does the interleaved windows; the result holds one sample per round for each slot.
func rounds(ctx context.Context, o options, servers []*server, progress io.Writer) (map[slot][]sample, error) {
	samples := make(map[slot][]sample)
	for round := range o.rounds {
		for _, conns := range o.conns {
			fmt.Fprintf(progress, "round %d of %d, %d connections\n", round+1, o.rounds, conns)
			for _, s := range inOrder(servers, round) {
				got, err := window(ctx, s, conns, o.duration)
				if err != nil {
					return nil, fmt.Errorf("%s at %d connections: %w\n%s", s.name, conns, err, s.logTail())
				}
				at := slot{s.key, conns}
				samples[at] = append(samples[at], got)
			}
		}
	}
	return samples, nil
}

// inOrder reverses the order in every other round, so that no row always follows the same one and a machine that
// grows slower or faster weighs on all alike.
func inOrder(servers []*server, round int) []*server {
	out := slices.Clone(servers)
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// timeSync returns the median time in milliseconds of a small synced append in dir. Row D waits for such writes: on
// a file system in memory it would be row C.
func timeSync(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	times := make([]float64, 0, syncProbes)
	for range syncProbes {
		begin := time.Now()
		if _, err := f.Write(make([]byte, syncBytes)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, milliseconds(time.Since(begin)))
	}
	return median(times), nil
}
