package revocation

import (
	"sync"
	"time"
)

// issuedSkew is how much later than the revocation a platform may say that it issued a token and still be taken to mean
// before: times are whole seconds, and clocks differ a little.
const issuedSkew = 2 * time.Second

// index finds the entries whose selector may match by one of its terms.
type index struct {
	hasher Hasher
	now    func() time.Time // by which locks end

	mu     sync.RWMutex
	byTerm map[Digest][]*selected
	byID   map[string]*selected
	lifted map[string]time.Time // locks that are lifted, by id, and until when that is known
}

// selected is an entry whose selector names more than a lease.
type selected struct {
	entry Entry
	terms []Digest
	under Digest // the one of its terms by which it is found
	one   bool   // it names one token
}

func newIndex(h Hasher) *index {
	return &index{hasher: h, now: time.Now, byTerm: map[Digest][]*selected{}, byID: map[string]*selected{}, lifted: map[string]time.Time{}}
}

// knows reports whether an entry adds nothing.
func (x *index) knows(e Entry) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e.Lifts != "" {
		_, ok := x.lifted[e.Lifts]
		return ok
	}
	have := x.byID[e.Decision]
	return have != nil && (have.entry.Placed() || !e.Placed())
}

func (x *index) add(e Entry) {
	terms := make([]Digest, len(e.Selector))
	for i, term := range e.Selector {
		terms[i] = x.hasher.digest(term)
	}
	x.put(e, terms)
}

// put adds an entry whose selector has these terms.
func (x *index) put(e Entry, terms []Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.Lifts != "" {
		x.lifted[e.Lifts] = e.Until
		return
	}
	if have := x.byID[e.Decision]; have != nil {
		if e.Placed() {
			have.entry.Position = e.Position
		}
		return
	}
	s := &selected{entry: e, terms: terms, one: e.Selector.Value(KeyToken) != "" || e.Selector.Value(KeyJTI) != ""}
	s.under = s.terms[0]
	for _, d := range s.terms { // that under which the fewest stand: each look-up goes through them
		if len(x.byTerm[d]) < len(x.byTerm[s.under]) {
			s.under = d
		}
	}
	x.byID[e.Decision] = s
	x.byTerm[s.under] = append(x.byTerm[s.under], s)
}

// displace forgets the places of entries: those of another log mean nothing.
func (x *index) displace(ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		if s := x.byID[id]; s != nil {
			s.entry.Position = Position{}
		}
	}
}

// dead returns an entry that kills something of which parts is known; a lock rather than another.
func (x *index) dead(parts []Part) (Entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.byTerm) == 0 {
		return Entry{}, false
	}
	var found *selected
	for i := range parts {
		for _, term := range parts[i].Terms {
			for _, s := range x.byTerm[term] {
				if found != nil && !x.stands(s) || !parts[i].has(s.terms) || !x.kills(s, &parts[i]) {
					continue
				}
				if found = s; x.stands(s) {
					return s.entry, true
				}
			}
		}
	}
	if found == nil {
		return Entry{}, false
	}
	e := found.entry
	e.Lock = false // it was lifted, or is over
	return e, true
}

// stands reports whether an entry is a lock that has neither been lifted nor come to its end. It is forgotten some time after
// that.
func (x *index) stands(s *selected) bool {
	if !s.entry.Lock || x.now().After(s.entry.Until) {
		return false
	}
	_, lifted := x.lifted[s.entry.Decision]
	return !lifted
}

// kills decides by position, or for a platform's token by time, whether what matches was there before.
func (x *index) kills(s *selected, p *Part) bool {
	switch {
	case x.stands(s):
		return true
	case !s.entry.Before.IsZero() && !p.before(s.entry.Before):
		return false
	case p.Platform:
		return s.one || p.Issued.IsZero() || !p.Issued.After(s.entry.At.Add(issuedSkew))
	default: // without a position nobody can say what came after it
		return !s.entry.Placed() || s.entry.Position.After(p.At)
	}
}

func (x *index) forget(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, s := range x.byID {
		if !now.After(s.entry.Until) {
			continue
		}
		delete(x.byID, id)
		list := x.byTerm[s.under]
		kept := list[:0:0]
		for _, other := range list {
			if other != s {
				kept = append(kept, other)
			}
		}
		if x.byTerm[s.under] = kept; len(kept) == 0 {
			delete(x.byTerm, s.under)
		}
	}
	for id, until := range x.lifted {
		if now.After(until) {
			delete(x.lifted, id)
		}
	}
}

// locks returns the locks that stand at now.
func (x *index) locks(now time.Time) []Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []Entry
	for _, s := range x.byID {
		if x.stands(s) && !now.After(s.entry.Until) {
			out = append(out, s.entry)
		}
	}
	return out
}

func (x *index) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.byID)
}
