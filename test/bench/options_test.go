package main

import (
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptionsDefaults(t *testing.T) {
	o, err := parseOptions([]string{"-bin", "sp"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 6 || o.tokens != 40_000 || o.duration != 1500*time.Millisecond || !slices.Equal(o.conns, []int{1, 16, 64}) || o.format != "table" ||
		strings.Join(o.rows, "") != "ABCDE" {
		t.Errorf("got %+v", o)
	}
	if want := 135 * time.Second; o.total() != want {
		t.Errorf("total load %v, want %v", o.total(), want)
	}
}

func TestParseOptionsRows(t *testing.T) {
	for list, want := range map[string]string{"B": "AB", "b, a": "AB", "D,C": "ACD", "f,e": "AEF", "A": "A", "C,C": "AC"} {
		o, err := parseOptions([]string{"-bin", "sp", "-rows", list}, io.Discard)
		if err != nil || strings.Join(o.rows, "") != want {
			t.Errorf("-rows %s: got %v, error %v; want %s", list, o.rows, err, want)
		}
	}
	if _, err := parseOptions([]string{"-rows", "A,B"}, io.Discard); err != nil {
		t.Errorf("rows A and B need no binary: %v", err)
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "-bin is missing"},
		{"-rows C", "-bin is missing"},
		{"-bin sp -rounds 0", "-rounds"},
		{"-bin sp -rounds 101", "-rounds"},
		{"-bin sp -tokens 0", "-tokens"},
		{"-bin sp -tokens 60001", "-tokens"},
		{"-bin sp -rules 0", "-rules"},
		{"-bin sp -conditions 2000", "-conditions"},
		{"-bin sp -revocations -1", "-revocations"},
		{"-bin sp -duration 1ms", "-duration"},
		{"-bin sp -duration 2000000h", "-duration"},
		{"-bin sp -rounds 100 -duration 60s", "is more than 45m"},
		{"-bin sp -conns 1,0", "-conns"},
		{"-bin sp -conns ,", "-conns"},
		{"-bin sp -conns 1,2,3,4,5,6,7,8,9", "-conns"},
		{"-bin sp -conns 100000", "-conns"},
		{"-bin sp -rows G", "-rows"},
		{"-bin sp -rows AB", "-rows"},
		{"-bin sp -o yaml", "-o must be"},
		{"-bin sp more", "unexpected argument"},
		{"-unknown", "flag provided but not defined"},
	} {
		var errs strings.Builder
		if _, err := parseOptions(strings.Fields(c.args), &errs); err == nil || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q: error %v, stderr %q; want %q", c.args, err, errs.String(), c.want)
		}
		if !strings.Contains(errs.String(), "usage: bench -bin") {
			t.Errorf("%q: the usage is missing", c.args)
		}
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: got %v, want flag.ErrHelp", err)
	}
}
