package keys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Names of files in the data directory.
const (
	fileName     = "keys.sealed"   // the document of a deployment of one replica
	seenName     = "keys.seen"     // the newest document that this replica saw
	recordedName = "keys.recorded" // the newest change that is in this replica's audit log
	auditName    = "audit.key"     // the sealed key of this replica's audit log
)

// maxFile is the largest of these files in bytes: some dozen RSA keys fit many times.
const maxFile = 1 << 20

// File is the store of one replica: a file, replaced as a whole. Another process (sallyport keys rotate) may
// change it beside the server; each sees the other's change or ErrConflict.
type File struct {
	dir string
	mu  sync.Mutex
}

var _ Store = (*File)(nil)

// NewFile returns the store in a data directory, which exists.
func NewFile(dir string) *File { return &File{dir: dir} }

// Load implements [Store].
func (f *File) Load(context.Context) ([]byte, string, error) {
	data, err := readFile(filepath.Join(f.dir, fileName))
	if err != nil || data == nil {
		return nil, "", err
	}
	return data, revisionOf(data), nil
}

func revisionOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Swap implements [Store].
func (f *File) Swap(ctx context.Context, revision string, sealed []byte) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lock, err := lockDir(f.dir)
	if err != nil {
		return "", fmt.Errorf("locking %s: %w", f.dir, err)
	}
	defer lock.Close()
	_, now, err := f.Load(ctx)
	if err != nil {
		return "", err
	}
	if now != revision {
		return "", ErrConflict
	}
	path := filepath.Join(f.dir, fileName)
	if revision == "" {
		err = writeNew(path, sealed)
	} else {
		err = replace(path, sealed)
	}
	if errors.Is(err, os.ErrExist) {
		return "", ErrConflict
	}
	if err != nil {
		return "", err
	}
	return revisionOf(sealed), nil
}

// readFile reads a small file; nil when there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes; it is no file of ours", path, maxFile)
	}
	if data == nil {
		data = []byte{}
	}
	return data, err
}

// writeNew makes path with data, synced, or nothing; it never replaces a file.
func writeNew(path string, data []byte) error {
	return write(path, data, func(temp string) error { return os.Link(temp, path) })
}

// replace puts data in the place of path, synced: whoever reads it sees the old whole or the new whole.
func replace(path string, data []byte) error {
	return write(path, data, func(temp string) error { return os.Rename(temp, path) })
}

// write makes a synced file and lets place put it where it belongs. It is given to whom the directory belongs, so
// that what a root shell writes the server can still read.
func write(path string, data []byte, place func(temp string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = keepOwner(filepath.Dir(path), f.Name())
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = place(f.Name())
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
