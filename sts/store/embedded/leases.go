package embedded

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

var bucketLeases = []byte("leases")

// Leases keeps leases in the store, by their ids, as JSON; indexes are in memory and are made anew when it is opened.
// One goroutine writes: what arrives while it syncs shares the next sync. It implements [lease.Store] and is safe for
// concurrent use.
type Leases struct {
	db      *DB
	changes chan *change
	stop    chan struct{}
	stopped chan struct{}

	mu    sync.RWMutex
	index index // what is synced
}

var _ lease.Store = (*Leases)(nil)

// change is one caller's, and done tells it how it went.
type change struct {
	do   func(*draft) error // an error of its own leaves everything as it was
	done chan error
}

// maxTogether is how many changes share one sync at most.
const maxTogether = 512

// Leases opens the ledger. It is closed before the store is.
func (d *DB) Leases() (*Leases, error) {
	s := &Leases{db: d, changes: make(chan *change, maxTogether), stop: make(chan struct{}), stopped: make(chan struct{}), index: newIndex()}
	err := d.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketLeases)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			var l lease.Lease
			if err := json.Unmarshal(v, &l); err != nil || l.ID != string(k) {
				return fmt.Errorf("lease %q is not what this program writes", k)
			}
			s.index.put(&l)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("ledger of leases: %w", err)
	}
	go s.write()
	return s, nil
}

// Close ends the writing; what was asked before is written.
func (s *Leases) Close() {
	close(s.stop)
	<-s.stopped
}

var errClosed = errors.New("it is closed")

// commit has a change made and synced.
func (s *Leases) commit(ctx context.Context, do func(*draft) error) error {
	c := &change{do, make(chan error, 1)}
	select {
	case s.changes <- c:
	case <-s.stopped:
		return fmt.Errorf("%w: %w", lease.ErrUnavailable, errClosed)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", lease.ErrUnavailable, ctx.Err())
	}
	select {
	case err := <-c.done:
		return err
	case <-s.stopped:
		select {
		case err := <-c.done:
			return err
		default:
			return fmt.Errorf("%w: %w", lease.ErrUnavailable, errClosed)
		}
	}
}

func (s *Leases) write() {
	defer close(s.stopped)
	for {
		var all []*change
		select {
		case c := <-s.changes:
			all = append(all, c)
		case <-s.stop:
			for len(s.changes) > 0 {
				all = append(all, <-s.changes)
			}
			s.together(all)
			return
		}
		for len(all) < maxTogether && len(s.changes) > 0 {
			all = append(all, <-s.changes)
		}
		s.together(all)
	}
}

// together makes changes in their order and syncs them at once.
func (s *Leases) together(all []*change) {
	d := &draft{base: &s.index, changed: map[string]*lease.Lease{}, total: len(s.index.all), target: map[string]int{}, owner: map[string]int{}}
	failed := make([]error, len(all))
	for i, c := range all {
		failed[i] = c.do(d)
	}
	err := s.save(d.changed)
	if err == nil {
		s.mu.Lock()
		for id, l := range d.changed {
			s.index.remove(id)
			if l != nil {
				s.index.put(l)
			}
		}
		s.mu.Unlock()
	}
	for i, c := range all {
		switch {
		case failed[i] != nil:
			c.done <- failed[i]
		case err != nil:
			c.done <- fmt.Errorf("%w: %w", lease.ErrUnavailable, err)
		default:
			c.done <- nil
		}
	}
}

func (s *Leases) save(changed map[string]*lease.Lease) error {
	if len(changed) == 0 {
		return nil
	}
	return s.db.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLeases)
		for id, l := range changed {
			if l == nil {
				if err := b.Delete([]byte(id)); err != nil {
					return err
				}
				continue
			}
			v, err := json.Marshal(l)
			if err != nil {
				return err
			}
			if err := b.Put([]byte(id), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Open implements [lease.Store].
func (s *Leases) Open(ctx context.Context, l lease.Lease, max lease.Limits) error {
	return s.commit(ctx, func(d *draft) error { return d.open(l, max) })
}

// Update implements [lease.Store].
func (s *Leases) Update(ctx context.Context, ids []string, change func(*lease.Lease) lease.Verdict) ([]lease.Lease, error) {
	var out []lease.Lease
	err := s.commit(ctx, func(d *draft) error {
		for _, id := range ids {
			if l, ok := d.update(id, change); ok {
				out = append(out, l)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err // out may still be written to
	}
	return out, nil
}

// Find implements [lease.Store].
func (s *Leases) Find(_ context.Context, fingerprint string) (lease.Lease, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.index.prints[fingerprint]
	if !ok || fingerprint == "" {
		return lease.Lease{}, lease.ErrUnknown
	}
	return copied(s.index.all[id]), nil
}

// Below implements [lease.Store].
func (s *Leases) Below(_ context.Context, id string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []string
	if _, ok := s.index.all[id]; ok {
		out = append(out, id)
	}
	for below := range s.index.below[id] {
		out = append(out, below)
	}
	return out, nil
}

// Due implements [lease.Store].
func (s *Leases) Due(_ context.Context, target string, now time.Time, most int) ([]lease.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []lease.Lease
	queue := s.index.due[target]
	if queue == nil {
		return nil, nil
	}
	var back []*lease.Lease
	for queue.Len() > 0 && len(out) < most && !(*queue)[0].Due.After(now) {
		l := heap.Pop(queue).(*lease.Lease)
		if s.index.all[l.ID] != l {
			continue // it has changed since, or is gone
		}
		out, back = append(out, copied(l)), append(back, l)
	}
	for _, l := range back {
		heap.Push(queue, l)
	}
	return out, nil
}

// Counts implements [lease.Store].
func (s *Leases) Counts(context.Context) (map[string]int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]int, len(s.index.target))
	for target, n := range s.index.target {
		out[target] = n
	}
	return out, nil
}

// Each implements [lease.Store].
func (s *Leases) Each(_ context.Context, do func(lease.Lease) error) error {
	s.mu.RLock()
	all := make([]lease.Lease, 0, len(s.index.all))
	for _, l := range s.index.all {
		all = append(all, *l) // what it points to is never changed
	}
	s.mu.RUnlock()
	for i := range all {
		if err := do(copied(&all[i])); err != nil {
			return err
		}
	}
	return nil
}

// Lead implements [lease.Store]: there is nobody else.
func (s *Leases) Lead(context.Context) (bool, error) { return true, nil }

func copied(l *lease.Lease) lease.Lease {
	out := *l
	out.Ancestors, out.Scopes, out.Handle = slices.Clone(l.Ancestors), slices.Clone(l.Scopes), slices.Clone(l.Handle)
	return out
}
