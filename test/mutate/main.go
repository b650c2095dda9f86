// Command mutate breaks one line that protects something, runs the tests that must notice, and puts nothing back,
// because it changed nothing: the broken file is only an overlay of the build (go help build, -overlay). The table
// mutations.txt says what to break. A mutation survives when every test passes; then a test is missing.
//
// Exit code 1: a mutation survived, or its old text does not stand exactly once in its file, so that the table cannot
// rot; 2: wrong usage.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

//go:embed mutations.txt
var table string

const testLimit = 5 * time.Minute // for one mutation, build included

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.SetOutput(errs)
	only := flags.String("only", "", "regular `expression`: only mutations whose guard matches")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	wanted, err := regexp.Compile(*only)
	if err != nil || flags.NArg() > 0 {
		fmt.Fprintf(errs, "usage: mutate [-only EXPRESSION] in the root of the module: %v\n", err)
		return 2
	}
	mutations, err := parse(table)
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	killed, bad := 0, 0
	for _, m := range mutations {
		if !wanted.MatchString(m.guard) {
			continue
		}
		by, err := m.try()
		switch {
		case err != nil:
			bad++
			fmt.Fprintf(out, "BROKEN    %-52s %s: %v\n", m.guard, m.file, err)
		case by == "":
			bad++
			fmt.Fprintf(out, "SURVIVED  %-52s %s\n", m.guard, m.file)
		default:
			killed++
			fmt.Fprintf(out, "killed    %-52s %s\n", m.guard, by)
		}
	}
	fmt.Fprintf(out, "%d killed, %d survived or broken\n", killed, bad)
	if bad > 0 || killed == 0 {
		return 1
	}
	return 0
}

// mutation is one line of the code made wrong.
type mutation struct {
	guard    string // what it protects
	file     string // from the root of the module
	function string // the only one that is looked at, "" for the whole file
	old, new string // exact text, found once
	packages []string
}

// parse reads the table: "guard:", "file:" and "tests:" lines, "in:" with the name of a function when the old text
// stands elsewhere in the file too, then the old text in lines that begin with "-" and the new text in lines that
// begin with "+". Blank lines divide; lines that begin with "#" say something.
func parse(text string) ([]mutation, error) {
	var out []mutation
	for block := range strings.SplitSeq(text, "\n\n") {
		var m mutation
		var before, after []string
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			switch key, value, _ := strings.Cut(line, ": "); {
			case line == "" || line[0] == '#':
			case line[0] == '-':
				before = append(before, line[1:])
			case line[0] == '+':
				after = append(after, line[1:])
			case key == "guard":
				m.guard = value
			case key == "file":
				m.file = value
			case key == "in":
				m.function = value
			case key == "tests":
				m.packages = strings.Fields(value)
			default:
				return nil, fmt.Errorf("mutations.txt: %q is no line of the table", line)
			}
		}
		if m.guard == "" && len(before) == 0 {
			continue
		}
		m.old, m.new = strings.Join(before, "\n"), strings.Join(after, "\n")
		if m.guard == "" || m.file == "" || m.old == "" || m.old == m.new || len(m.packages) == 0 {
			return nil, fmt.Errorf("mutations.txt: the mutation %q of %q is not complete", m.guard, m.file)
		}
		out = append(out, m)
	}
	return out, nil
}

// mutant returns the file with the mutation in it.
func (m mutation) mutant(source string) (string, error) {
	begin, end := 0, len(source)
	if m.function != "" {
		found := regexp.MustCompile(`(?ms)^func (\([^)]*\) )?`+regexp.QuoteMeta(m.function)+`[\[(].*?^}`).FindAllStringIndex(source, -1)
		if len(found) != 1 {
			return "", fmt.Errorf("the function %s stands there %d times, want once; `in:` names it", m.function, len(found))
		}
		begin, end = found[0][0], found[0][1]
	}
	where := source[begin:end]
	if n := strings.Count(where, m.old); n != 1 {
		return "", fmt.Errorf("the old text stands there %d times, want once%s", n, closest(where, m.old))
	}
	return source[:begin] + strings.Replace(where, m.old, m.new, 1) + source[end:], nil
}

// closest says which line of source shares the most words with the first line of old, for whoever mends the table.
func closest(source, old string) string {
	words := regexp.MustCompile(`\w+`)
	first, _, _ := strings.Cut(old, "\n")
	wanted := map[string]bool{}
	for _, w := range words.FindAllString(first, -1) {
		wanted[w] = true
	}
	best, most := "", 0
	for line := range strings.Lines(source) {
		shared := map[string]bool{}
		for _, w := range words.FindAllString(line, -1) {
			shared[w] = wanted[w]
		}
		n := 0
		for _, yes := range shared {
			if yes {
				n++
			}
		}
		if n > most {
			best, most = line, n
		}
	}
	return fmt.Sprintf("\n  wanted  %s\n  closest %s", first, strings.TrimSuffix(best, "\n"))
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// try runs the tests on the mutant and returns the first that failed, "" when none did.
func (m mutation) try() (string, error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	changed, err := m.mutant(string(source))
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	file, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: mutant}})
	if err == nil {
		err = errors.Join(os.WriteFile(mutant, []byte(changed), 0o600), os.WriteFile(overlay, replace, 0o600))
	}
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-overlay", overlay, "-vet=off", "-failfast", "-count=1"}, m.packages...)...)
	cmd.WaitDelay = 10 * time.Second
	said, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", nil
	case bytes.Contains(said, []byte("[build failed]")) || bytes.Contains(said, []byte("[setup failed]")):
		return "", fmt.Errorf("the mutant does not compile:\n%s", said)
	}
	if found := failed.FindSubmatch(said); found != nil {
		return string(found[1]), nil
	}
	return "", fmt.Errorf("no test failed, yet: %w\n%s", err, said)
}
