package audit

import (
	"errors"
	"io"
)

const (
	// recentHashes is how far back a head in the chain may speak of a record: it is written right after it was
	// signed, so this is far more than it takes. A power of two.
	recentHashes = 1 << 16
	// openingRecords is how many records a process may have written before its first head.
	openingRecords = 2
)

// verifier follows the chain from the first segment to the last.
type verifier struct {
	folder  folder
	keys    keyring
	head    Head // of the head file, zero when there is none
	witness *Witness
	report  Report

	n          uint64 // of the last record
	hash       sum
	place      string // of the last line
	start      uint64 // first record
	prev       string // what the first segment says of the record before it
	lostStart  bool   // the first segment is a recovered one that says that everything before is gone
	prunedTo   uint64 // retention removed what stands before this record
	afterClose int    // records after the head file's closing head
	closed     bool   // the last record but heads was closed
	orderly    bool   // the log ends with a closed record and its head
	rewritten  bool   // found once: what follows of it says nothing new
	accepted   map[uint64]bool
	recent     []sum
	blind      bool   // the hash of the last record is not known
	first      []byte // times, as they stand there
	last       []byte
}

// segment follows the chain through one segment, up to limit.
func (v *verifier) segment(first uint64, start, last bool, limit int64) error {
	r, err := v.folder.open(first, limit)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			if r.entry.number == 1 {
				v.report.find(KindUnreadable, segmentName(first), 0, "the segment is empty")
			}
			return nil
		}
		if err != nil {
			return err
		}
		v.place = e.place()
		if e.number == 1 {
			v.enter(e, start)
		}
		if e.ok && e.n == v.n+1 && (v.blind || e.follows(&v.hash)) {
			v.advance(e)
			continue
		}
		if last && v.torn(e) {
			return v.tail(r, e)
		}
		v.broken(e)
	}
}

// torn reports whether a line that does not follow may be the end of an interrupted write: everything signed stands
// before it. A segment gets its name only when its first record is synced, so that one cannot be torn.
func (v *verifier) torn(e *entry) bool {
	return e.number > 1 && v.n >= v.head.N && v.head.N > 0 && !(v.head.Closed && v.head.Segment == e.first)
}

func (v *verifier) tail(r *segmentReader, e *entry) error {
	offset, end := e.offset, e.end
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		end = e.end
	}
	v.report.Tails = append(v.report.Tails, Tail{File: segmentName(r.entry.first), Offset: offset, Bytes: end - offset})
	return nil
}

// broken reports a line that does not follow, and goes on from what it states, so that one change is one
// finding.
func (v *verifier) broken(e *entry) {
	r := &v.report
	switch {
	case v.head.Closed && v.n >= v.head.N && e.first == v.head.Segment:
		r.find(KindAdded, e.place(), 0, "the log was closed before this line")
		return
	case !e.ok:
		r.find(KindUnreadable, e.place(), v.n+1, "this is no line of the log")
		if !e.whole {
			return // the end was cut off
		}
		// The record it was is counted, lest its successor is reported missing too; nobody knows its hash.
		v.n, v.hash, v.blind = v.n+1, sum{}, true
		v.recent[v.n%recentHashes] = sum{}
		v.report.Records++
		return
	case e.n > v.n+1:
		r.find(KindMissing, e.place(), e.n, "record %d follows record %d", e.n, v.n)
	case e.n <= v.n:
		r.find(KindOrder, e.place(), e.n, "record %d follows record %d", e.n, v.n)
	default:
		r.find(KindEdited, e.place(), e.n, "the record does not have the hash of its line, or does not go on from the line before")
	}
	v.advance(e)
}

// advance takes a record in.
func (v *verifier) advance(e *entry) {
	v.n, v.hash, v.blind = e.n, e.stated, false
	v.recent[v.n%recentHashes] = v.hash
	r := &v.report
	r.Records++
	if v.n == v.head.N {
		v.compare(e, v.head.Hash, "signed")
	}
	if w := v.witness; w != nil && v.n == w.N {
		r.Witnessed = v.compare(e, w.Hash, "told to a witness")
	}
	t := e.typ()
	// Whoever opens a log that was closed begins a segment, so nothing but heads can follow in this one. Without
	// this, records could be invented there by whoever also spoils the head that says that the log was closed.
	if v.closed && t != TypeHead && e.number > 1 {
		r.find(KindAdded, e.place(), e.n, "the log was closed earlier in this segment")
	}
	if v.head.Closed && v.n > v.head.N {
		v.afterClose++
		// A process signs what it opened with before it writes anything else.
		if e.first == v.head.Segment || t != TypeOpened && t != TypeRecovered || v.afterClose > openingRecords {
			r.find(KindAdded, e.place(), e.n, "the log was closed with record %d, and nothing since is signed", v.head.N)
		}
	}
	v.orderly = t == TypeHead && v.closed
	v.closed = t == TypeClosed || v.orderly
	v.stamp(e)
	if t == TypePruned || t == TypeAccepted || t == TypeHead {
		v.note(e)
	}
}

// compare says whether a record has the hash that it should.
func (v *verifier) compare(e *entry, want, why string) bool {
	got := e.stated.String() == want
	if got {
		v.report.Signed = max(v.report.Signed, e.n)
		return true
	}
	if !v.rewritten {
		v.report.find(KindRewritten, e.place(), e.n, "record %d is not the one that was %s: something after record %d was changed", e.n, why, v.report.Signed)
	}
	v.rewritten = true
	return false
}

// stamp keeps the times of the first and the last record.
func (v *verifier) stamp(e *entry) {
	if v.report.FirstN == 0 {
		v.report.FirstN = e.n
		v.first = append([]byte(nil), e.moment()...)
	}
	v.last = append(v.last[:0], e.moment()...)
}

// note takes in what a record says about others.
func (v *verifier) note(e *entry) {
	rec, err := e.record()
	switch {
	case err != nil:
		v.report.find(KindUnreadable, e.place(), e.n, "the record cannot be decoded")
	case rec.Head != nil:
		v.signature(e, rec.Head)
	case rec.Pruned != nil:
		p := rec.Pruned
		if !v.keys.verify(p.Key, p.Sig, p.payload(v.report.Log)) {
			v.report.find(KindForged, e.place(), e.n, "the pruned record is not signed by a known key")
			return
		}
		v.prunedTo = max(v.prunedTo, p.First)
		if v.start == p.First && v.start > 1 && v.prev != p.Prev {
			v.report.find(KindRewritten, segmentName(v.start), v.start, "what it says of the record before it is not what retention signed")
		}
	case rec.Accepted != nil:
		if v.accepted == nil {
			v.accepted = map[uint64]bool{}
		}
		v.accepted[rec.Accepted.Recovered] = true
	}
}

// signature checks a head in the chain against the record it speaks of.
func (v *verifier) signature(e *entry, h *Head) {
	if h.Log != v.report.Log || !v.keys.verify(h.Key, h.Sig, h.payload()) {
		v.report.find(KindForged, e.place(), e.n, "the head is not signed by a known key for this log")
		return
	}
	if h.N == 0 || h.N >= e.n || h.N < v.start || e.n-h.N >= recentHashes {
		return // of a time before what is left, or before the first record
	}
	if v.recent[h.N%recentHashes].String() == h.Hash {
		v.report.Signed = max(v.report.Signed, h.N)
		return
	}
	if !v.rewritten {
		v.report.find(KindRewritten, e.place(), h.N, "record %d is not the one that was signed here: something after record %d was changed", h.N, v.report.Signed)
	}
	v.rewritten = true
}
