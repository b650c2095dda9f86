package audit

import (
	"fmt"
	"maps"
	"sync/atomic"
	"time"
)

// headPatience is how long the head file may fail before Health speaks of it.
const headPatience = 5 * time.Second

// faults are the last errors that have not been followed by a success.
type faults struct {
	write     error
	rotate    error
	rotated   time.Time // when rotate was tried
	head      error
	headSince time.Time
	prune     error
}

type counters struct {
	appended, bytes, syncs, sinceHead uint64
	lastSync                          time.Time
}

// space is what is known of the free disk.
type space struct {
	asked atomic.Int64 // nanoseconds since Open
	free  atomic.Int64
}

// room refuses while less than the reserve is free, which it asks at most every 100 ms. What cannot be asked is
// not refused: the write itself will tell.
func (l *Log) room() error {
	now := int64(time.Since(l.started))
	asked := l.space.asked.Load()
	if now-asked >= int64(spaceEvery) && l.space.asked.CompareAndSwap(asked, now) {
		l.measure()
	}
	if free := l.space.free.Load(); free < l.cfg.Reserve {
		return fmt.Errorf("%w: %d bytes of disk are free, the last %d are for revocations", ErrUnavailable, free, l.cfg.Reserve)
	}
	return nil
}

// measure asks how much is free.
func (l *Log) measure() {
	free, err := l.cfg.FS.Free(l.cfg.Dir)
	if err != nil {
		free = l.cfg.Reserve
	}
	l.space.free.Store(free)
}

// Health returns nil when exchanges can be recorded, or why not. It is cheap. [ErrUnavailable]: nothing or only
// revocations can be recorded. [ErrContradiction]: records are written, but what was found at Open is not what had
// been signed; until [Log.Accept]. Other errors: heads cannot be signed or retention has stopped.
func (l *Log) Health() error {
	room := l.room()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(TypeExchange); err != nil {
		return err
	}
	f := &l.faults
	switch {
	case f.rotate != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, f.rotate)
	case room != nil:
		return room
	case f.write != nil:
		return fmt.Errorf("%w: writing: %w", ErrUnavailable, f.write)
	case l.suspect != 0:
		return fmt.Errorf("%w: see record %d", ErrContradiction, l.suspect)
	case f.head != nil && time.Since(f.headSince) > headPatience:
		return fmt.Errorf("signing the head of the audit log: %w", f.head)
	case f.prune != nil:
		return fmt.Errorf("retention of the audit log: %w", f.prune)
	}
	return nil
}

// Stats are counters since Open, for metrics.
type Stats struct {
	Appended uint64            // records, the log's own among them
	Bytes    uint64            // of lines
	Syncs    uint64            // of segments
	SyncAge  time.Duration     // since the last sync, or since Open
	Unsynced uint64            // records written and not yet synced
	Signed   uint64            // newest record under a signed head
	Last     uint64            // newest record
	Junk     map[string]uint64 // by reason
	Free     int64             // bytes of disk, as last asked
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	s := Stats{
		Appended: l.counts.appended, Bytes: l.counts.bytes, Syncs: l.counts.syncs,
		Unsynced: l.end.n - l.synced.n, Signed: l.signed.N, Last: l.end.n,
		Free: l.space.free.Load(),
	}
	last := l.counts.lastSync
	l.mu.Unlock()
	if last.IsZero() {
		last = l.started
	}
	s.SyncAge = time.Since(last)
	l.junk.mu.Lock()
	defer l.junk.mu.Unlock()
	s.Junk = maps.Clone(l.junk.total)
	return s
}
