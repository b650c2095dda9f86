package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// TestMain makes the test binary the sallyport binary as well: testscript puts it into PATH under that name,
// and every server and client in these tests is a process of its own that was started by it.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name != "sallyport" && !strings.HasPrefix(name, dockerPrefix) {
		flag.Parse()
		if err := flag.Set("test.parallel", "6"); err != nil { // most tests wait most of the time
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){
		"sallyport":                   main,
		"docker-credential-sallyport": main,
	})
}

// TestScripts runs the manual: one script for each subcommand.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands(t),
		Setup: func(e *testscript.Env) error {
			e.Values[issuersKey{}] = map[string]*scriptIssuer{}
			e.Setenv("SALLYPORT_SERVER", "")
			e.Setenv("SALLYPORT_CA_FILE", "")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
	})
}

// A command that was added and has no example, or that no script of the manual runs, is not finished.
func TestEveryCommandHasAnExampleAndAScript(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var manual strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		manual.Write(b)
	}
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasSubCommands() {
			return // it only says which there are
		}
		seen++
		if !strings.HasPrefix(c.Example, c.CommandPath()) {
			t.Errorf("the help of %s has no example of it", c.CommandPath())
		}
		if !strings.Contains(manual.String(), " "+c.CommandPath()+" ") && !strings.Contains(manual.String(), " "+c.CommandPath()+"\n") {
			t.Errorf("no script in testdata/script runs %s", c.CommandPath())
		}
	}
	walk(newRoot())
	if seen < 15 {
		t.Errorf("%d commands were seen; the test looks at nothing", seen)
	}
}
