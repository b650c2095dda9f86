package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"time"
)

// Witness is what somebody elsewhere was told about a log: record N has this hash. It alone can show that log
// and head file were both put back to an earlier state.
type Witness struct {
	N    uint64
	Hash string // hex
}

// VerifyOptions are the rest of what Verify may be told.
type VerifyOptions struct {
	OldKeys []ed25519.PublicKey // that signed before pub
	Witness *Witness
}

var (
	errNoLog = errors.New("there is no audit log and no head file")
	errMoved = errors.New("the log was opened meanwhile")
)

// Verify reads the whole log in dir and says whether it is what was written and signed. It changes nothing,
// needs no lock and works while a server writes, when what is written meanwhile may be reported as a tail. It holds
// a few megabytes at most. An error means that it could not be read, or that there is nothing: neither a log nor
// a head. What is wrong with what was read is in the report.
func Verify(dir, headFile string, pub ed25519.PublicKey, opts VerifyOptions) (Report, error) {
	keys, err := newKeyring(append([]ed25519.PublicKey{pub}, opts.OldKeys...)...)
	if err != nil {
		return Report{}, err
	}
	const tries = 5 // retention may remove a segment while it is read
	for range tries {
		v := verifier{folder: folder{fs: Disk{}, dir: dir}, keys: keys, witness: opts.Witness, recent: make([]sum, recentHashes)}
		err = v.run(headFile)
		if err == nil {
			return v.report, nil
		}
		if !errors.Is(err, iofs.ErrNotExist) && !errors.Is(err, errMoved) {
			break
		}
	}
	return Report{}, fmt.Errorf("verifying the audit log: %w", err)
}

func (v *verifier) run(headFile string) error {
	// The head before the log: what it says is then there already, however fast the server writes.
	slots, err := settledHeads(v.folder.fs, headFile, v.keys)
	if err != nil {
		return err
	}
	if i := newest(slots); i >= 0 {
		v.head, v.report.Log = slots[i].head, slots[i].head.Log
	}
	segments, err := listSegments(v.folder.fs, v.folder.dir)
	if err != nil {
		return err
	}
	if len(segments) == 0 && slots[0].blank && slots[1].blank && v.witness == nil {
		return errNoLog
	}
	v.report.Segments = len(segments)
	for i, first := range segments {
		_, limit := v.folder.limit(segments, i)
		if err := v.segment(first, i == 0, i == len(segments)-1, limit); err != nil {
			return err
		}
	}
	v.conclude(filepath.Base(headFile), slots)
	if v.afterClose > 0 {
		// Perhaps a server opened the log between our look at the head and that at the log.
		slots, err := settledHeads(v.folder.fs, headFile, v.keys)
		if err != nil {
			return err
		}
		if i := newest(slots); i >= 0 && slots[i].head.N > v.head.N {
			return errMoved
		}
	}
	return nil
}

// settledHeads reads the head file again when a slot is no head: a server may be writing it just now.
func settledHeads(fs FS, path string, keys keyring) (slots [slotCount]slot, err error) {
	const tries, pause = 3, 5 * time.Millisecond
	for range tries {
		slots, err = readHeads(fs, path, keys)
		if err != nil || (slots[0].blank || slots[0].valid) && (slots[1].blank || slots[1].valid) {
			break
		}
		time.Sleep(pause)
	}
	return slots, err
}

// conclude compares the end with the head file and the witness.
func (v *verifier) conclude(headFile string, slots [slotCount]slot) {
	r := &v.report
	end := v.place
	if end == "" {
		end = filepath.Base(v.folder.dir)
	}
	switch {
	case newest(slots) >= 0:
	case slots[0].blank && slots[1].blank:
		r.find(KindHead, headFile, 0, "it is gone: the end of the log may be cut off")
	default:
		r.find(KindForged, headFile, 0, "it holds no head signed by a known key")
	}
	if emptied(slots) {
		r.find(KindHead, headFile, 0, "half of it is empty: a newer head may have stood there, and the end of the log may be cut off")
	}
	for i, s := range slots {
		switch {
		case s.blank || s.valid || newest(slots) < 0:
		case v.orderly:
			r.find(KindHead, headFile, 0, "its half %d is damaged or not signed by a known key, though the log was closed in order", i)
		default:
			r.Tails = append(r.Tails, Tail{File: headFile, Offset: int64(i) * slotSize, Bytes: slotSize})
		}
	}
	if v.head.N > v.n {
		r.find(KindTruncated, end, v.n, "the log ends with record %d, but record %d was signed at %s",
			v.n, v.head.N, v.head.Time.UTC().Format(time.RFC3339))
	}
	if w := v.witness; w != nil && w.N > v.n {
		r.find(KindTruncated, end, v.n, "the log ends with record %d, but a witness was told of record %d", v.n, w.N)
	}
	if v.start > 1 && v.start > v.prunedTo && !v.lostStart {
		r.find(KindMissing, segmentName(v.start), v.start, "the log begins with record %d, and no record says that retention removed those before it", v.start)
	}
	if v.start > 1 && v.start <= v.prunedTo {
		r.Pruned = v.start - 1
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Accepted = f.Kind == KindReported && v.accepted[f.N]
	}
	r.LastN = v.n
	r.First, _ = time.Parse(time.RFC3339Nano, string(v.first))
	r.Last, _ = time.Parse(time.RFC3339Nano, string(v.last))
	if r.Signed > v.n {
		r.Signed = v.n
	}
	r.Unsigned = v.n - r.Signed
}
