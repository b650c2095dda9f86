package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func readAll(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAll(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustList(t testing.TB, dir string) []uint64 {
	t.Helper()
	s, err := listSegments(Disk{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lineOf returns the segment and the index of the line that holds a decision.
func lineOf(t testing.TB, dir string, i int) (name string, lines [][]byte, at int) {
	t.Helper()
	for _, first := range mustList(t, dir) {
		lines := bytes.SplitAfter(readAll(t, dir, segmentName(first)), []byte("\n"))
		for at, line := range lines {
			if bytes.Contains(line, []byte(decisionID(i))) {
				return segmentName(first), lines, at
			}
		}
	}
	t.Fatalf("no line holds decision %d", i)
	return "", nil, 0
}

// rechain gives lines new hashes, as an attacker without the key would: numbers may be changed, signatures not.
func rechain(lines [][]byte, prev sum, n uint64) ([][]byte, sum, uint64) {
	var out [][]byte
	for _, line := range lines {
		var e entry
		if !e.parse(bytes.TrimSuffix(line, []byte("\n"))) {
			continue
		}
		n++
		_, rest, _ := bytes.Cut(e.json, []byte(","))
		body := append([]byte(numberKey+strconv.FormatUint(n, 10)+","), rest...)
		prev = link(sha256.New(), &prev, body)
		out = append(out, []byte(prev.String()+" "+string(body)+"\n"))
	}
	return out, prev, n
}

// rechainFrom rewrites a whole log of several segments after somebody changed a line, hashes of segment headers
// included.
func rechainFrom(t testing.TB, dir string) {
	t.Helper()
	var prev sum
	var n uint64
	for i, first := range mustList(t, dir) {
		name := segmentName(first)
		lines := bytes.SplitAfter(readAll(t, dir, name), []byte("\n"))
		if i > 0 { // the header repeats the hash before it
			lines[0] = setPrev(t, lines[0], prev)
		}
		lines, prev, n = rechain(lines, prev, n)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		var e entry
		e.parse(bytes.TrimSuffix(lines[0], []byte("\n")))
		writeAll(t, dir, segmentName(e.n), bytes.Join(lines, nil))
	}
}

func setPrev(t testing.TB, line []byte, prev sum) []byte {
	t.Helper()
	var e entry
	if !e.parse(bytes.TrimSuffix(line, []byte("\n"))) {
		t.Fatal("not a line")
	}
	var r Record
	if err := json.Unmarshal(e.json, &r); err != nil {
		t.Fatal(err)
	}
	old := r.Segment.Prev
	return bytes.Replace(line, []byte(`"prev":"`+old), []byte(`"prev":"`+prev.String()), 1)
}

// tamperLog is a log of three sessions and several segments, closed in order: decisions 0 to 59.
func tamperLog(t testing.TB) Config {
	t.Helper()
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = smallestSegment
	for session := range 3 {
		l := mustOpen(t, cfg)
		mustAppendSmall(t, l, session*20, session*20+20)
		mustClose(t, l)
	}
	wantOK(t, mustVerify(t, cfg))
	return cfg
}

func mustAppendSmall(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := l.Append(t.Context(), small(i)); err != nil {
			t.Fatalf("Append %d: %v", i, err)
		}
	}
}

func TestVerifyNamesEveryKindOfTampering(t *testing.T) {
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, cfg Config)
		kind   Kind
		decide int // decision at whose line the finding stands, -1: elsewhere
	}{
		{"a record is edited", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			lines[at] = bytes.Replace(lines[at], []byte(`"refused"`), []byte(`"issued"`), 1)
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
		}, KindEdited, 25},
		{"a record is edited and gets a fitting hash", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			var before entry
			before.parse(bytes.TrimSuffix(lines[at-1], []byte("\n")))
			edited := bytes.Replace(lines[at], []byte(`"refused"`), []byte(`"issued"`), 1)
			forged, _, _ := rechain([][]byte{edited}, before.stated, before.n)
			lines[at] = forged[0]
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
		}, KindEdited, 26},
		{"a record is deleted", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			writeAll(t, cfg.Dir, name, bytes.Join(slices.Delete(lines, at, at+1), nil))
		}, KindMissing, 26},
		{"a record is repeated", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			writeAll(t, cfg.Dir, name, bytes.Join(slices.Insert(lines, at+1, lines[at]), nil))
		}, KindOrder, -1},
		{"a forged record is inserted", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			var before entry
			before.parse(bytes.TrimSuffix(lines[at-1], []byte("\n")))
			forged, _, _ := rechain([][]byte{bytes.Replace(lines[at], []byte(decisionID(25)), []byte(decisionID(999)), 1)}, before.stated, before.n)
			writeAll(t, cfg.Dir, name, bytes.Join(slices.Insert(lines, at, forged[0]), nil))
		}, KindOrder, 25},
		{"two records change places", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			lines[at], lines[at+1] = lines[at+1], lines[at]
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
		}, KindMissing, 26},
		{"a line is garbage", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			lines[at] = []byte("garbage\n")
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
		}, KindUnreadable, -1},
		{"the end of the last segment is cut off", func(t *testing.T, cfg Config) {
			last := mustList(t, cfg.Dir)
			name := segmentName(last[len(last)-1])
			lines := bytes.SplitAfter(readAll(t, cfg.Dir, name), []byte("\n"))
			writeAll(t, cfg.Dir, name, bytes.Join(lines[:len(lines)-2], nil))
		}, KindTruncated, -1},
		{"the end is cut off inside a line", func(t *testing.T, cfg Config) {
			last := mustList(t, cfg.Dir)
			name := segmentName(last[len(last)-1])
			b := readAll(t, cfg.Dir, name)
			writeAll(t, cfg.Dir, name, b[:len(b)-10])
		}, KindTruncated, -1},
		{"the whole last segment is removed", func(t *testing.T, cfg Config) {
			last := mustList(t, cfg.Dir)
			remove(t, cfg.Dir, segmentName(last[len(last)-1]))
		}, KindTruncated, -1},
		{"all segments are removed", func(t *testing.T, cfg Config) {
			for _, first := range mustList(t, cfg.Dir) {
				remove(t, cfg.Dir, segmentName(first))
			}
		}, KindTruncated, -1},
		{"a middle segment is removed", func(t *testing.T, cfg Config) {
			remove(t, cfg.Dir, segmentName(mustList(t, cfg.Dir)[2]))
		}, KindMissing, -1},
		{"the first segment is removed", func(t *testing.T, cfg Config) {
			remove(t, cfg.Dir, segmentName(1))
		}, KindMissing, -1},
		{"the end of a middle segment is cut off", func(t *testing.T, cfg Config) {
			name := segmentName(mustList(t, cfg.Dir)[2])
			b := readAll(t, cfg.Dir, name)
			writeAll(t, cfg.Dir, name, b[:len(b)/2])
		}, KindMissing, -1},
		{"a segment is renamed", func(t *testing.T, cfg Config) {
			list := mustList(t, cfg.Dir)
			if err := os.Rename(segmentPath(cfg.Dir, list[len(list)-1]), segmentPath(cfg.Dir, 100_000)); err != nil {
				t.Fatal(err)
			}
		}, KindOrder, -1},
		{"a copy of a segment is added", func(t *testing.T, cfg Config) {
			writeAll(t, cfg.Dir, segmentName(100_000), readAll(t, cfg.Dir, segmentName(1)))
		}, KindOrder, -1},
		{"records are added after the close", func(t *testing.T, cfg Config) {
			name, lines, prev, n := lastLines(t, cfg.Dir)
			more, _, _ := rechain(lines[1:2], prev, n)
			writeAll(t, cfg.Dir, name, bytes.Join(append(lines, more...), nil))
		}, KindAdded, -1},
		{"garbage is added after the close", func(t *testing.T, cfg Config) {
			name, lines, _, _ := lastLines(t, cfg.Dir)
			writeAll(t, cfg.Dir, name, append(bytes.Join(lines, nil), "half a li"...))
		}, KindAdded, -1},
		{"a session is forged after the close", func(t *testing.T, cfg Config) {
			_, lines, prev, n := lastLines(t, cfg.Dir)
			opened := lines[0]
			for _, first := range mustList(t, cfg.Dir) { // the last segment may begin with TypeSegment
				l := bytes.SplitAfter(readAll(t, cfg.Dir, segmentName(first)), []byte("\n"))
				if bytes.Contains(l[0], []byte(`"opened"`)) {
					opened = l[0]
				}
			}
			forged, _, _ := rechain([][]byte{setPrev(t, opened, prev), lines[1]}, prev, n)
			writeAll(t, cfg.Dir, segmentName(n+1), bytes.Join(forged, nil))
		}, KindAdded, -1},
		{"a record is edited and the whole chain made anew", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			lines[at] = bytes.Replace(lines[at], []byte(`"refused"`), []byte(`"issued"`), 1)
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
			rechainFrom(t, cfg.Dir)
		}, KindRewritten, -1},
		{"a record is deleted and the whole chain made anew", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			writeAll(t, cfg.Dir, name, bytes.Join(slices.Delete(lines, at, at+1), nil))
			rechainFrom(t, cfg.Dir)
		}, KindRewritten, -1},
		{"a record is edited and the whole chain made anew without its heads", func(t *testing.T, cfg Config) {
			name, lines, at := lineOf(t, cfg.Dir, 25)
			lines[at] = bytes.Replace(lines[at], []byte(`"refused"`), []byte(`"issued"`), 1)
			writeAll(t, cfg.Dir, name, bytes.Join(lines, nil))
			for _, first := range mustList(t, cfg.Dir) {
				other := bytes.SplitAfter(readAll(t, cfg.Dir, segmentName(first)), []byte("\n"))
				for i := range other {
					if bytes.Contains(other[i], []byte(`"type":"head"`)) {
						other[i] = lines[at]
					}
				}
				writeAll(t, cfg.Dir, segmentName(first), bytes.Join(other, nil))
			}
			rechainFrom(t, cfg.Dir)
		}, KindRewritten, -1},
		{"the head file is removed", func(t *testing.T, cfg Config) {
			remove(t, filepath.Dir(cfg.HeadFile), filepath.Base(cfg.HeadFile))
		}, KindHead, -1},
		{"the head file is emptied", func(t *testing.T, cfg Config) {
			writeAll(t, filepath.Dir(cfg.HeadFile), filepath.Base(cfg.HeadFile), nil)
		}, KindHead, -1},
		{"a head is signed with another key", func(t *testing.T, cfg Config) {
			forgeHead(t, cfg, func(*Head) {})
		}, KindForged, -1},
		{"the log is cut and a head forged for what is left", func(t *testing.T, cfg Config) {
			list := mustList(t, cfg.Dir)
			remove(t, cfg.Dir, segmentName(list[len(list)-1]))
			_, _, prev, n := lastLines(t, cfg.Dir)
			forgeHead(t, cfg, func(h *Head) { h.N, h.Hash = n, prev.String() })
		}, KindForged, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tamperLog(t)
			c.attack(t, cfg)
			r := mustVerify(t, cfg)
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Kind == c.kind })
			if r.OK() || i < 0 {
				t.Fatalf("found %v, want a finding of kind %q", r.Findings, c.kind)
			}
			t.Log(r.Findings[i])
			if c.decide >= 0 {
				name, _, at := lineOf(t, cfg.Dir, c.decide)
				if want := fmt.Sprintf("%s:%d", name, at+1); r.Findings[i].Place != want {
					t.Errorf("place: got %s, want %s", r.Findings[i].Place, want)
				}
			}
			if len(r.Findings) > 4 {
				t.Errorf("%d findings for one change: %v", len(r.Findings), r.Findings)
			}
			openAfterTampering(t, cfg)
		})
	}
}

