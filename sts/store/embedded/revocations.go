package embedded

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// ErrTampered means that an entry's MAC is wrong: somebody without our key wrote to the store.
var ErrTampered = errors.New("a stored revocation is not authentic")

var (
	bucketRevocations = []byte("revocations")
	bucketMeta        = []byte("meta")
	keyState          = []byte("revocations") // in bucketMeta: a state, under a MAC
)

// state says what the log holds, so that an entry taken out is missed.
type state struct {
	Last  uint64 `json:"last"`  // position of the newest entry ever appended
	Count uint64 `json:"count"` // entries there are
}

// epoch of a store that never lost data. A store that did starts the next one.
const epoch = 1

// Revocations is the revocation log in the store. Keys are positions, big-endian, so that order in the
// file is the order of the log; values are HMAC-SHA256 (32 bytes) and JSON. It implements
// [revocation.Log] and is safe for concurrent use; concurrent appends share a sync.
type Revocations struct {
	db  *DB
	mac []byte
	due due
}

var _ revocation.Log = (*Revocations)(nil)

// Revocations opens the log; mac authenticates its entries.
func (d *DB) Revocations(mac []byte) (*Revocations, error) {
	if len(mac) < sha256.Size {
		return nil, fmt.Errorf("revocation log: MAC key has %d bytes, needs %d", len(mac), sha256.Size)
	}
	r := &Revocations{db: d, mac: mac}
	r.due.forget()
	err := d.db.Update(func(tx *bolt.Tx) error {
		if tx.Bucket(bucketMeta) != nil {
			return nil
		}
		_, err1 := tx.CreateBucket(bucketRevocations)
		_, err2 := tx.CreateBucket(bucketMeta)
		return errors.Join(err1, err2, r.setState(tx, state{}))
	})
	if err != nil {
		return nil, fmt.Errorf("revocation log: %w", err)
	}
	d.ballast.fill()
	return r, nil
}

// Append implements [revocation.Log]. When the disk is full it gives up the ballast and tries once more.
func (r *Revocations) Append(_ context.Context, e revocation.Entry) (revocation.Position, error) {
	value, err := json.Marshal(e)
	if err != nil {
		return revocation.Position{}, fmt.Errorf("encoding a revocation: %w", err)
	}
	n, err := r.append(value)
	if err != nil && full(err) && r.db.ballast.release() {
		n, err = r.append(value)
	}
	if err != nil {
		return revocation.Position{}, fmt.Errorf("appending a revocation: %w", err)
	}
	r.due.lower(e.Until)
	return revocation.Position{Epoch: epoch, N: n}, nil
}

// AppendAll appends entries with one sync, for a replica that learns many at once.
func (r *Revocations) AppendAll(_ context.Context, entries []revocation.Entry) error {
	values := make([][]byte, len(entries))
	for i, e := range entries {
		var err error
		if values[i], err = json.Marshal(e); err != nil {
			return fmt.Errorf("encoding a revocation: %w", err)
		}
	}
	_, err := r.append(values...)
	if err != nil && full(err) && r.db.ballast.release() {
		_, err = r.append(values...)
	}
	if err != nil {
		return fmt.Errorf("appending revocations: %w", err)
	}
	for _, e := range entries {
		r.due.lower(e.Until)
	}
	return nil
}

func (r *Revocations) append(values ...[]byte) (uint64, error) {
	var n uint64
	err := r.db.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRevocations)
		b.FillPercent = 1 // keys only grow, so a page is never split in its middle
		s, err := r.state(tx)
		if err != nil {
			return err
		}
		mac := r.hash()
		for _, value := range values {
			if n, err = b.NextSequence(); err != nil {
				return err
			}
			k := binary.BigEndian.AppendUint64(nil, n)
			if err := b.Put(k, append(sum(mac, k, value), value...)); err != nil {
				return err
			}
		}
		return r.setState(tx, state{Last: n, Count: s.Count + uint64(len(values))})
	})
	return n, err
}

// state reads what the log must hold.
func (r *Revocations) state(tx *bolt.Tx) (state, error) {
	var s state
	value, err := authentic(r.hash(), keyState, tx.Bucket(bucketMeta).Get(keyState))
	if err == nil {
		err = json.Unmarshal(value, &s)
	}
	return s, err
}

func (r *Revocations) setState(tx *bolt.Tx, s state) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyState, append(sum(r.hash(), keyState, value), value...))
}

