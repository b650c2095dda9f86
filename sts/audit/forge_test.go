package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// blankSlot zeroes the half of the head file that holds the newer head, and returns the other head.
func blankSlot(t *testing.T, cfg Config) Head {
	t.Helper()
	keys, err := newKeyring(testPublic())
	if err != nil {
		t.Fatal(err)
	}
	slots, err := readHeads(Disk{}, cfg.HeadFile, keys)
	if err != nil || !slots[0].valid || !slots[1].valid {
		t.Fatalf("the head file does not have two heads (%v)", err)
	}
	newer := newest(slots)
	f, err := os.OpenFile(cfg.HeadFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, slotSize), int64(newer)*slotSize); err != nil {
		t.Fatal(err)
	}
	return slots[1-newer].head
}

// The chain has no key: who can write the disk can go on with it. What stands after a closed record was invented,
// even when the head that says that the log was closed is spoiled as well.
func TestRecordsInventedAfterTheEndAreFound(t *testing.T) {
	cfg := tamperLog(t)
	name, lines, prev, n := lastLines(t, cfg.Dir)
	invented := mustOpenAndTake(t, exchange(4711))
	forged, _, _ := rechain([][]byte{invented}, prev, n)
	writeAll(t, cfg.Dir, name, append(bytes.Join(lines, nil), bytes.Join(forged, nil)...))
	blankSlot(t, cfg)
	if r := mustVerify(t, cfg); r.OK() {
		t.Fatalf("an invented record was not found: %+v", r)
	}
	// A server that starts on it signs what it goes on from, but says that it was contradicted.
	l := mustOpen(t, cfg)
	if err := l.Health(); !errors.Is(err, ErrContradiction) {
		t.Errorf("Health says %v, want ErrContradiction", err)
	}
	mustClose(t, l)
	if r := mustVerify(t, cfg); r.OK() {
		t.Errorf("after a restart the invented record passes: %+v", r)
	}
}

// Taking the newer half of the head away must not make an older one the last word.
func TestEmptiedHalfOfTheHeadIsFound(t *testing.T) {
	cfg := tamperLog(t)
	older := blankSlot(t, cfg)
	name, lines, _, _ := lastLines(t, cfg.Dir)
	var kept int64
	for _, line := range lines {
		if rec := parsed(t, line); rec.N <= older.N {
			kept += int64(len(line))
		}
	}
	if err := os.Truncate(filepath.Join(cfg.Dir, name), kept); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, cfg); r.OK() {
		t.Errorf("a log cut back to an older head passes: %+v", r)
	}
	openAfterTampering(t, cfg)
}

// mustOpenAndTake writes one record to a log of its own and returns its line.
func mustOpenAndTake(t *testing.T, rec *Record) []byte {
	t.Helper()
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	if err := l.Append(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	_, lines, at := lineOf(t, cfg.Dir, 4711)
	return lines[at]
}

func parsed(t *testing.T, line []byte) Record {
	t.Helper()
	var e entry
	e.ok = e.parse(bytes.TrimSuffix(line, []byte("\n")))
	rec, err := e.record()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
