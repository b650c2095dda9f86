package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	profileHertz  = "199"            // samples a second; a prime, so that it does not beat with the servers' timers
	profileLength = 5 * time.Second  // of the load under perf
	reportLimit   = 60 * time.Second // for perf to write the text
)

// profileAll records where each server spends its time, in one more window of load after the measured ones, with
// perf(1): the servers need no hook for it, and the figures of the table are not disturbed. DIR/<row>.data is for
// perf itself, DIR/<row>.txt is for reading: each function with (Children) and without (Self) what it calls. Without
// perf it says what to do instead.
func profileAll(ctx context.Context, o options, servers []*server, progress io.Writer) error {
	perf, err := exec.LookPath("perf")
	if err != nil {
		fmt.Fprintln(progress, "no profile: perf(1) is not installed. The benchmark of the exchange gives one too:")
		fmt.Fprintln(progress, "  go test -run '^$' -bench Exchange -cpuprofile cpu.prof ./sts && go tool pprof -top cpu.prof")
		return nil
	}
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		return err
	}
	for _, s := range servers {
		path := filepath.Join(o.profile, s.key+"-"+strings.ReplaceAll(s.name, "/", "-"))
		fmt.Fprintf(progress, "profiling %s into %s.txt\n", s.name, path)
		if err := profileOne(ctx, perf, s, slices.Max(o.conns), path); err != nil {
			fmt.Fprintf(progress, "no profile of %s: %v\n", s.name, err)
		}
	}
	return ctx.Err()
}

// profileOne runs perf beside a window of load.
func profileOne(ctx context.Context, perf string, s *server, conns int, path string) error {
	data := path + ".data"
	// cpu-clock, because a virtual machine often has no hardware counters; frame pointers are in every Go binary.
	record := exec.CommandContext(ctx, perf, "record", "-q", "-e", "cpu-clock", "-F", profileHertz, "--call-graph", "fp",
		"-p", strconv.Itoa(s.pid()), "-o", data, "--", "sleep", strconv.Itoa(int(profileLength/time.Second)))
	record.SysProcAttr = childAttr()
	if err := record.Start(); err != nil {
		return err
	}
	_, err := window(ctx, s, conns, profileLength)
	if waited := record.Wait(); err == nil && waited != nil {
		err = fmt.Errorf("perf record: %w", waited)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	text, err := exec.CommandContext(ctx, perf, "report", "--stdio", "--children", "-g", "none", "-i", data).Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(path+".txt", text, 0o644)
}
