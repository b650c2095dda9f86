package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of what anybody on the network can make the log write.
const (
	junkRate    = 20               // samples a second, and at once
	junkEvery   = 10 * time.Second // at most one record of counts in so long
	junkFile    = 4 << 20          // bytes of each of the two files of samples
	junkSample  = 16 << 10         // bytes of one sample
	junkReasons = 64               // distinct reasons; the rest is counted as "other"
	junkReason  = 64               // bytes of a reason
	junkOther   = "other"
)

var junkNames = [2]string{"junk-a.log", "junk-b.log"}

// junk counts and samples attempts that failed before a signature verified.
type junk struct {
	samples chan []byte

	mu      sync.Mutex
	since   time.Time
	counts  map[string]uint64 // not yet in the chain
	total   map[string]uint64 // since Open
	sampled uint64
	tokens  float64
	filled  time.Time

	// Of the keeper, and of Open and Close when it does not run.
	files [2]File
	sizes [2]int64
	at    int
}

// Junk counts one attempt that failed before a signature verified, and keeps some of them as samples: at most 20
// a second, in two files of at most 4 MiB. It never blocks, never fails and allocates nothing that stays.
// reason should be one of few constants. rec is not kept; it may be nil.
func (l *Log) Junk(reason string, rec *Record) {
	j := &l.junk
	if len(reason) > junkReason {
		reason = reason[:junkReason]
	}
	j.mu.Lock()
	if len(j.counts) == 0 {
		j.since = l.cfg.Now().UTC()
		defer l.wake(l.wakeKeep)
	}
	count(j.counts, reason, 1)
	count(j.total, reason, 1)
	sample := rec != nil && j.allow()
	j.mu.Unlock()
	if !sample {
		return
	}
	line := l.lines.take()
	defer l.lines.give(line)
	c := *rec
	if c.Time.IsZero() {
		c.Time = l.cfg.Now()
	}
	if line.encode(&c) != nil || len(line.body()) > junkSample {
		return
	}
	select {
	case j.samples <- append([]byte(nil), line.body()...):
		j.mu.Lock()
		j.sampled++
		j.mu.Unlock()
	default: // the disk is slow: counted, not sampled
	}
}

// count adds to a counter of few names.
func count(m map[string]uint64, name string, n uint64) {
	if _, ok := m[name]; !ok && len(m) >= junkReasons {
		name = junkOther
	}
	m[name] += n
}

// allow is a token bucket. The caller holds mu.
func (j *junk) allow() bool {
	now := time.Now()
	j.tokens = min(junkRate, j.tokens+now.Sub(j.filled).Seconds()*junkRate)
	j.filled = now
	if j.tokens < 1 {
		return false
	}
	j.tokens--
	return true
}

func (j *junk) pending() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.counts) > 0
}

// prepareJunk opens the files of samples and goes on with the one that has room.
func (l *Log) prepareJunk() error {
	j := &l.junk
	j.samples = make(chan []byte, junkRate)
	j.counts, j.total = map[string]uint64{}, map[string]uint64{}
	j.tokens, j.filled = junkRate, time.Now()
	for i, name := range junkNames {
		f, err := l.cfg.FS.OpenFile(filepath.Join(l.cfg.Dir, name), os.O_RDWR|os.O_CREATE)
		if err != nil {
			return fmt.Errorf("opening the samples of junk: %w", err)
		}
		j.files[i] = f
		if j.sizes[i], err = f.Size(); err != nil {
			return fmt.Errorf("opening the samples of junk: %w", err)
		}
	}
	if j.sizes[1] > 0 && j.sizes[1] < j.sizes[0] {
		j.at = 1
	}
	if size := j.sizes[j.at]; size > 0 { // a killed process may have left half a line
		var last [1]byte
		if _, err := j.files[j.at].ReadAt(last[:], size-1); err == nil && last[0] != '\n' {
			l.writeSample([]byte("\n"))
		}
	}
	return nil
}

// writeSample writes one sample, into the other file when this one is full. Samples are no evidence and never use
// the reserve of disk; a failure loses the sample.
func (l *Log) writeSample(s []byte) {
	j := &l.junk
	if l.room() != nil {
		return
	}
	if j.sizes[j.at]+int64(len(s)) > junkFile {
		other := 1 - j.at
		if j.files[other].Truncate(0) != nil {
			return
		}
		j.at, j.sizes[other] = other, 0
	}
	if _, err := j.files[j.at].WriteAt(s, j.sizes[j.at]); err != nil {
		_ = j.files[j.at].Truncate(j.sizes[j.at])
		return
	}
	j.sizes[j.at] += int64(len(s))
}

// flushJunk puts the counts into the chain. When that fails they stay for the next time.
func (l *Log) flushJunk() {
	for len(l.junk.samples) > 0 {
		l.writeSample(<-l.junk.samples)
	}
	if l.room() != nil {
		return
	}
	j := &l.junk
	j.mu.Lock()
	rec := &Junk{Since: j.since, Counts: maps.Clone(j.counts), Sampled: j.sampled}
	clear(j.counts)
	j.sampled = 0
	j.mu.Unlock()
	if len(rec.Counts) == 0 {
		return
	}
	if l.append(context.Background(), &Record{Type: TypeJunk, Junk: rec}, false) == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for reason, n := range rec.Counts {
		count(j.counts, reason, n)
	}
	j.sampled += rec.Sampled
	j.since = rec.Since
}

func (j *junk) close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
