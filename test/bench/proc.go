package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// userTick is the unit of the times in /proc/stat: USER_HZ, 100 a second on every Linux port of Go.
const userTick = 10 * time.Millisecond

// parseResident finds VmRSS in the text of /proc/PID/status and returns bytes.
func parseResident(status string) (int64, error) {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("VmRSS line %q", strings.TrimSpace(line))
		}
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmRSS line %q: %w", strings.TrimSpace(line), err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("no VmRSS line: the process has ended")
}

// parseBusy adds up the busy times of the first line of /proc/stat: user, nice, system, irq, softirq
// and steal (fields 1, 2, 3, 6, 7, 8 of proc_stat(5)). Idle and iowait are not busy; guest time is
// already in user.
func parseBusy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("first line of /proc/stat is %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("first line of /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * userTick, nil
}

// parseLoad returns the first figure of /proc/loadavg.
func parseLoad(text string) (float64, error) {
	first, _, _ := strings.Cut(text, " ")
	return strconv.ParseFloat(first, 64)
}
