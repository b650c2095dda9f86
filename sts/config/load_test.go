package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/sallyport-sts/sallyport/sts/config"
)

func TestBadConfigurationsAreRefusedWithPlaceReasonAndFix(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "bad", "*.txtar"))
	if err != nil || len(paths) < 60 {
		t.Fatalf("looking for archives: got %d of them, error %v; want at least 60", len(paths), err)
	}
	base, kinds := archive(t, "base.txtar"), testKinds(t)
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			story, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var want string
			files := &txtar.Archive{}
			for _, f := range story.Files {
				if f.Name == "error.txt" {
					want = string(f.Data)
					continue
				}
				files.Files = append(files.Files, f)
			}
			got := text(problems(t, write(t, base, files), kinds))
			if *update {
				files.Comment = story.Comment
				files.Files = append(files.Files, txtar.File{Name: "error.txt", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(files), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got == "" {
				t.Fatal("the configuration loaded")
			}
			if diff := cmp.Diff(want, got); diff != "" && !*update {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			for _, secret := range []string{"hunter2", strings.TrimSpace(kek)} {
				if strings.Contains(got, secret) {
					t.Errorf("the problems repeat a secret")
				}
			}
		})
	}
}

func TestBaseLoads(t *testing.T) {
	set := mustLoad(t, write(t, archive(t, "base.txtar")), testKinds(t))
	if got := len(set.Issuers); got != 2 {
		t.Errorf("issuers: got %d, want 2", got)
	}
}

func TestProblemsAreOneLineEach(t *testing.T) {
	all := config.Problems{
		{File: "a.yaml", Line: 3, Column: 5, Message: "wrong"},
		{File: "b", Message: "missing"},
	}
	if got, want := all.Error(), "a.yaml:3:5: wrong\nb: missing"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSetIsNeverAMixture(t *testing.T) {
	base := archive(t, "base.txtar")
	mixed, whole := write(t, base), write(t, base)
	put(t, mixed, "policy/orders.yaml", "rules: [] # of the next set\n")
	readings := []string{mixed, whole, whole, mixed}
	next := func() string {
		dir := readings[0]
		readings = readings[1:]
		return dir
	}
	if got := config.FingerprintStable(next); got != config.Fingerprint(whole) {
		t.Errorf("readings of a mixture, then twice of a whole set: got %s, want the whole set, %s", got, config.Fingerprint(whole))
	}
	turn := 0
	if got := config.FingerprintStable(func() string { turn++; return []string{mixed, whole}[turn%2] }); !strings.Contains(got, "changed all the time") {
		t.Errorf("a set that never rests: got %q, want a problem", got)
	}
}

// What is in force is kept, and not the files it was read from: a thousand rules as nodes of YAML are four MiB, which a
// pointer into the loader, or a function that knows it, would hold for as long as the service runs.
func TestLoadedSetDoesNotKeepTheFiles(t *testing.T) {
	const n = 3000
	dir := write(t, archive(t, "base.txtar"))
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {name: r%d, workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: n%d}}, targets: [orders], scopes: [read]}\n", i, i)
	}
	put(t, dir, "policy/many.yaml", b.String())
	if _, err := config.Load(dir, testKinds(t)); err != nil { // what is made once is made
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	set, err := config.Load(dir, testKinds(t))
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil || set.Hash == "" {
		t.Fatal(err)
	}
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 3000 {
		t.Errorf("%d bytes a rule are kept, want at most 3000", each)
	} else {
		t.Logf("%d bytes a rule", each)
	}
	runtime.KeepAlive(set)
}
