package audit

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// found is what Open learns from the disk.
type found struct {
	log       string     // id, "" for a log that never was
	slot      int        // of the head file that must survive, or -1
	last      position   // record that the chain goes on from
	next      uint64     // number of the first new record
	suspect   uint64     // recovered record whose contradiction nobody has accepted
	recovered *Recovered // nil after an orderly end
}

// inspect reads the head file and what was written from the head's segment on. It changes nothing but to remove
// segments that were never finished.
func (l *Log) inspect() (found, error) {
	fs := l.cfg.FS
	if err := l.removeUnfinished(); err != nil {
		return found{}, err
	}
	slots, err := readHeads(fs, l.cfg.HeadFile, l.keys)
	if err != nil {
		return found{}, err
	}
	segments, err := listSegments(fs, l.cfg.Dir)
	if err != nil {
		return found{}, err
	}
	f := found{slot: newest(slots), next: 1}
	var head Head
	if f.slot >= 0 {
		head = slots[f.slot].head
		f.log, f.suspect = head.Log, head.Suspect
	}
	untouched := slots[0].blank && slots[1].blank
	if len(segments) == 0 && (untouched || f.slot >= 0 && head.N == 0) {
		return f, nil
	}
	s := survey{folder: folder{fs: fs, dir: l.cfg.Dir}, head: head}
	switch {
	case untouched:
		s.conflict("the head file is gone")
	case f.slot < 0:
		s.conflict("the head file holds no head signed by a known key")
	case emptied(slots):
		s.conflict("half of the head file is empty: a newer head may have stood there")
	}
	if err := s.walk(segments); err != nil {
		return found{}, err
	}
	f.last, f.next = s.last, s.last.n+1
	if s.accepted != 0 && s.accepted == f.suspect {
		f.suspect = 0
	}
	if s.suspect != 0 {
		f.suspect = s.suspect
	}
	if f.log == "" {
		f.log = s.log
	}
	if head.Closed && s.last.n == head.N && len(s.void) == 0 && len(s.conflicts) == 0 {
		return f, nil
	}
	f.recovered = s.recovered()
	// Numbers that a signed head or a file name has used are not used again.
	f.next = max(f.next, head.N+1)
	if len(segments) > 0 {
		f.next = max(f.next, segments[len(segments)-1]+1)
	}
	return f, nil
}

func (l *Log) removeUnfinished() error {
	names, err := l.cfg.FS.ReadDir(l.cfg.Dir)
	if err != nil {
		return fmt.Errorf("listing the audit log: %w", err)
	}
	for _, name := range names {
		if segment, ok := strings.CutSuffix(name, unfinishedSuffix); ok {
			if _, ok := parseSegmentName(segment); !ok {
				continue
			}
			if err := l.cfg.FS.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
				return fmt.Errorf("removing an unfinished segment: %w", err)
			}
		}
	}
	return nil
}

// survey follows the chain from the segment of the head to the end.
type survey struct {
	folder folder
	head   Head

	log       string
	last      position
	json      []byte // of the last record
	mode      Durability
	void      []Void
	conflicts []string
	suspect   uint64
	accepted  uint64
	metHead   bool
	closed    bool // the last record but heads was closed
}

func (s *survey) conflict(format string, args ...any) {
	const enough = 8
	if len(s.conflicts) < enough {
		s.conflicts = append(s.conflicts, fmt.Sprintf(format, args...))
	}
}

func (s *survey) walk(segments []uint64) error {
	from := max(0, len(segments)-1)
	for i, first := range segments {
		if s.head.Segment > 0 && first <= s.head.Segment {
			from = i
		}
	}
	s.metHead = s.head.N == 0
	for i := from; i < len(segments); i++ {
		_, limit := s.folder.limit(segments, i)
		if err := s.segment(segments[i], i == from, i == len(segments)-1, limit); err != nil {
			return err
		}
	}
	if !s.metHead {
		s.conflict("the log ends with record %d, but record %d was signed", s.last.n, s.head.N)
	}
	return nil
}

