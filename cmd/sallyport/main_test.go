package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary the sallyport binary as well: testscript puts it into PATH under that name,
// and every server and client in these tests is a process of its own that was started by it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "sallyport" {
		flag.Parse()
		if err := flag.Set("test.parallel", "6"); err != nil { // most tests wait most of the time
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){
		"sallyport": func() { os.Exit(run(os.Args[1:])) },
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
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
	})
}