// authentic returns the value behind its MAC, or ErrTampered. It is of the mapped file: gone with the transaction.
func authentic(mac hash.Hash, k, v []byte) ([]byte, error) {
	if len(v) < sha256.Size || !hmac.Equal(v[:sha256.Size], sum(mac, k, v[sha256.Size:])) {
		return nil, ErrTampered
	}
	return v[sha256.Size:], nil
}

// entry reads one entry.
func entry(mac hash.Hash, k, v []byte) (n uint64, e revocation.Entry, err error) {
	if len(k) != 8 {
		return 0, e, ErrTampered
	}
	n = binary.BigEndian.Uint64(k)
	value, err := authentic(mac, k, v)
	if err != nil || json.Unmarshal(value, &e) != nil {
		return n, e, fmt.Errorf("%w: position %d.%d", ErrTampered, epoch, n)
	}
	return n, e, nil
}

// hash returns an HMAC under our key, for any number of sums one after the other: making it costs as much as one.
func (r *Revocations) hash() hash.Hash { return hmac.New(sha256.New, r.mac) }

// sum covers the key too, so that an entry cannot be moved.
func sum(mac hash.Hash, k, value []byte) []byte {
	mac.Reset()
	mac.Write(k)
	mac.Write(value)
	return mac.Sum(nil)
}

// Load implements [revocation.Log]. An entry whose MAC is wrong, or one that is missing, is ErrTampered: the
// service must not start on a log that somebody else wrote to.
func (r *Revocations) Load(_ context.Context, each func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	var last revocation.Position
	r.due.begin()
	err := r.db.db.View(func(tx *bolt.Tx) error {
		s, err := r.state(tx)
		if err != nil {
			return err
		}
		last = revocation.Position{Epoch: epoch, N: s.Last}
		b := tx.Bucket(bucketRevocations)
		count, err := r.scan(tx, func(n uint64, e revocation.Entry) error {
			r.due.lower(e.Until)
			return each(revocation.Position{Epoch: epoch, N: n}, e)
		})
		if err == nil && (count != s.Count || b.Sequence() != s.Last) {
			return fmt.Errorf("%w: there are %d entries up to %d, there were %d up to %d", ErrTampered, count, b.Sequence(), s.Count, s.Last)
		}
		return err
	})
	if err != nil {
		r.due.forget()
	}
	return last, err
}

// releaseEvery is how many entries are read between two releases of the pages that they stand on: some 14 MiB.
const releaseEvery = 1 << 16

// scan reads every entry.
func (r *Revocations) scan(tx *bolt.Tx, each func(n uint64, e revocation.Entry) error) (count uint64, err error) {
	defer r.db.release(tx)
	mac := r.hash()
	err = tx.Bucket(bucketRevocations).ForEach(func(k, v []byte) error {
		n, e, err := entry(mac, k, v)
		if err != nil {
			return err
		}
		if count++; count%releaseEvery == 0 {
			r.db.release(tx)
		}
		return each(n, e)
	})
	return count, err
}

// Prune implements [revocation.Log]: it drops entries past their Until and refills the ballast. It reads nothing when
// none can be past it.
func (r *Revocations) Prune(_ context.Context, now time.Time) (int, error) {
	var expired []uint64
	var err error
	if r.due.reached(now) {
		expired, err = r.expired(now)
	}
	for some := range slices.Chunk(expired, dropAtOnce) {
		if err == nil {
			err = r.drop(some)
		}
	}
	if err != nil {
		r.due.forget()
		return 0, fmt.Errorf("pruning revocations: %w", err)
	}
	r.db.ballast.fill()
	return len(expired), nil
}

// dropAtOnce is how many entries one transaction drops: it holds every page that it touches in memory.
const dropAtOnce = 10_000

// expired returns the positions of what is past its end, and learns when the first of the others is.
func (r *Revocations) expired(now time.Time) (positions []uint64, err error) {
	r.due.begin() // before the transaction: it does not see what is appended from here on, and lower does
	err = r.db.db.View(func(tx *bolt.Tx) error {
		_, err := r.scan(tx, func(n uint64, e revocation.Entry) error {
			if now.After(e.Until) {
				positions = append(positions, n)
			} else {
				r.due.lower(e.Until)
			}
			return nil
		})
		return err
	})
	return positions, err
}

func (r *Revocations) drop(positions []uint64) error {
	return r.db.db.Update(func(tx *bolt.Tx) error {
		for _, n := range positions {
			if err := tx.Bucket(bucketRevocations).Delete(binary.BigEndian.AppendUint64(nil, n)); err != nil {
				return err
			}
		}
		s, err := r.state(tx)
		if err != nil {
			return err
		}
		s.Count -= uint64(len(positions))
		return r.setState(tx, s)
	})
}