// segment follows the chain through one segment. What does not go on from the record before ends it: in the last
// segment that is the torn end of a power cut, unless a head says otherwise; before it, a contradiction.
func (s *survey) segment(first uint64, start, end bool, limit int64) error {
	r, err := s.folder.open(first, limit)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.number == 1 {
			s.enter(e, start)
		}
		follows := e.ok && e.n == s.last.n+1 && e.follows(&s.last.hash)
		if !follows {
			s.stop(e, end)
			return nil
		}
		s.last = position{n: e.n, hash: e.stated, segment: first, offset: e.end}
		if err := s.note(e); err != nil {
			return err
		}
	}
}

// enter reads how a segment ties to what stands before it.
func (s *survey) enter(e *entry, start bool) {
	rec, err := e.record()
	if err != nil || rec.Segment == nil {
		return // the line will not follow
	}
	if s.log == "" {
		s.log = rec.Segment.Log
	}
	if s.head.Log != "" && rec.Segment.Log != s.head.Log {
		s.conflict("%s belongs to log %s, the head to log %s", e.place(), rec.Segment.Log, s.head.Log)
	}
	s.mode = rec.Segment.Durability
	if rec.Recovered != nil && rec.Recovered.Conflict != "" {
		s.suspect = rec.N
	}
	prev, _ := parseSum(rec.Segment.Prev) // "" is the zero hash
	jump := rec.Recovered != nil && rec.Recovered.Last.N == s.last.n && e.n > s.last.n
	if !start && (prev != s.last.hash || !jump && e.n != s.last.n+1) {
		s.conflict("%s does not go on from record %d", e.place(), s.last.n)
	}
	s.last.n, s.last.hash = e.n-1, prev
}

// stop ends a segment at a line that does not follow.
func (s *survey) stop(e *entry, end bool) {
	if !end || e.number == 1 { // a segment has its name only when its first record is synced
		s.conflict("%s does not follow the record before it", e.place())
	}
	if !end {
		return
	}
	if s.head.Closed && s.metHead && e.first == s.head.Segment {
		s.conflict("%s was added after the log had been closed", e.place())
	}
	if v := readVoid(s.folder.fs, s.folder.dir, e.first, e.offset); v != nil {
		s.void = append(s.void, *v)
	}
}

// note looks at a record that follows.
func (s *survey) note(e *entry) error {
	s.json = append(s.json[:0], e.json...)
	if e.n == s.head.N {
		s.metHead = true
		if e.stated.String() != s.head.Hash {
			s.conflict("record %d is not the one that was signed", e.n)
		}
	}
	t := e.typ()
	if s.closed && t != TypeHead && e.number > 1 {
		s.conflict("%s was added after the log had been closed", e.place())
	}
	s.closed = t == TypeClosed || t == TypeHead && s.closed
	if s.head.Closed && e.n > s.head.N && (e.first == s.head.Segment || e.n > s.head.N+openingRecords || t != TypeOpened && t != TypeRecovered) {
		s.conflict("%s was added after the log had been closed", e.place())
	}
	if t != TypeAccepted {
		return nil
	}
	rec, err := e.record()
	if err != nil {
		return err
	}
	if rec.Accepted == nil {
		return nil
	}
	s.accepted = rec.Accepted.Recovered
	if s.suspect == s.accepted {
		s.suspect = 0
	}
	return nil
}

func (s *survey) recovered() *Recovered {
	r := &Recovered{
		Cause: CauseUnclean, Last: s.last.mark(), Void: s.void, Conflict: strings.Join(s.conflicts, "; "),
		Head: Mark{N: s.head.N, Hash: s.head.Hash, Time: s.head.Time},
	}
	if s.last.n > s.head.N {
		r.Unsigned = s.last.n - s.head.N
	} else {
		r.Missing = s.head.N - s.last.n
	}
	if s.mode != Machine {
		r.MayMiss = loss.Milliseconds()
	}
	last := entry{ok: len(s.json) > 0, json: s.json}
	if rec, err := last.record(); err == nil {
		r.Last.Time = rec.Time.UTC()
	}
	return r
}
