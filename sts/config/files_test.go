package config_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFilesThatAreNotTextAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"not UTF-8":         {"rules:\n  - name: caf\xe9\n", "policy/orders.yaml:2:14: a byte that is not UTF-8"},
		"UTF-16":            {"\xff\xfer\x00u\x00", "policy/orders.yaml:1:1: a byte that is not UTF-8"},
		"control character": {"rules:\n  - name: \x1b[2J\n", "policy/orders.yaml:2:11: the control character U+001B"},
		"NUL":               {"rules:\x00\n", "policy/orders.yaml:1:7: the control character U+0000"},
		"too large":         {"# " + strings.Repeat("x", 1<<20) + "\n", "policy/orders.yaml: the file is larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, archive(t, "base.txtar"))
			put(t, dir, "policy/orders.yaml", c.data)
			if got := text(problems(t, dir, testKinds(t))); !strings.HasPrefix(got, c.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("got\n%swant one line that begins with\n%s", got, c.want)
			}
		})
	}
}

func TestByteOrderMarkAndWindowsLineEndsAreRead(t *testing.T) {
	base := archive(t, "base.txtar")
	dir := write(t, base)
	for _, f := range base.Files {
		put(t, dir, f.Name, "\xef\xbb\xbf"+strings.ReplaceAll(string(f.Data), "\n", "\r\n"))
	}
	mustLoad(t, dir, testKinds(t))
}

// Opening a pipe would wait for a writer, at reload for ever.
func TestPipeIsRefusedWithoutOpeningIt(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	if err := syscall.Mkfifo(filepath.Join(dir, "policy", "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := text(problems(t, dir, testKinds(t))), "policy/pipe.yaml: this is not a regular file\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMissingDirectoryIsOneProblem(t *testing.T) {
	got := text(problems(t, filepath.Join(t.TempDir(), "none"), testKinds(t)))
	if !strings.HasPrefix(got, "sallyport.yaml: the configuration directory cannot be read") {
		t.Errorf("got %q", got)
	}
}

func TestTooManyRulesAreRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	for range 10_001 {
		b.WriteString("- {name: r, workloads: {trust_domain: prod.example}, effect: deny}\n")
	}
	dir := write(t, archive(t, "base.txtar"))
	put(t, dir, "policy/orders.yaml", b.String())
	if got, want := text(problems(t, dir, testKinds(t))), "policy/orders.yaml:10002:3: more than 10000 rules"; !strings.Contains(got, want) {
		t.Errorf("got\n%.300s\nwant a line that begins with %s", got, want)
	}
}

func TestTooManyFilesAreRefused(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	for i := range 1001 {
		put(t, dir, filepath.Join("policy", "f"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i/26)+".yaml"), "rules: []\n")
	}
	if got, want := text(problems(t, dir, testKinds(t))), "more than 1000 files in policy/"; !strings.Contains(got, want) {
		t.Errorf("got\n%.300s\nwant a line with %s", got, want)
	}
}

// Kubernetes mounts a ConfigMap as links to links; git-sync makes the directory itself one.
func TestMountedLinksAreFollowed(t *testing.T) {
	base := archive(t, "base.txtar")
	dir := write(t, base)
	mounted := filepath.Join(t.TempDir(), "mounted")
	for _, folder := range []string{"trust", "targets", "policy"} {
		for _, f := range base.Files {
			if filepath.Dir(f.Name) != folder {
				continue
			}
			put(t, mounted, filepath.Join(folder, "..2026_11_23", filepath.Base(f.Name)), string(f.Data))
			link(t, filepath.Join("..data", filepath.Base(f.Name)), filepath.Join(mounted, f.Name))
		}
		link(t, "..2026_11_23", filepath.Join(mounted, folder, "..data"))
	}
	link(t, filepath.Join(dir, "sallyport.yaml"), filepath.Join(mounted, "sallyport.yaml"))
	link(t, filepath.Join(dir, "secrets"), filepath.Join(mounted, "secrets"))
	current := filepath.Join(t.TempDir(), "current")
	link(t, mounted, current)
	if a, b := mustLoad(t, dir, testKinds(t)), mustLoad(t, current, testKinds(t)); a.Hash != b.Hash {
		t.Errorf("hash: got %s through links, want %s", b.Hash, a.Hash)
	}
}

func link(t testing.TB, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
}

func TestHashCoversNamesAndBytesOfConfigurationOnly(t *testing.T) {
	kinds, base := testKinds(t), archive(t, "base.txtar")
	dir := write(t, base)
	before := mustLoad(t, dir, kinds).Hash
	if again := mustLoad(t, write(t, base), kinds).Hash; again != before {
		t.Errorf("the same files in another directory: got %s, want %s", again, before)
	}
	put(t, dir, "policy/.hidden.yaml", "nonsense")
	put(t, dir, "policy/orders.yaml~", "nonsense")
	put(t, dir, "data/state", "changed")
	put(t, dir, "notes.txt", "changed")
	if got := mustLoad(t, dir, kinds).Hash; got != before {
		t.Error("the hash covers files that are not configuration")
	}
	if err := os.Rename(filepath.Join(dir, "targets", "gateway.yaml"), filepath.Join(dir, "targets", "getaway.yaml")); err != nil {
		t.Fatal(err)
	}
	renamed := mustLoad(t, dir, kinds).Hash
	if renamed == before {
		t.Error("the hash does not cover names: they decide the order of rules")
	}
	put(t, dir, "targets/getaway.yaml", "target: gateway\nbroker: jwt # comment\n")
	if got := mustLoad(t, dir, kinds).Hash; got == renamed {
		t.Error("the hash does not cover every byte")
	}
}

// check runs on a machine that must not change by it.
func TestLoadWritesNothing(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	before := tree(t, dir)
	mustLoad(t, dir, testKinds(t))
	if after := tree(t, dir); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

func tree(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			out.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A generator gone wild must not keep a server busy at reload: the library's own checks are quadratic.
func TestFloodsAreRefusedBeforeTheyAreChecked(t *testing.T) {
	keys := strings.Builder{}
	for i := range 3_000 {
		keys.WriteString("k" + strconv.Itoa(i) + ": x, ")
	}
	for name, c := range map[string]struct{ data, want string }{
		"keys":    {"rules: [{" + keys.String() + "}]\n", "policy/orders.yaml:1:9: more than 1000 keys in one mapping; nothing here needs that\n"},
		"items":   {"rules: [" + strings.Repeat("{}, ", 20_001) + "]\n", "policy/orders.yaml:1:8: more than 20000 entries in one list; nothing here needs that\n"},
		"nesting": {"rules: " + strings.Repeat("[", 10_000), "policy/orders.yaml:1:40: nested more than 32 deep; nothing here needs that\n"},
		"aliases": {"a: &a x\nrules: [" + strings.Repeat("*a,", 20_001) + "]\n", "policy/orders.yaml:1:4: the anchor &a: aliases are not followed, so it does nothing; remove it and every other anchor\npolicy/orders.yaml:2:8: more than 20000 entries in one list; nothing here needs that\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, archive(t, "base.txtar"))
			put(t, dir, "policy/orders.yaml", c.data)
			if got := text(problems(t, dir, testKinds(t))); got != c.want {
				t.Errorf("got\n%.400s\nwant\n%s", got, c.want)
			}
		})
	}
}
