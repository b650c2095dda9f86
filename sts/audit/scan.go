package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Line is one record and where it stands.
type Line struct {
	Record
	Hash   string // hex; "" for a sample
	File   string // name inside the directory
	Number int    // of the line, from 1
	Sample bool   // of junk: beside the chain, proves nothing
}

// Filter chooses records. The zero Filter chooses all of the chain.
type Filter struct {
	Types    []Type    // none: all
	Decision string    // "": all
	From, To time.Time // From <= time < To; zero: open
	Samples  bool      // the samples of junk too, after the chain
}

func (f *Filter) match(r *Record) bool {
	return (len(f.Types) == 0 || slices.Contains(f.Types, r.Type)) &&
		(f.Decision == "" || f.Decision == r.Decision) &&
		(f.From.IsZero() || !r.Time.Before(f.From)) &&
		(f.To.IsZero() || r.Time.Before(f.To))
}

// Scan calls do for the records of the log in dir that the filter chooses, oldest first, one at a time: it
// holds no more than one line. It only reads, works while a server writes, and does not verify: that is for
// [Verify]. Bytes that are no part of the log are left out, those that an interrupted write left behind only when
// the log was opened since. It stops at the first error of do and returns it.
func Scan(dir string, do func(Line) error, filter Filter) error {
	fs := Disk{}
	segments, err := listSegments(fs, dir)
	if err != nil {
		return err
	}
	d := folder{fs: fs, dir: dir}
	for i, first := range segments {
		next, limit := d.limit(segments, i)
		if next.N > 0 && !filter.From.IsZero() && next.Time.Add(disorder).Before(filter.From) {
			continue
		}
		err := d.scan(first, limit, &filter, do)
		if errors.Is(err, iofs.ErrNotExist) {
			continue // retention was faster
		}
		if err != nil {
			return err
		}
	}
	if !filter.Samples {
		return nil
	}
	return scanSamples(dir, &filter, do)
}

// disorder is how much later a record may be appended than it was stamped: a broker stands between the two.
const disorder = 5 * time.Minute

func (d *folder) scan(first uint64, limit int64, filter *Filter, do func(Line) error) error {
	r, err := d.open(first, limit)
	if err != nil {
		return err
	}
	defer r.close()
	needle := filter.needle()
	for {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !e.ok || !bytes.Contains(e.json, needle) {
			continue
		}
		if len(filter.Types) > 0 && !slices.Contains(filter.Types, e.typ()) {
			continue
		}
		rec, err := e.record()
		if err != nil || !filter.match(&rec) {
			continue // not a record: Verify says so
		}
		if err := do(Line{Record: rec, Hash: e.stated.String(), File: segmentName(first), Number: e.number}); err != nil {
			return err
		}
	}
}

// needle is what every chosen line contains, so that most lines need not be decoded.
func (f *Filter) needle() []byte {
	if f.Decision == "" {
		return nil
	}
	quoted, err := json.Marshal(f.Decision)
	if err != nil {
		return nil
	}
	return quoted
}

func scanSamples(dir string, filter *Filter, do func(Line) error) error {
	for _, name := range junkNames {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading samples: %w", err)
		}
		err = scanSampleFile(f, name, filter, do)
		_ = f.Close() // read-only: nothing can be lost
		if err != nil {
			return err
		}
	}
	return nil
}

func scanSampleFile(f io.Reader, name string, filter *Filter, do func(Line) error) error {
	s := bufio.NewScanner(f)
	s.Buffer(nil, MaxLine)
	for number := 1; s.Scan(); number++ {
		var rec Record
		if json.Unmarshal(s.Bytes(), &rec) != nil || !filter.match(&rec) {
			continue // torn
		}
		if err := do(Line{Record: rec, File: name, Number: number, Sample: true}); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// Find returns the newest record of a decision: of the chain, newest segment first, else of the samples of junk. It
// reads whole segments, about a second per gigabyte, until it finds one. False means that there is none.
func Find(dir, decision string) (Record, bool, error) {
	if decision == "" {
		return Record{}, false, nil
	}
	fs := Disk{}
	segments, err := listSegments(fs, dir)
	if err != nil {
		return Record{}, false, err
	}
	var out Record
	found := false
	keep := func(l Line) error {
		out, found = l.Record, true
		return nil
	}
	filter := Filter{Decision: decision}
	d := folder{fs: fs, dir: dir}
	for i, first := range slices.Backward(segments) {
		_, limit := d.limit(segments, i)
		err := d.scan(first, limit, &filter, keep)
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return Record{}, false, err
		}
		if found {
			return out, true, nil
		}
	}
	if err := scanSamples(dir, &filter, keep); err != nil {
		return Record{}, false, err
	}
	return out, found, nil
}
