package embedded

import (
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// release takes the pages that were read out of this process's memory, where they count as resident although they are the
// kernel's copy of the file: 200 MiB for a million revocations. They are mapped again when they are read again. tx
// keeps the mapping in its place meanwhile.
func (d *DB) release(tx *bolt.Tx) {
	if size := tx.Size(); size > 0 {
		// Advice: when it is not taken, nothing is wrong.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, d.db.Info().Data, uintptr(size), unix.MADV_DONTNEED)
	}
}
