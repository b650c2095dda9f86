package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/config"
)

// Times of the tests: a change is told within soon; silence is believed after silence.
const (
	soon    = 60 * time.Second
	silence = time.Second
	// quietTime is the quiet time of Watch after which a series of changes is over.
	quietTime = 200 * time.Millisecond
)

// watched runs Watch on dir until the test ends.
func watched(t *testing.T, dir string) <-chan struct{} {
	t.Helper()
	changes, done := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	seen := config.Fingerprint(dir) // of the goroutine of Watch
	go func() {
		done <- config.Watch(ctx, dir, func() string { return seen }, func() {
			seen = config.Fingerprint(dir)
			changes <- struct{}{}
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Watch: got %v after the context was done, want nil", err)
			}
		case <-time.After(soon):
			t.Error("Watch did not end with its context")
		}
	})
	awaitWatch(t, dir, changes)
	return changes
}

// awaitWatch returns once Watch is seen to watch: it changes a file until that is told, puts it back, and waits until
// nothing more is told.
func awaitWatch(t *testing.T, dir string, changes <-chan struct{}) {
	t.Helper()
	file := filepath.Join(dir, "sallyport.yaml")
	original, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(soon)
	for seen, i := false, 0; !seen; i++ {
		put(t, dir, "sallyport.yaml", fmt.Sprintf("%s# probe %d\n", original, i))
		select {
		case <-changes:
			seen = true
		case <-time.After(silence):
		}
		if time.Now().After(deadline) {
			t.Fatal("Watch does not begin to watch")
		}
	}
	put(t, dir, "sallyport.yaml", string(original))
	expect(t, changes, "the file as it was")
	for {
		select {
		case <-changes:
		case <-time.After(silence):
			return
		}
	}
}

func expect(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(soon):
		t.Fatalf("%s was not noticed", what)
	}
}

func expectNone(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changes:
		t.Fatalf("%s was taken for a change", what)
	case <-time.After(silence):
	}
}

func TestWatchTellsOfChangedAddedAndRemovedFiles(t *testing.T) {
	t.Parallel()
	dir := write(t, archive(t, "base.txtar"))
	changes := watched(t, dir)
	put(t, dir, "policy/orders.yaml", "rules: []\n")
	expect(t, changes, "a changed file")
	begin := time.Now()
	for i := range 20 { // an editor, a checkout: many steps, one change
		put(t, dir, "policy/more.yaml", fmt.Sprintf("rules: [] # %d\n", i))
		put(t, dir, "targets/more.yaml", fmt.Sprintf("target: more # %d\n", i))
	}
	// One change, and one more for every time that this goroutine was kept from writing for as long as it takes to
	// believe that the series is over.
	most := 1 + int(time.Since(begin)/quietTime)
	expect(t, changes, "an added file")
	for told := 1; ; told++ {
		select {
		case <-changes:
			if told >= most {
				t.Fatalf("one series of writes in %s was told %d times, want at most %d", time.Since(begin), told+1, most)
			}
			continue
		case <-time.After(silence):
		}
		break
	}
	if err := os.Remove(filepath.Join(dir, "targets", "more.yaml")); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, "a removed file")
	if err := os.RemoveAll(filepath.Join(dir, "trust")); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, "a removed folder")
	put(t, dir, "trust/prod.yaml", "trust_domain: x\n")
	expect(t, changes, "a folder that is there again")
	put(t, dir, "trust/prod.yaml", "trust_domain: y\n")
	expect(t, changes, "a change in the new folder")
}

// data_dir and the audit log may lie in the directory and change all the time.
func TestWatchIsSilentAboutEverythingElse(t *testing.T) {
	t.Parallel()
	dir := write(t, archive(t, "base.txtar"))
	put(t, dir, "data/audit/segment", "x\n")
	changes := watched(t, dir)
	put(t, dir, "data/audit/segment", "y\n")
	put(t, dir, "policy/.orders.yaml.swp", "x\n")
	put(t, dir, "notes.txt", "x\n")
	put(t, dir, "sallyport.yaml", string(archive(t, "base.txtar").Files[0].Data)) // the same bytes again
	expectNone(t, changes, "a write beside the configuration")
}

