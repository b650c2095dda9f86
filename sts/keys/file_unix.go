//go:build unix

package keys

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockDir waits for the lock of a directory (flock on itself: no file is left behind, and a killed process gives
// it up). Whoever holds it holds it for one write.
func lockDir(dir string) (io.Closer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// keepOwner gives temp to whom dir belongs, when a root shell made it.
func keepOwner(dir, temp string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	want, err := owner(dir)
	if err != nil {
		return err
	}
	return os.Chown(temp, want[0], want[1])
}

func owner(path string) ([2]int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return [2]int{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return [2]int{}, errors.ErrUnsupported
	}
	return [2]int{int(s.Uid), int(s.Gid)}, nil
}
