package audit

// enter reads how a segment ties to what stands before it.
func (v *verifier) enter(e *entry, start bool) {
	r := &v.report
	rec, err := e.record()
	if err != nil || rec.Segment == nil {
		if start {
			v.start = max(1, e.n)
			v.n = v.start - 1
		}
		return // it does not follow; broken says so
	}
	if r.Log == "" {
		r.Log = rec.Segment.Log
	}
	if rec.Segment.Log != r.Log {
		r.find(KindOrder, e.place(), e.n, "the segment belongs to log %s, not to %s", rec.Segment.Log, r.Log)
	}
	if e.n != e.first {
		r.find(KindOrder, e.place(), e.n, "the segment is named for record %d", e.first)
	}
	prev, ok := parseSum(rec.Segment.Prev)
	if !ok && rec.Segment.Prev != "" {
		r.find(KindEdited, e.place(), e.n, "the hash of the record before is unreadable")
	}
	if start {
		v.start, v.prev = e.n, rec.Segment.Prev
		v.n, v.hash = e.n-1, prev
		if e.n == 1 && rec.Segment.Prev != "" {
			r.find(KindRewritten, e.place(), e.n, "record 1 goes on from another")
		}
	}
	if rec.Recovered == nil {
		return
	}
	r.Recovered++
	v.lostStart = v.lostStart || start && rec.Recovered.Last.N == 0
	if rec.Recovered.Conflict != "" {
		r.find(KindReported, e.place(), e.n, "%s", rec.Recovered.Conflict)
	}
	if !start && rec.Recovered.Last.N == v.n && prev == v.hash && e.n > v.n {
		v.n = e.n - 1 // numbers of lost records are not used again
	}
	for _, void := range rec.Recovered.Void {
		v.void(e, rec.Recovered.Cause, void)
	}
}

// void compares bytes that are no part of the log with what was recorded of them.
func (v *verifier) void(e *entry, cause string, want Void) {
	r := &v.report
	got := readVoid(v.folder.fs, v.folder.dir, want.Segment, want.Offset)
	if got == nil {
		got = &Void{Segment: want.Segment, Offset: want.Offset}
	}
	r.Tails = append(r.Tails, Tail{File: segmentName(want.Segment), Offset: want.Offset, Bytes: got.Bytes, Recovered: e.n})
	// After a failed sync or write nobody knows what the disk keeps.
	if cause == CauseUnclean && *got != want && want.Segment >= v.start {
		r.find(KindVoid, segmentName(want.Segment), e.n, "%d bytes from offset %d on are not the %d that record %d describes", got.Bytes, want.Offset, want.Bytes, e.n)
	}
}
