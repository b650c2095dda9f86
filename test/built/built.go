// Package built keeps the servers of tests that are compiled once: each in the user's cache directory, under a name that says its
// version.
package built

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Once returns the path of a program in ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport. The first call has it compiled into the path that
// compile is given; progress goes to log. Processes may call it concurrently: one builds, the others wait.
func Once(ctx context.Context, log io.Writer, name string, compile func(ctx context.Context, to string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, name)
	if finished(path) {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if finished(path) { // another process built it while we waited for the lock
		return path, nil
	}
	if err := build(ctx, log, path, compile); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	return path, nil
}

// build compiles beside path and renames, so that an interrupted build leaves nothing that is taken for a server.
func build(ctx context.Context, log io.Writer, path string, compile func(context.Context, string) error) error {
	name := filepath.Base(path)
	part, err := os.MkdirTemp(filepath.Dir(path), name+".part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	start, done := time.Now(), make(chan struct{})
	defer close(done)
	fmt.Fprintf(log, "building %s (once; several minutes)\n", name)
	go func() { // CI systems stop a job that is silent for long
		for tick := time.Tick(30 * time.Second); ; {
			select {
			case <-tick:
				fmt.Fprintf(log, "building %s: %s\n", name, time.Since(start).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	whole := filepath.Join(part, name)
	if err := compile(ctx, whole); err != nil {
		return err
	}
	if err := os.Rename(whole, path); err != nil {
		return err
	}
	fmt.Fprintf(log, "built %s in %s\n", name, time.Since(start).Round(time.Second))
	return nil
}

// finished reports whether path holds a finished server.
func finished(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
}

// cacheDir follows the XDG rules on every platform, so that the path in the documentation is the path everywhere.
func cacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache directory: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "sallyport"), nil
}

// lock takes the advisory lock of the file at path, waiting until ctx ends. The operating system drops the lock of a process that
// dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the build lock: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("waiting for another build of the same server: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
