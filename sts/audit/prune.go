package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxClockStep is how far the wall clock may have moved against the monotonic one since retention last looked. A
// clock that jumps ahead must not remove the log.
const maxClockStep = time.Minute

// clock remembers both clocks.
type clock struct{ wall, mono time.Time }

// stepped reports whether the wall clock moved by itself since the last call.
func (c *clock) stepped(now time.Time) bool {
	last := *c
	*c = clock{wall: now.Round(0), mono: time.Now()} // Round strips the monotonic reading
	step := c.wall.Sub(last.wall) - c.mono.Sub(last.mono)
	return step.Abs() > maxClockStep
}

// retain ends a segment that is old, and removes segments that are older than Keep.
func (l *Log) retain(c *clock) {
	now := l.cfg.Now()
	if c.stepped(now) {
		return
	}
	l.mu.Lock()
	first, old := l.first, time.Since(l.began) > segmentAge && l.end.n > l.first
	l.mu.Unlock()
	var err error
	if old {
		err = l.rotate(first)
	}
	if err == nil {
		err = l.prune(now)
	}
	l.mu.Lock()
	l.faults.prune = err
	l.mu.Unlock()
}

// prune removes the segments all of whose records are older than Keep. It first puts a signed record of it into
// the chain. What tells the age is a record itself, so it is believed only when a signed head in its segment
// covers it: who can write the disk but has no key cannot make the log forget.
func (l *Log) prune(now time.Time) error {
	if l.cfg.Keep == 0 {
		return nil
	}
	segments, err := listSegments(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return err
	}
	rec, keep, err := l.oldest(segments, now.Add(-l.cfg.Keep))
	if err != nil || keep == 0 {
		return err
	}
	p := &Pruned{First: segments[keep], Prev: rec.Segment.Prev, Segments: keep, Key: l.signer.id}
	for _, first := range segments[:keep] {
		p.Bytes += l.size(first)
	}
	if p.Sig, err = l.signer.sign(p.payload(l.id)); err != nil {
		return err
	}
	if err := l.appendSynced(&Record{Type: TypePruned, Pruned: p}); err != nil {
		return err
	}
	l.mu.Lock()
	synced := l.synced
	l.mu.Unlock()
	if err := l.writeHead(synced, false); err != nil {
		return err
	}
	for _, first := range segments[:keep] { // oldest first: what is left after a power cut has no hole
		if err := l.cfg.FS.Remove(segmentPath(l.cfg.Dir, first)); err != nil {
			return fmt.Errorf("removing %s: %w", segmentName(first), err)
		}
	}
	return l.cfg.FS.SyncDir(l.cfg.Dir)
}

// oldest finds the segment to keep as the first: the newest that began before cutoff and is authentic. It
// returns its first record and index; 0 means that there is nothing to remove.
func (l *Log) oldest(segments []uint64, cutoff time.Time) (Record, int, error) {
	d := folder{fs: l.cfg.FS, dir: l.cfg.Dir}
	for i := len(segments) - 1; i > 0; i-- {
		rec, err := d.first(segments[i])
		if err != nil {
			return Record{}, 0, err
		}
		if rec.Time.After(cutoff) {
			continue
		}
		ok, err := l.authentic(&d, segments[i], rec.Segment.Prev)
		if err != nil {
			return Record{}, 0, err
		}
		if ok {
			return rec, i, nil
		}
	}
	return Record{}, 0, nil
}

// authentic reports whether a head in a segment covers the segment's first record. A segment that ended within
// its first second may hold none, which is no error.
func (l *Log) authentic(d *folder, first uint64, before string) (bool, error) {
	r, err := d.open(first, toEnd)
	if err != nil {
		return false, err
	}
	defer r.close()
	prev, _ := parseSum(before) // "" is the zero hash
	var hashes []sum
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) || err == nil && !e.ok {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if e.n != first+uint64(len(hashes)) || !e.follows(&prev) {
			return false, fmt.Errorf("%w: %s does not follow the record before it; nothing is removed", ErrContradiction, e.place())
		}
		prev = e.stated
		hashes = append(hashes, prev)
		if e.typ() != TypeHead {
			continue
		}
		rec, err := e.record()
		if err != nil || rec.Head == nil || rec.Head.N < first {
			continue
		}
		h := rec.Head
		if h.Log != l.id || h.N >= e.n || h.Hash != hashes[h.N-first].String() || !l.keys.verify(h.Key, h.Sig, h.payload()) {
			return false, fmt.Errorf("%w: the head in %s is not of this segment or key; nothing is removed", ErrContradiction, e.place())
		}
		return true, nil
	}
}

// size is for the record only: 0 when it cannot be told.
func (l *Log) size(first uint64) int64 {
	f, err := l.cfg.FS.OpenFile(segmentPath(l.cfg.Dir, first), os.O_RDONLY)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // read-only: nothing can be lost
	size, err := f.Size()
	if err != nil {
		return 0
	}
	return size
}
