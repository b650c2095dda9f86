package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

// entry is one line as it stands in a segment. Its bytes are valid until the next line is read.
type entry struct {
	first  uint64 // of the segment
	number int    // of the line, from 1
	offset int64  // of its first byte
	end    int64  // of the byte after its newline
	whole  bool   // has its newline
	ok     bool   // has the form of a line; nothing is said of its hash
	n      uint64
	stated sum
	json   []byte
}

func (e *entry) place() string { return fmt.Sprintf("%s:%d", segmentName(e.first), e.number) }

// follows reports whether the line's hash is that of its JSON after prev.
func (e *entry) follows(prev *sum) bool {
	var h sum
	d := sha256.New()
	h = link(d, prev, e.json)
	return e.ok && h == e.stated
}

// typ returns the record type, read from its fixed place after the number.
func (e *entry) typ() Type {
	_, rest, _ := bytes.Cut(e.json, []byte(","))
	t, _ := member(rest, `"type":"`)
	return Type(t)
}

// moment returns the record's time, as text, read from its fixed place after the type.
func (e *entry) moment() []byte {
	_, rest, _ := bytes.Cut(e.json, []byte(","))
	_, rest = member(rest, `"type":"`)
	t, _ := member(bytes.TrimPrefix(rest, []byte(",")), `"time":"`)
	return t
}

// member returns the value of the member that b begins with, if it has the key, and what follows.
func member(b []byte, key string) (value, rest []byte) {
	b, ok := bytes.CutPrefix(b, []byte(key))
	if !ok {
		return nil, nil
	}
	value, rest, _ = bytes.Cut(b, []byte(`"`))
	return value, rest
}

func (e *entry) record() (Record, error) {
	var r Record
	if !e.ok {
		return r, fmt.Errorf("%s is not a line of the audit log", e.place())
	}
	if err := json.Unmarshal(e.json, &r); err != nil {
		return r, fmt.Errorf("reading %s: %w", e.place(), err)
	}
	return r, nil
}

// parse takes a line apart; the newline is not part of it.
func (e *entry) parse(b []byte) bool {
	if len(b) < hashDigits+1+len(numberKey)+2 || b[hashDigits] != ' ' {
		return false
	}
	if _, err := hex.Decode(e.stated[:], b[:hashDigits]); err != nil || bytes.ContainsAny(b[:hashDigits], "ABCDEF") {
		return false
	}
	e.json = b[hashDigits+1:]
	rest, ok := bytes.CutPrefix(e.json, []byte(numberKey))
	if !ok || e.json[len(e.json)-1] != '}' {
		return false
	}
	digits, _, ok := bytes.Cut(rest, []byte(","))
	if !ok || len(digits) == 0 || digits[0] == '0' {
		return false
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	e.n = n
	return err == nil
}

// folder reads the segments of one directory, one at a time. Its buffer is used again for each, so what it
// holds does not depend on how many there are. It is not safe for concurrent use.
type folder struct {
	fs  FS
	dir string
	in  *bufio.Reader
}

// segmentReader reads the lines of one segment, at most up to a limit. Only one of a folder can be open.
type segmentReader struct {
	file  File
	in    *bufio.Reader
	entry entry
}

// toEnd is no limit.
const toEnd = math.MaxInt64

func (d *folder) open(first uint64, limit int64) (*segmentReader, error) {
	f, err := d.fs.OpenFile(segmentPath(d.dir, first), os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("opening a segment: %w", err)
	}
	if d.in == nil {
		d.in = bufio.NewReaderSize(nil, MaxLine)
	}
	d.in.Reset(io.NewSectionReader(f, 0, limit))
	return &segmentReader{file: f, in: d.in, entry: entry{first: first}}, nil
}

// next returns the next line, whole or not, and io.EOF after the last byte. A line longer than MaxLine and
// one without its newline have ok == false.
func (r *segmentReader) next() (*entry, error) {
	e := &r.entry
	e.number++
	e.offset, e.ok, e.json, e.n = e.end, false, nil, 0
	b, err := r.in.ReadSlice('\n')
	e.end += int64(len(b))
	e.whole = err == nil
	for errors.Is(err, bufio.ErrBufferFull) {
		b, err = r.in.ReadSlice('\n')
		e.end += int64(len(b))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", e.place(), err)
	}
	if e.end == e.offset {
		return nil, io.EOF
	}
	e.ok = e.whole && e.parse(b[:len(b)-1])
	return e, nil
}

func (r *segmentReader) close() { _ = r.file.Close() } // read-only: nothing can be lost

// first reads the record that a segment begins with: opened, recovered or segment. No segment may be open.
func (d *folder) first(first uint64) (Record, error) {
	r, err := d.open(first, toEnd)
	if err != nil {
		return Record{}, err
	}
	defer r.close()
	e, err := r.next()
	if errors.Is(err, io.EOF) {
		return Record{}, fmt.Errorf("%s is empty", segmentName(first))
	}
	if err != nil {
		return Record{}, err
	}
	rec, err := e.record()
	if err != nil {
		return Record{}, err
	}
	if rec.Segment == nil || rec.N != first {
		return Record{}, fmt.Errorf("%s does not begin a segment", e.place())
	}
	return rec, nil
}

// limit returns how the segment after segments[i] begins (the zero Record when none does) and where segments[i]
// ends as part of the log. No segment may be open.
func (d *folder) limit(segments []uint64, i int) (next Record, limit int64) {
	limit = toEnd
	if i+1 >= len(segments) {
		return next, limit
	}
	next, err := d.first(segments[i+1])
	if err == nil && next.Recovered != nil {
		for _, v := range next.Recovered.Void {
			if v.Segment == segments[i] {
				limit = v.Offset
			}
		}
	}
	return next, limit
}

// readVoid describes the bytes of a segment from an offset to its end; nil when there are none.
func readVoid(fs FS, dir string, first uint64, offset int64) *Void {
	v := &Void{Segment: first, Offset: offset, Bytes: -1}
	f, err := fs.OpenFile(segmentPath(dir, first), os.O_RDONLY)
	if err != nil {
		return v
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, offset, toEnd-offset))
	if err != nil {
		return v
	}
	if n == 0 {
		return nil
	}
	v.Bytes, v.SHA256 = n, hex.EncodeToString(h.Sum(nil))
	return v
}
