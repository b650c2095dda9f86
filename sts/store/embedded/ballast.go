package embedded

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ballastSize is disk held back for revocations: a commit rewrites a few pages of 4 KiB and may grow
// the file by 16 MiB at once when it is large, but a file that cannot grow still has its free pages.
const ballastSize = 1 << 20

// ballast is preallocated disk that is let go when a revocation meets a full disk: the last reserve
// belongs to revocation (design section 3).
type ballast struct {
	path string
	mu   sync.Mutex
}

// fill takes the reserve if there is room for it. Failing is no error: a disk that is already full is
// reported by those who need to write.
func (b *ballast) fill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if info, err := os.Stat(b.path); err == nil && info.Size() >= ballastSize {
		return
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, ballastSize); err != nil {
		_ = os.Remove(b.path)
	}
}

// release gives the reserve back to the disk and reports whether there was one.
func (b *ballast) release() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return os.Remove(b.path) == nil
}

// full reports whether err means that the disk, a quota or a file size limit is exhausted.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
