package sts_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// recorder is an audit log in memory that can be told to fail.
type recorder struct {
	also sts.Audit // the real one, when a test wants both

	mu      sync.Mutex
	records []audit.Record
	junk    []audit.Record
	reasons []string // of junk
	lines   strings.Builder
	before  func(audit.Record) error // called before a record is taken; its error is Append's
}

func (r *recorder) Append(ctx context.Context, rec *audit.Record) error {
	if err := ctx.Err(); err != nil { // as the real one
		return err
	}
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil {
		if err := before(*rec); err != nil {
			return err
		}
	}
	if r.also != nil {
		if err := r.also.Append(ctx, rec); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, clone(rec))
	_ = json.NewEncoder(&r.lines).Encode(rec)
	return nil
}

func (r *recorder) Junk(reason string, rec *audit.Record) {
	if r.also != nil {
		r.also.Junk(reason, rec)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.junk, r.reasons = append(r.junk, clone(rec)), append(r.reasons, reason)
	_ = json.NewEncoder(&r.lines).Encode(rec)
}

// clone copies what the pipeline still changes: the caller keeps its record.
func clone(rec *audit.Record) audit.Record {
	c := *rec
	if rec.Lease != nil {
		l := *rec.Lease
		c.Lease = &l
	}
	if rec.Subject != nil {
		s := *rec.Subject
		s.Attributes = maps.Clone(s.Attributes)
		c.Subject = &s
	}
	return c
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines.String()
}

// failing makes every further Append return err; nil ends that.
func (r *recorder) failing(err error) {
	r.intercept(func(audit.Record) error { return err })
}

func (r *recorder) intercept(before func(audit.Record) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = before
}

// of returns the records of one decision.
func (r *recorder) of(decision string) []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []audit.Record
	for _, rec := range append(r.records[:len(r.records):len(r.records)], r.junk...) {
		if rec.Decision == decision {
			out = append(out, rec)
		}
	}
	return out
}

// scan walks over the records, as the real log's reader does.
func (r *recorder) scan(from time.Time, do func(audit.Record) error) error {
	r.mu.Lock()
	list := slices.Clone(r.records)
	r.mu.Unlock()
	for _, rec := range list {
		if rec.Type == audit.TypeExchange && !rec.Time.Before(from) {
			if err := do(rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// count returns how many records ended so.
func (r *recorder) count(o audit.Outcome) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, rec := range r.records {
		if rec.Outcome == o {
			n++
		}
	}
	return n
}
