package architecture

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each archive in testdata is a program that tries to walk around a door: to name a workload that nobody
// verified, or to order a credential that nobody granted. The compiler must refuse it, for the reason that
// its first line states. One that is honest must compile, so that the others fail for no other reason.
func TestWalkingAroundTheDoorsDoesNotCompile(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*.go.txt")
	if err != nil || len(cases) < 5 {
		t.Fatalf("found %d programs in testdata (%v), want at least 5", len(cases), err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".go.txt"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(src), "\n")
			want, ok := strings.CutPrefix(first, "// want: ")
			if !ok {
				t.Fatalf("%s does not begin with // want:", file)
			}
			dir, err := os.MkdirTemp("testdata", "program-") // where go list ./... does not look while it comes and goes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			if err := os.WriteFile(filepath.Join(dir, "main.go"), src, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("go", "build", "-o", os.DevNull, "./"+dir).CombinedOutput()
			if want == "compiles" {
				if err != nil {
					t.Fatalf("the honest program does not compile: %s", out)
				}
				return
			}
			if err == nil {
				t.Fatalf("the program compiles; want the compiler to say %q", want)
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("the compiler said:\n%s\nwant %q", out, want)
			}
		})
	}
}
