package embedded_test

import (
	"bytes"
	"context"
	"errors"
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
