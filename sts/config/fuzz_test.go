package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/sts/config"
)

// FuzzLoad replaces one file of a good configuration with anything. Load must neither panic nor accept what
// an editor's schema refuses, and each problem must be one readable line with a place.
func FuzzLoad(f *testing.F) {
	base := archive(f, "base.txtar")
	paths, err := filepath.Glob(filepath.Join("testdata", "bad", "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range append(paths, filepath.Join("testdata", "base.txtar")) {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if i := fileIndex(base, file.Name); i >= 0 {
				f.Add(uint8(i), file.Data)
			}
		}
	}
	l := newLab(f, base)
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		l.try(t, t, base.Files[int(which)%len(base.Files)], data)
	})
}

// Small edits reach deeper than random bytes: lines and words that are moved, doubled, removed, replaced.
func TestLoadSurvivesEditedFiles(t *testing.T) {
	base := archive(t, "base.txtar")
	l := newLab(t, base)
	words := []string{
		"", "~", "[]", "{}", "*", "&a", "*a", "!!str", "0", "010", "-1", "1e9", "true", "off", "99999999999999999999", "\t", "#", "---", "...",
		"{a: b}", "[a, b]", `""`, `"`, "'", "|", ">", "<<", "? x", "- ", ": ", "\x00", "\xff", "\u202e", "2026-01-02", "1d1d", "-5m", "1h1h1h", "KiB",
	}
	rapid.Check(t, func(r *rapid.T) {
		f := base.Files[rapid.IntRange(0, len(base.Files)-1).Draw(r, "file")]
		data := string(f.Data)
		for range rapid.IntRange(1, 4).Draw(r, "edits") {
			from := rapid.IntRange(0, len(data)).Draw(r, "from")
			to := min(len(data), from+rapid.IntRange(0, 12).Draw(r, "length"))
			switch rapid.IntRange(0, 3).Draw(r, "edit") {
			case 0:
				data = data[:from] + data[to:]
			case 1:
				data = data[:from] + data[from:to] + data[from:]
			case 2:
				data = data[:from] + rapid.SampledFrom(words).Draw(r, "word") + data[to:]
			default:
				lines := strings.SplitAfter(data, "\n")
				i := rapid.IntRange(0, len(lines)-1).Draw(r, "line")
				data = strings.Join(append(append([]string{}, lines[i:]...), lines[:i]...), "")
			}
		}
		l.try(t, r, f, []byte(data))
	})
}

func fileIndex(a *txtar.Archive, name string) int {
	for i, f := range a.Files {
		if f.Name == name {
			return i
		}
	}
	return -1
}

// lab is a good configuration in which one file at a time is replaced.
type lab struct {
	dir     string
	kinds   config.Kinds
	schemas schemas
}

func newLab(tb testing.TB, base *txtar.Archive) *lab {
	tb.Helper()
	kinds := testKinds(tb)
	return &lab{write(tb, base), kinds, compileSchemas(tb, kinds)}
}

// reporter is *testing.T or *rapid.T.
type reporter interface {
	Errorf(format string, args ...any)
}

func (l *lab) try(tb testing.TB, r reporter, f txtar.File, data []byte) {
	put(tb, l.dir, f.Name, string(data))
	defer put(tb, l.dir, f.Name, string(f.Data))
	all := problems(tb, l.dir, l.kinds)
	if len(all) == 0 {
		if err := l.schemas.check(tb, f.Name, data); err != nil {
			r.Errorf("%s loads and does not pass its schema: %v\n%q", f.Name, err, data)
		}
		return
	}
	for _, p := range all {
		if line := p.String(); p.File == "" || p.Message == "" || p.Line < 0 || p.Line > 0 && p.Column < 1 ||
			strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
			r.Errorf("%s: problem %+q is not one line with a place\n%q", f.Name, line, data)
		}
	}
}
