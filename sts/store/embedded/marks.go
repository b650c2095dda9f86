package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sallyport-sts/sallyport/sts/replay"
)

var bucketMarks = []byte("marks")

// Marks keeps single-use marks in the store: 8 bytes of when they end (Unix nanoseconds, big-endian), then the
// decision. It implements [replay.Marks] and is safe for concurrent use.
type Marks struct {
	db  *DB
	now func() time.Time
}

var _ replay.Marks = (*Marks)(nil)

// Marks opens the marks.
func (d *DB) Marks(now func() time.Time) (*Marks, error) {
	err := d.db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketMarks)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("single-use marks: %w", err)
	}
	return &Marks{db: d, now: now}, nil
}

// Mark implements [replay.Marks]. It returns when the mark is synced. An expired mark is still a mark until it is
// pruned: a clock that is set back must not make a token good for a second time.
func (m *Marks) Mark(_ context.Context, k replay.Key, decision string, until time.Time) error {
	used := false
	err := m.db.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMarks)
		if used = b.Get(k[:]) != nil; used {
			return nil
		}
		return b.Put(k[:], append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), decision...))
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", replay.ErrUnavailable, err)
	case used:
		return replay.ErrUsed
	}
	return nil
}

// Release implements [replay.Marks].
func (m *Marks) Release(_ context.Context, k replay.Key, decision string) error {
	err := m.db.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMarks)
		if v := b.Get(k[:]); len(v) < 8 || string(v[8:]) != decision {
			return nil
		}
		return b.Delete(k[:])
	})
	if err != nil {
		return fmt.Errorf("%w: %w", replay.ErrUnavailable, err)
	}
	return nil
}

// markGrace is how long a mark is kept past its end: as long as clocks may be wrong.
const markGrace = time.Hour

// Prune forgets marks whose end is long past, and returns how many.
func (m *Marks) Prune(_ context.Context) (int, error) {
	n := 0
	end := m.now().Add(-markGrace).UnixNano()
	err := m.db.db.Update(func(tx *bolt.Tx) error {
		var old [][]byte
		b := tx.Bucket(bucketMarks)
		err := b.ForEach(func(k, v []byte) error {
			if len(v) >= 8 && int64(binary.BigEndian.Uint64(v)) < end {
				old = append(old, bytes.Clone(k))
			}
			return nil
		})
		for _, k := range old {
			if err == nil {
				err = b.Delete(k)
			}
		}
		n = len(old)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", replay.ErrUnavailable, err)
	}
	return n, nil
}
