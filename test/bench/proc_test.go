package main

import (
	"testing"
	"time"
)

func TestParseResident(t *testing.T) {
	got, err := parseResident("Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t    1756 kB\nRssAnon:\t     112 kB\n")
	if err != nil || got != 1756*1024 {
		t.Errorf("got %d, error %v; want %d bytes", got, err, 1756*1024)
	}
	for _, text := range []string{"", "Name:\tzombie\nState:\tZ (zombie)\n", "VmRSS:\tmany kB\n", "VmRSS:\t12 MB\n"} {
		if got, err := parseResident(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseBusyLeavesOutIdleAndGuest(t *testing.T) {
	//                               user nice sys idle iowait irq softirq steal guest guest_nice
	got, err := parseBusy("cpu  100 20 30 9999 8888 4 5 6 77 88\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if want := 1650 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, error %v; want %v", got, err, want)
	}
	for _, text := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 x 4 5 6 7 8 9 10"} {
		if got, err := parseBusy(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestParseLoad(t *testing.T) {
	if got, err := parseLoad("2.41 1.14 0.04 3/512 93001\n"); err != nil || got != 2.41 {
		t.Errorf("got %v, error %v; want 2.41", got, err)
	}
	if got, err := parseLoad("\n"); err == nil {
		t.Errorf("empty line: got %v, want an error", got)
	}
}
