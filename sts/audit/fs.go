package audit

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FS is what the log does with files, so that a test can stand between it and the disk. Names are
// paths. Files are created with mode 0600, directories with 0700. Methods may be called concurrently.
type FS interface {
	MkdirAll(dir string) error
	OpenFile(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	ReadDir(dir string) ([]string, error) // names of files, in any order
	SyncDir(dir string) error             // makes creation, renaming and removal in dir durable
	Free(dir string) (int64, error)       // bytes that an unprivileged process may still write
	Lock(dir string) (io.Closer, error)   // exclusive until closed or the process ends; never waits
}

// File is one open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
}

// Disk is the real [FS].
type Disk struct{}

var _ FS = Disk{}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// MkdirAll makes dir and its parents.
func (Disk) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// OpenFile opens a file with the flags of package os.
func (Disk) OpenFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

// Rename replaces to by from.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove removes a file.
func (Disk) Remove(name string) error { return os.Remove(name) }

// ReadDir returns the names of the files of dir.
func (Disk) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncDir syncs the entries of dir.
func (Disk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// A segment is named by the number of its first record; one that is being made has a second suffix and
// is no part of the log.
const (
	segmentSuffix    = ".log"
	segmentDigits    = 20
	unfinishedSuffix = ".new"
)

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, first, segmentSuffix)
}

func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != segmentDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// listSegments returns the first numbers of the segments of dir, in ascending order.
func listSegments(fs FS, dir string) ([]uint64, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the audit log: %w", err)
	}
	var out []uint64
	for _, name := range names {
		if n, ok := parseSegmentName(name); ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func segmentPath(dir string, first uint64) string { return filepath.Join(dir, segmentName(first)) }