// openAfterTampering: whatever was done to the files, the service starts, appends, and what it appends can be
// verified; the damage stays on record.
func openAfterTampering(t *testing.T, cfg Config) {
	t.Helper()
	before := map[string][]byte{}
	for _, first := range mustList(t, cfg.Dir) {
		before[segmentName(first)] = readAll(t, cfg.Dir, segmentName(first))
	}
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 5000, 5020)
	mustClose(t, l)
	for name, b := range before {
		if !bytes.Equal(b, readAll(t, cfg.Dir, name)) {
			t.Errorf("Open changed the bytes of %s", name)
		}
	}
	if r := mustVerify(t, cfg); r.OK() {
		t.Error("after a restart nothing is wrong any more")
	}
	for i := 5000; i < 5020; i++ {
		if _, ok, err := Find(cfg.Dir, decisionID(i)); !ok || err != nil {
			t.Fatalf("record %d appended after the tampering is not found: %v", i, err)
		}
	}
}

func remove(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// lastLines returns the last segment, its lines (the last of them not empty) and where its chain ends.
func lastLines(t testing.TB, dir string) (name string, lines [][]byte, prev sum, n uint64) {
	t.Helper()
	list := mustList(t, dir)
	name = segmentName(list[len(list)-1])
	lines = bytes.SplitAfter(readAll(t, dir, name), []byte("\n"))
	lines = lines[:len(lines)-1]
	var e entry
	if !e.parse(bytes.TrimSuffix(lines[len(lines)-1], []byte("\n"))) {
		t.Fatal("the log does not end with a line")
	}
	return name, lines, e.stated, e.n
}

// forgeHead replaces the head file by one that another key signed.
func forgeHead(t testing.TB, cfg Config, change func(*Head)) {
	t.Helper()
	slots, err := readHeads(Disk{}, cfg.HeadFile, keyring{KeyID(testPublic()): testPublic()})
	if err != nil {
		t.Fatal(err)
	}
	h := slots[newest(slots)].head
	change(&h)
	s, err := newSigner(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if h.Sig, err = s.sign(h.payload()); err != nil {
		t.Fatal(err)
	}
	w, err := openHeadFile(Disk{}, cfg.HeadFile, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.file.Close() }()
	for range slotCount {
		if err := w.write(h); err != nil {
			t.Fatal(err)
		}
	}
}
