// Package embedded is the durable store of one replica: a single bbolt file in the data directory,
// synced on every commit and locked against a second process. A deployment of several replicas uses
// another store behind the same small interfaces.
package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// fileName is the store's file inside the data directory.
const fileName = "state.db"

// lockWait is how long opening waits for another process to let go of the file: long enough for a
// predecessor to finish shutting down.
const lockWait = 5 * time.Second

// DB is an open store. It is safe for concurrent use.
type DB struct {
	db      *bolt.DB
	ballast ballast
}

// Exists reports whether dir holds a store.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, fileName))
	return err == nil
}

// Used reports whether the store has ever been used by a deployment with keys.
func (d *DB) Used() bool {
	used := false
	_ = d.db.View(func(tx *bolt.Tx) error {
		used = tx.Bucket(bucketMeta) != nil
		return nil
	})
	return used
}

// Open opens the store in dir, creating it when absent. dir exists already.
func Open(dir string) (*DB, error) {
	path := filepath.Join(dir, fileName)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening %s: another process holds it; the embedded store serves one replica", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.MaxBatchDelay = 0 // a revocation waits for nobody; those that arrive during a commit share the next
	return &DB{db: db, ballast: ballast{path: filepath.Join(dir, "ballast")}}, nil
}

// Close lets go of the file.
func (d *DB) Close() error { return d.db.Close() }
