package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

var mac = []byte("0123456789abcdef0123456789abcdef")

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() (storetest.Opened, error) {
		dir := t.TempDir()
		return func() (storetest.Opened, error) {
			db, err := embedded.Open(dir)
			if err != nil {
				return storetest.Opened{}, err
			}
			r, err := db.Revocations(mac)
			return storetest.Opened{Revocations: r, Close: db.Close}, err
		}
	})
}

// Changing an entry, moving it or taking it out would revive what it killed.
func TestStoreWrittenWithoutTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spoil func(b *bolt.Bucket, k, v []byte) error
	}{
		{"a changed entry", func(b *bolt.Bucket, k, v []byte) error {
			return b.Put(k, []byte(strings.Replace(string(v), "lease-a", "lease-b", 1)))
		}},
		{"a moved entry", func(b *bolt.Bucket, k, v []byte) error {
			return errors.Join(b.Delete(k), b.Put([]byte{0, 0, 0, 0, 0, 0, 0, 9}, v))
		}},
		{"an entry too short for its MAC", func(b *bolt.Bucket, k, _ []byte) error { return b.Put(k, []byte("{}")) }},
		{"a removed entry", func(b *bolt.Bucket, k, _ []byte) error { return b.Delete(k) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			appendOne(t, dir)
			appendOne(t, dir)
			raw, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = raw.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte("revocations"))
				k, v := b.Cursor().First()
				return tc.spoil(b, bytes.Clone(k), bytes.Clone(v))
			})
			if err := errors.Join(err, raw.Close()); err != nil {
				t.Fatal(err)
			}
			db, err := embedded.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			r, err := db.Revocations(mac)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := revocation.New(context.Background(), r, mac); !errors.Is(err, embedded.ErrTampered) {
				t.Errorf("loading says %v, want ErrTampered", err)
			}
		})
	}
}

func TestStoreKnowsWhetherItWasUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.Used() {
		t.Error("a new store says that it was used")
	}
	if _, err := db.Revocations(mac); err != nil {
		t.Fatal(err)
	}
	if !db.Used() {
		t.Error("a store with a log says that it was never used")
	}
}

func appendOne(t *testing.T, dir string) {
	t.Helper()
	db, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Revocations(mac)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Append(context.Background(), revocation.Entry{Lease: "lease-a", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if second, err := embedded.Open(dir); err == nil {
		_ = second.Close()
		t.Error("two opened one store")
	} else if !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("the error does not say what to do: %v", err)
	}
}

func TestFilesAreForTheServiceAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	appendOne(t, dir)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 2 {
		t.Fatalf("found %d files (%v), want the store and its ballast", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
		}
	}
}

// Every minute the store is asked to drop what is past its end. While nothing can be, it is not read: a million entries,
// each with its MAC, would be seconds of CPU and 200 MiB of pages a time.
func TestPruningReadsNothingWhileNothingIsDue(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Unix(1700000000, 0)
	open := func() (*embedded.DB, *embedded.Revocations) {
		db, err := embedded.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		r, err := db.Revocations(mac)
		if err != nil {
			t.Fatal(err)
		}
		return db, r
	}
	add := func(r *embedded.Revocations, until time.Time) {
		if _, err := r.Append(context.Background(), revocation.Entry{Lease: "a", Until: until}); err != nil {
			t.Fatal(err)
		}
	}
	db, r := open()
	prune := func(at time.Time, dropped int, reads bool) {
		t.Helper()
		before := db.Reads()
		n, err := r.Prune(context.Background(), at)
		if read := db.Reads() > before; err != nil || n != dropped || read != reads {
			t.Errorf("pruning %s later: dropped %d (%v), read the store: %v; want %d, %v", at.Sub(now), n, err, read, dropped, reads)
		}
	}
	prune(now, 0, true) // nothing is known yet
	add(r, now.Add(time.Hour))
	add(r, now.Add(time.Minute))
	prune(now, 0, false)
	prune(now.Add(time.Minute-time.Nanosecond), 0, false)
	prune(now.Add(time.Minute+time.Nanosecond), 1, true)
	prune(now.Add(2*time.Minute), 0, false)
	if err := r.AppendAll(context.Background(), []revocation.Entry{{Lease: "b", Until: now.Add(5 * time.Minute)}, {Lease: "c", Until: now.Add(3 * time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	prune(now.Add(2*time.Minute), 0, false)
	prune(now.Add(4*time.Minute), 1, true)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, r = open()
	if _, err := r.Load(context.Background(), func(revocation.Position, revocation.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	prune(now.Add(5*time.Minute-time.Second), 0, false)
	prune(now.Add(6*time.Minute), 1, true)
	prune(now.Add(59*time.Minute), 0, false)
	prune(now.Add(61*time.Minute), 1, true)
}

// What was read of the store does not stay in this process's memory, and many entries are dropped in small parts.
func TestStoreThatWasReadIsNotResident(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Unix(1700000000, 0)
	db, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.Revocations(mac)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2*embedded.DropAtOnce + 1
	entries := make([]revocation.Entry, n)
	for i := range entries {
		entries[i] = revocation.Entry{Lease: fmt.Sprint("lease-", i), Decision: "decision", Until: now}
	}
	if err := r.AppendAll(context.Background(), entries); err != nil {
		t.Fatal(err)
	}
	read := 0
	if _, err := r.Load(context.Background(), func(revocation.Position, revocation.Entry) error { read++; return nil }); err != nil || read != n {
		t.Fatalf("read %d entries (%v), want %d", read, err, n)
	}
	if kib := residentKiB(t, filepath.Join(dir, "state.db")); kib > 256 {
		t.Errorf("%d KiB of the store are resident after it was read, want next to nothing", kib)
	}
	if dropped, err := r.Prune(context.Background(), now.Add(time.Hour)); err != nil || dropped != n {
		t.Errorf("pruned %d (%v), want %d", dropped, err, n)
	}
	read = 0
	if _, err := r.Load(context.Background(), func(revocation.Position, revocation.Entry) error { read++; return nil }); err != nil || read != 0 {
		t.Errorf("read %d entries (%v) after pruning, want none", read, err)
	}
}

// residentKiB returns how much of a mapped file the kernel counts as this process's memory.
func residentKiB(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, mapped := strings.Cut(string(maps), " "+path+"\n")
	_, rest, counted := strings.Cut(rest, "\nRss:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil || !mapped || !counted {
		t.Fatalf("no mapping of %s (%v)", path, err)
	}
	return kib
}
