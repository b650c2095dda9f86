package audit

import (
	"fmt"
	"time"
)

// Kind says what is wrong.
type Kind string

// The kinds of findings.
const (
	KindEdited     Kind = "edited"        // a record does not have the hash that its line states, or its line states another
	KindUnreadable Kind = "unreadable"    // not a line of the log
	KindMissing    Kind = "missing"       // records are gone from the middle or the beginning
	KindOrder      Kind = "out of order"  // a record was inserted, repeated or moved
	KindTruncated  Kind = "truncated"     // the log ends before a record that was signed or witnessed
	KindAdded      Kind = "added"         // something follows the end of a log that was closed in order
	KindRewritten  Kind = "rewritten"     // the chain holds, but it is not the one that was signed or witnessed
	KindForged     Kind = "forged"        // a signature is not by a known key
	KindHead       Kind = "head file"     // it is gone, or damaged though the log was closed in order
	KindVoid       Kind = "void changed"  // bytes that a recovered record describes are not those
	KindReported   Kind = "found at open" // a recovered record reports a contradiction that Open found
)

// Finding is one thing that is wrong, and where.
type Finding struct {
	Kind     Kind   `json:"kind"`
	Place    string `json:"place"` // file:line, or a file
	N        uint64 `json:"n,omitzero"`
	Detail   string `json:"detail"`
	Accepted bool   `json:"accepted,omitempty"` // by an operator, see [Log.Accept]
}

// String returns the finding in one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s: %s", f.Place, f.Kind, f.Detail)
	if f.Accepted {
		s += " (accepted)"
	}
	return s
}

// Tail is what an interrupted write left behind. It is no tampering: it stands after everything signed.
type Tail struct {
	File      string `json:"file"`
	Offset    int64  `json:"offset"`
	Bytes     int64  `json:"bytes"`
	Recovered uint64 `json:"recovered,omitzero"` // record that describes it; 0: the log was not opened since, or is being written
}

// Report is what [Verify] found.
type Report struct {
	Log       string    `json:"log"` // id
	Segments  int       `json:"segments"`
	Records   uint64    `json:"records"`
	FirstN    uint64    `json:"first_n"`
	LastN     uint64    `json:"last_n"`
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	Signed    uint64    `json:"signed"`    // newest record under a signature that fits
	Unsigned  uint64    `json:"unsigned"`  // records after it: chained only, so the last 50 ms prove less
	Pruned    uint64    `json:"pruned"`    // records that retention removed
	Recovered int       `json:"recovered"` // unclean ends and failed syncs on record
	Witnessed bool      `json:"witnessed"` // the witness's record is there and has its hash
	Findings  []Finding `json:"findings,omitempty"`
	More      int       `json:"more,omitzero"` // findings beyond those listed
	Tails     []Tail    `json:"tails,omitempty"`
}

// OK reports whether nothing is wrong but what an operator has accepted.
func (r Report) OK() bool {
	for _, f := range r.Findings {
		if !f.Accepted {
			return false
		}
	}
	return r.More == 0
}

// maxFindings bounds the report of a log that was overwritten altogether.
const maxFindings = 200

func (r *Report) find(kind Kind, place string, n uint64, format string, args ...any) {
	if len(r.Findings) >= maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, Finding{Kind: kind, Place: place, N: n, Detail: fmt.Sprintf(format, args...)})
}
