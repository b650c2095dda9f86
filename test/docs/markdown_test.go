package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// block is one fenced code block.
type block struct {
	file string
	line int
	lang string
	text string
}

// documents are the pages that the tests read.
func documents(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "deploy/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	if len(out) < 6 {
		t.Fatalf("found %d pages, want the documentation", len(out))
	}
	return out
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func blocks(t *testing.T, file string) []block {
	t.Helper()
	var out []block
	var open *block
	for i, line := range strings.Split(read(t, file), "\n") {
		fence, lang := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case !lang && open != nil:
			open.text += line + "\n"
		case lang && open == nil:
			open = &block{file: file, line: i + 1, lang: fence}
		case lang:
			out = append(out, *open)
			open = nil
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block is never closed", file, open.line)
	}
	return out
}

func TestEveryBlockIsOfAKindThatATestReads(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			switch b.lang {
			case "sh", "yaml", "console", "text", "go":
			case "vault": // test/vault does what they say to a real one
			default:
				t.Errorf("%s:%d: no test reads blocks of kind %q; use sh, yaml, go, console or text", b.file, b.line, b.lang)
			}
		}
	}
}

func TestConsoleBlocksNameMakeTargetsThatExist(t *testing.T) {
	t.Parallel()
	makefile := read(t, filepath.Join(root, "Makefile"))
	seen := 0
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			if b.lang != "console" {
				continue
			}
			for line := range strings.Lines(b.text) {
				target, ok := strings.CutPrefix(strings.TrimSpace(line), "$ make ")
				if strings.TrimSpace(line) == `$ export PATH="$PWD/bin:$PATH"` {
					continue // what the test of the sh blocks does in its own way
				}
				if !ok {
					t.Errorf("%s:%d: %q is not a make target; use an sh block, which is run", b.file, b.line, line)
				} else if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).MatchString(makefile) {
					t.Errorf("%s:%d: the Makefile has no target %s", b.file, b.line, target)
				}
				seen++
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d console lines were seen, want the two commands of the README", seen)
	}
}

// What is shown of Go stands in an example, as it is shown: the compiler reads it, and the example runs.
func TestGoInTheDocumentationStandsInAnExample(t *testing.T) {
	t.Parallel()
	var examples strings.Builder
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "example_test.go" {
			examples.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			if b.lang != "go" {
				continue
			}
			seen++
			if !strings.Contains(examples.String(), "\n"+b.text) {
				t.Errorf("%s:%d: the block stands in no example_test.go", b.file, b.line)
			}
		}
	}
	if seen == 0 {
		t.Error("no Go was seen; the test looks at nothing")
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, file := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
	if seen < 5 {
		t.Errorf("%d links were seen; the test looks at nothing", seen)
	}
}

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]+)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z][A-Za-z0-9]+)\(`)
)

func TestTestsThatAreNamedExist(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(read(t, path), -1) {
			have[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range documents(t) {
		for _, m := range testName.FindAllStringSubmatch(read(t, file), -1) {
			seen++
			if !have[m[1]] {
				t.Errorf("%s names %s, which does not exist", file, m[1])
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d tests are named; SECURITY.md says what enforces each line", seen)
	}
}
