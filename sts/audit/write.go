package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// breakage is why a new segment is needed.
type breakage struct {
	cause string // a Cause constant
	err   error
}

// own reports whether the log itself writes the type when it sees fit, so also while it closes.
func (t Type) own() bool {
	switch t {
	case TypeExchange, TypeIntrospection, TypeReceipt, TypeAdmin, TypeKeys, TypeConfig, TypeRevocation, TypeAccepted:
		return false
	}
	return true
}

// usable says why nothing can be appended now. The caller holds mu.
func (l *Log) usable(t Type) error {
	if l.closed && (l.ended || !t.own()) {
		return fmt.Errorf("%w: it was closed", ErrUnavailable)
	}
	if l.broken != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, l.broken.cause, l.broken.err)
	}
	return nil
}

// write puts one encoded record at the end of the chain. It returns the record's number and, when the record has
// to wait for its sync, the round to wait for.
func (l *Log) write(line *line, rec *Record, wait bool) (uint64, *round, error) {
	length := int64(len(line.buf))
	for {
		l.mu.Lock()
		if err := l.usable(rec.Type); err != nil {
			l.mu.Unlock()
			return 0, nil, err
		}
		if !l.full && (l.end.offset+length <= l.cfg.SegmentSize || l.end.n == l.first) {
			break
		}
		first := l.first
		l.mu.Unlock()
		if err := l.rotate(first); err != nil {
			return 0, nil, err
		}
	}
	defer l.mu.Unlock()
	return l.put(line, rec, wait)
}

// put writes the line at its offset. A write that fails or falls short is taken back, so that no half line can
// stand before a whole one, and the chain does not advance. The caller holds mu.
func (l *Log) put(line *line, rec *Record, wait bool) (uint64, *round, error) {
	b, h := line.chain(l.hasher, &l.end.hash, l.end.n+1)
	if _, err := l.file.WriteAt(b, l.end.offset); err != nil {
		l.faults.write = err
		if terr := l.file.Truncate(l.end.offset); terr != nil {
			l.broken = &breakage{cause: CauseWrite, err: errors.Join(err, terr)}
			l.wake(l.wakeKeep)
		}
		return 0, nil, fmt.Errorf("%w: writing: %w", ErrUnavailable, err)
	}
	l.faults.write = nil
	l.end = position{n: l.end.n + 1, hash: h, time: rec.Time, segment: l.first, offset: l.end.offset + int64(len(b))}
	l.pending = append(l.pending, b...)
	l.counts.appended++
	l.counts.bytes += uint64(len(b))
	if rec.Type != TypeHead {
		l.counts.sinceHead++
	}
	now := time.Now()
	oldest := l.syncing
	if l.dirty.IsZero() {
		l.dirty = now
		l.wake(l.wakeSync)
	}
	if oldest.IsZero() {
		oldest = l.dirty
	}
	if wait || now.Sub(oldest) > loss && !rec.Type.own() {
		if l.waiting == nil {
			l.waiting = &round{done: make(chan struct{})}
		}
		return l.end.n, l.waiting, nil
	}
	return l.end.n, nil, nil
}

func (l *Log) wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // already awake
	}
}

// rotate ends the segment that begins with first, if it is still the current one, and begins the next.
// While it does, appenders wait for syncMu, and Health and Stats for nothing.
func (l *Log) rotate(first uint64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	if err := l.usable(TypeSegment); err != nil || l.first != first {
		l.mu.Unlock()
		return err
	}
	if time.Since(l.faults.rotated) < retryEvery {
		defer l.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnavailable, l.faults.rotate)
	}
	l.full = true // nothing more goes into this segment, whatever happens from here on
	l.mu.Unlock()
	err := l.syncNow()
	if err != nil {
		return err
	}
	l.mu.Lock()
	old, end := l.file, l.end
	l.mu.Unlock()
	rec := &Record{Type: TypeSegment, Time: l.cfg.Now()}
	if err = l.beginSegment(end.n+1, end.hash, []*Record{rec}, nil); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.faults.rotate, l.faults.rotated = err, time.Now()
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	_ = old.Close() // synced: nothing can be lost
	return nil
}

// beginSegment makes a segment that begins with records (the first of them tells where the chain comes
// from) and then raw lines of an earlier segment, under new numbers. It takes its final name only when it is
// whole and synced, so a segment always begins with a whole record. The caller holds syncMu and has seen to it
// that nothing is put meanwhile (full or broken), or is alone.
func (l *Log) beginSegment(first uint64, prev sum, records []*Record, again []byte) error {
	records[0].Segment = &Segment{Log: l.id, Durability: l.cfg.Durability}
	if prev != (sum{}) {
		records[0].Segment.Prev = prev.String()
	}
	at := position{n: first - 1, hash: prev, segment: first}
	var content []byte
	hasher := sha256.New()
	add := func(rec *Record) error {
		line := l.lines.take()
		defer l.lines.give(line)
		if err := line.encode(rec); err != nil {
			return err
		}
		b, h := line.chain(hasher, &at.hash, at.n+1)
		content = append(content, b...)
		at.n, at.hash, at.time = at.n+1, h, rec.Time
		return nil
	}
	for _, rec := range records {
		if err := add(rec); err != nil {
			return err
		}
	}
	if err := eachLine(again, add); err != nil {
		return err
	}
	at.offset = int64(len(content))
	f, err := l.create(first, content)
	if err != nil {
		return fmt.Errorf("beginning segment %s: %w", segmentName(first), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file, l.first, l.began, l.full = f, first, time.Now(), false
	l.end, l.synced = at, at
	l.pending, l.dirty = l.pending[:0], time.Time{}
	l.faults.write, l.faults.rotate, l.broken = nil, nil, nil
	l.counts.appended += uint64(len(records))
	l.counts.bytes += uint64(len(content))
	return nil
}

// eachLine reads whole lines back, without heads: those speak of the place they had.
func eachLine(raw []byte, do func(*Record) error) error {
	for line := range bytes.Lines(raw) {
		var e entry
		e.ok = e.parse(bytes.TrimSuffix(line, []byte("\n")))
		rec, err := e.record()
		if err != nil {
			return err
		}
		if rec.Type == TypeHead {
			continue
		}
		if err := do(&rec); err != nil {
			return err
		}
	}
	return nil
}

// create makes a segment file with its first content.
func (l *Log) create(first uint64, content []byte) (File, error) {
	fs, name := l.cfg.FS, segmentPath(l.cfg.Dir, first)
	unfinished := filepath.Join(l.cfg.Dir, segmentName(first)+unfinishedSuffix)
	f, err := fs.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(unfinished, name)
	}
	if err == nil {
		err = fs.SyncDir(l.cfg.Dir)
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	// Neither name holds anything that was acknowledged. What cannot be removed is replaced by the next try.
	_ = fs.Remove(unfinished)
	_ = fs.Remove(name)
	return nil, err
}