// A log that is written beside the configuration must not keep a change from being noticed.
func TestWatchTellsOfChangesAmongEndlessWrites(t *testing.T) {
	t.Parallel()
	dir := write(t, archive(t, "base.txtar"))
	changes := watched(t, dir)
	put(t, dir, "policy/orders.yaml", "rules: []\n")
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		put(t, dir, "log", time.Now().String())
		select {
		case <-changes:
			return
		default:
		}
	}
	t.Error("a changed file was not noticed")
}

// Kubernetes replaces a mounted ConfigMap by renaming the link ..data; no file of it is ever written.
func TestWatchTellsOfSwappedConfigMap(t *testing.T) {
	t.Parallel()
	base := archive(t, "base.txtar")
	dir := write(t, base)
	folder := filepath.Join(dir, "policy")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	put(t, folder, "..1/orders.yaml", "rules: []\n")
	link(t, "..1", filepath.Join(folder, "..data"))
	link(t, "..data/orders.yaml", filepath.Join(folder, "orders.yaml"))
	changes := watched(t, dir)
	for _, version := range []string{"..2", "..3"} {
		put(t, folder, version+"/orders.yaml", "rules: [] # "+version+"\n")
		swap(t, version, filepath.Join(folder, "..data"))
		expect(t, changes, "version "+version)
	}
}

// git-sync swaps the directory itself.
func TestWatchTellsOfSwappedDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, version := range []string{"1", "2", "3"} {
		for _, f := range archive(t, "base.txtar").Files {
			put(t, filepath.Join(root, version), f.Name, string(f.Data)+"# "+version+"\n")
		}
	}
	current := filepath.Join(root, "current")
	link(t, "1", current)
	changes := watched(t, current)
	for _, version := range []string{"2", "3"} {
		swap(t, version, current)
		expect(t, changes, "version "+version)
	}
	for drained := false; !drained; { // a swap in the middle of a reading may be told twice
		select {
		case <-changes:
		case <-time.After(silence):
			drained = true
		}
	}
	put(t, filepath.Join(root, "3"), "policy/orders.yaml", "rules: []\n")
	expect(t, changes, "a change inside the newest version")
}

// swap makes from a link to another place in one step.
func swap(t *testing.T, to, from string) {
	t.Helper()
	link(t, to, from+".new")
	if err := os.Rename(from+".new", from); err != nil {
		t.Fatal(err)
	}
}

func TestWatchOfMissingDirectoryWaitsForIt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := config.Watch(ctx, filepath.Join(t.TempDir(), "none"), func() string { return "" }, func() {}); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// What counts is what was loaded, whenever that was: not what Watch saw first, nor what it saw last.
func TestWatchComparesWithWhatWasLoaded(t *testing.T) {
	t.Parallel()
	dir := write(t, archive(t, "base.txtar"))
	old := mustLoad(t, dir, testKinds(t)).Hash
	put(t, dir, "policy/orders.yaml", "rules: [] # after it was loaded, before it was watched\n")
	next := config.Fingerprint(dir)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	calls, loaded := 0, old
	err := config.Watch(ctx, dir, func() string { return loaded }, func() {
		switch calls++; calls {
		case 1: // whoever loads now finds another set, a bad one, and the one before is back at once
			loaded = ""
			put(t, dir, "policy/orders.yaml", "nonsense\n")
			put(t, dir, "policy/orders.yaml", "rules: [] # after it was loaded, before it was watched\n")
		default:
			loaded = next
			cancel()
		}
	})
	if err != nil || calls != 2 {
		t.Errorf("changed was called %d times, error %v; want 2: for what changed before the call, and for what came while it ran", calls, err)
	}
}
