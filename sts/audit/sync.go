package audit

import (
	"fmt"
	"time"
)

// round is one sync that appenders wait for. err is set before done is closed.
type round struct {
	done chan struct{}
	err  error
}

func (r *round) end(err error) {
	if r == nil {
		return
	}
	r.err = err
	close(r.done)
}

// syncLoop syncs what was written: at once for those who wait (while one sync runs, the next batch gathers), and
// within syncDelay for all else.
func (l *Log) syncLoop() {
	for {
		select {
		case <-l.stop:
			return
		case <-l.wakeSync:
		}
		if l.cfg.Durability == Process {
			l.mu.Lock()
			dirty := l.dirty
			l.mu.Unlock()
			select {
			case <-l.stop:
				return
			case <-time.After(syncDelay - time.Since(dirty)):
			}
		}
		l.syncMu.Lock()
		_ = l.syncNow() // told to whoever waits, and kept in l.broken
		l.syncMu.Unlock()
	}
}

// syncNow makes everything written so far durable and tells those who wait. The caller holds syncMu.
func (l *Log) syncNow() error {
	l.mu.Lock()
	if err := l.usable(TypeHead); err != nil {
		waiting := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		waiting.end(err)
		return err
	}
	if l.dirty.IsZero() {
		l.mu.Unlock()
		return nil
	}
	file, end, covered, waiting := l.file, l.end, len(l.pending), l.waiting
	l.waiting, l.syncing, l.dirty = nil, l.dirty, time.Time{}
	l.mu.Unlock()

	err := file.Sync()

	l.mu.Lock()
	l.syncing = time.Time{}
	late := (*round)(nil)
	if err == nil {
		l.synced = end
		l.settle(covered)
		l.counts.syncs++
		l.counts.lastSync = time.Now()
	} else {
		// What the kernel could not write it may have dropped, and a second sync would not say so: this
		// segment cannot be trusted beyond the last good sync.
		l.broken = &breakage{cause: CauseSync, err: err}
		late, l.waiting = l.waiting, nil
		err = l.usable(TypeHead)
	}
	l.mu.Unlock()
	waiting.end(err)
	late.end(err)
	l.wake(l.wakeKeep)
	return err
}

// settle forgets the first bytes of pending: they are on the disk. The caller holds mu.
func (l *Log) settle(covered int) {
	const keep = 16 << 20 // a burst must not pin its buffer
	rest := l.pending[covered:]
	if cap(l.pending) > keep && len(rest) < keep/4 {
		l.pending = append([]byte(nil), rest...)
		return
	}
	l.pending = append(l.pending[:0], rest...)
}

// repair begins a new segment when the current one is broken. The new one goes on from the last record known to be
// on the disk; what stands after it in the old one is void, and the records of it that were acknowledged
// follow again. It returns nil when the log can be written.
func (l *Log) repair() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	broken, old, first := l.broken, l.file, l.first
	l.mu.Unlock()
	if broken == nil {
		return nil
	}
	if broken.cause == CauseWrite {
		// Only the half line is in doubt, if what stands before it can be synced.
		if old.Sync() == nil {
			l.mu.Lock()
			l.synced, l.pending, l.dirty = l.end, l.pending[:0], time.Time{}
			l.mu.Unlock()
		}
	}
	l.mu.Lock()
	from, waiting := l.synced, l.waiting
	l.waiting = nil
	again := l.pending
	l.mu.Unlock()
	waiting.end(fmt.Errorf("%w: %s: %w", ErrUnavailable, broken.cause, broken.err))

	rec := &Recovered{Cause: broken.cause, Last: from.mark(), Head: l.headMark()}
	rec.Unsigned = from.n - rec.Head.N
	if l.cfg.Durability == Machine {
		again = nil // nobody was told that these are durable
	}
	if err := eachLine(again, func(*Record) error { rec.Rewrote++; return nil }); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if v := readVoid(l.cfg.FS, l.cfg.Dir, first, from.offset); v != nil {
		rec.Void = []Void{*v}
	}
	err := l.beginSegment(from.n+1, from.hash, []*Record{{Type: TypeRecovered, Time: l.cfg.Now(), Recovered: rec}}, again)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	_ = old.Close() // what it could still fail to write is in the new segment
	l.wake(l.wakeKeep)
	return nil
}
