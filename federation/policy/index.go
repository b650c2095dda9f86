package policy

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// bucket is the rules of one key, filed so that a request is held against those that can match it and not
// against all: each rule under what its `where` says, each request looked up under what its attributes are.
// Rules of one bucket that name the same attributes share a shelf; there are as many look-ups as shelves, and a
// look-up finds the rules whose filed attributes all fit. What a shelf finds is still matched in full.
type bucket struct {
	rules   []int    // every rule, ascending
	shelves []*shelf // in the order of their first rule
	parts   []*shelf // the rules again, under a part of what they are filed under; see nearest
	always  []int    // rules that nothing can be filed under
}

// shelf holds the rules that are filed under one set of attributes.
type shelf struct {
	by    []string         // attribute names, sorted
	how   matchKind        // of a single attribute; exact when by has several
	rules []int            // every rule of the shelf, ascending
	under map[string][]int // by encoded values, ascending

	// longest is the longest prefix, in bytes. A value is cut no longer: each cut is hashed, and whoever chooses
	// the value may fill a token with slashes.
	longest int
}

// What else than attributes of the subject an allow rule is filed under. No attribute is called so.
const (
	actorFacet = "actor." // and the name of an attribute of who acts
	fromFacet  = "exchange.from"
	actorsFrom = "actors.from"
)

// facets are what a rule asks for that it can be filed under. All of them must fit: that is what makes it safe to look
// only where they do.
func (r *Rule) facets() map[string]Matcher {
	if r.Effect != Allow || r.Actors == nil && r.ExchangeFrom == nil {
		return r.Workloads.Where
	}
	out := maps.Clone(r.Workloads.Where)
	if out == nil {
		out = map[string]Matcher{}
	}
	if r.Actors != nil {
		for name, m := range r.Actors.Where {
			out[actorFacet+name] = m
		}
	}
	for name, targets := range map[string][]string{fromFacet: r.ExchangeFrom, actorsFrom: r.ActorsFrom} {
		var m Matcher
		for _, t := range targets {
			m.OneOf = append(m.OneOf, federation.String(t))
		}
		if m.OneOf != nil {
			out[name] = m
		}
	}
	return out
}

// facet is what f has of that name.
func (f *Facts) facet(name string) (federation.Value, bool) {
	var own string
	switch rest, of := strings.CutPrefix(name, actorFacet); {
	case of:
		return f.Actor.Attribute(rest)
	case name == fromFacet:
		own = f.Workload.Token().Lineage().Target
	case name == actorsFrom:
		own = f.Actor.Token().Lineage().Target
	default:
		return f.Workload.Attribute(name)
	}
	return federation.String(own), own != ""
}

// matchKind is how a filed value is compared.
type matchKind int

const (
	exact matchKind = iota
	prefix
	element
)

// maxFiled bounds how often one rule is filed on a shelf of several attributes: lists multiply.
const maxFiled = 64

// index files every rule.
func (p *Policy) index() {
	p.allow, p.deny = map[key]*bucket{}, map[key]*bucket{}
	for i := range p.rules {
		r := &p.rules[i]
		w := r.Workloads
		if r.Effect == Allow {
			for _, t := range r.Targets {
				put(p.allow, key{w.TrustDomain, w.Issuer, t}, i)
			}
			continue
		}
		if len(r.Targets) == 0 {
			put(p.deny, key{w.TrustDomain, w.Issuer, ""}, i)
		}
		for _, t := range r.Targets {
			put(p.deny, key{w.TrustDomain, w.Issuer, t}, i)
		}
	}
	for _, b := range p.allow {
		b.file(p.rules, true)
		b.fileParts(p.rules)
	}
	for _, b := range p.deny {
		b.file(p.rules, false)
	}
}

func put(buckets map[key]*bucket, k key, i int) {
	b := buckets[k]
	if b == nil {
		b = &bucket{}
		buckets[k] = b
	}
	if n := len(b.rules); n == 0 || b.rules[n-1] != i { // a target may be listed twice
		b.rules = append(b.rules, i)
	}
}

// file puts each rule on its shelf. A deny rule also matches what is absent, so that several attributes would
// have to be looked up in every combination of present and absent; it is filed under one.
func (b *bucket) file(rules []Rule, several bool) {
	shelves := map[string]*shelf{}
	for _, i := range b.rules {
		facets := rules[i].facets()
		by, how := filing(facets, several)
		if len(by) == 0 {
			b.always = append(b.always, i)
			continue
		}
		name := strings.Join(by, " ") + string(rune('0'+how))
		s := shelves[name]
		if s == nil {
			s = &shelf{by: by, how: how, under: map[string][]int{}}
			shelves[name] = s
			b.shelves = append(b.shelves, s)
		}
		s.rules = append(s.rules, i)
		for _, k := range s.keys(facets) {
			s.under[k] = append(s.under[k], i)
			s.longest = max(s.longest, len(k))
		}
	}
}

// filing chooses what a rule is filed under: all attributes that it compares exactly, those with the shortest
// lists first and as long as their combinations stay few; else one attribute that it compares otherwise.
func filing(facets map[string]Matcher, several bool) (by []string, how matchKind) {
	names := keys(facets)
	slices.SortStableFunc(names, func(a, b string) int {
		return len(facets[a].OneOf) - len(facets[b].OneOf)
	})
	combinations := 1
	for _, name := range names {
		n := len(facets[name].OneOf)
		if n == 0 || len(by) > 0 && (!several || combinations*n > maxFiled) {
			continue
		}
		combinations *= n
		by = append(by, name)
	}
	if len(by) > 0 {
		slices.Sort(by)
		return by, exact
	}
	for _, name := range names {
		if facets[name].Prefix != "" {
			return []string{name}, prefix
		}
	}
	if len(names) > 0 {
		return names[:1], element
	}
	return nil, exact
}

// keys returns what a rule is filed under on s, each once.
func (s *shelf) keys(facets map[string]Matcher) []string {
	switch s.how {
	case prefix:
		return []string{trimmed(facets[s.by[0]].Prefix)}
	case element:
		text, _ := facets[s.by[0]].Contains.Any().(string)
		return []string{text}
	}
	out := []string{""}
	for _, name := range s.by {
		var longer []string
		for _, k := range out {
			for _, v := range facets[name].OneOf {
				longer = append(longer, string(encode([]byte(k), v)))
			}
		}
		out = longer
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// trimmed is a prefix without the slash at its end, which makes no difference to [Matcher].
func trimmed(p string) string {
	if t := strings.TrimSuffix(p, "/"); t != "" {
		return t
	}
	return p
}

// encode appends a value so that no two values, and no two rows of values, look alike.
func encode(b []byte, v federation.Value) []byte {
	switch x := v.Any().(type) {
	case string:
		b = binary.AppendUvarint(append(b, 's'), uint64(len(x)))
		return append(b, x...)
	case bool:
		if x {
			return append(b, 't')
		}
		return append(b, 'f')
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(x))
	default:
		return append(b, '?') // lists and the zero Value: equal to nothing, so matched in vain
	}
}

// find appends the rules that can match f, ascending and each once. absentMatches is the reading of deny rules.
func (b *bucket) find(out []int, f *Facts, absentMatches bool, e *effort) []int {
	if b == nil {
		return out
	}
	start, sources := len(out), 0
	add := func(found []int) {
		if len(found) > 0 {
			out = append(out, found...)
			sources++
		}
	}
	add(b.always)
	for _, s := range b.shelves {
		s.look(f, absentMatches, e, add)
	}
	if sources > 1 {
		slices.Sort(out[start:])
		out = out[:start+len(slices.Compact(out[start:]))]
	}
	return out
}

// look hands add what the shelf holds for f.
func (s *shelf) look(f *Facts, absentMatches bool, e *effort, add func([]int)) {
	if s.how != exact {
		s.scan(f, absentMatches, e, add)
		return
	}
	var space [256]byte
	k := space[:0]
	for _, name := range s.by {
		v, ok := f.facet(name)
		switch {
		case ok:
			k = encode(k, v)
		case absentMatches: // deny rules are filed under one attribute
			add(s.rules)
			return
		default:
			return
		}
	}
	e.probes++
	add(s.under[string(k)])
}

// scan looks up a shelf of prefixes or of elements: every path above the value, or every element of it.
func (s *shelf) scan(f *Facts, absentMatches bool, e *effort, add func([]int)) {
	v, ok := f.facet(s.by[0])
	if !ok {
		if absentMatches {
			add(s.rules)
		}
		return
	}
	probe := func(k string) {
		e.probes++
		add(s.under[k])
	}
	switch x := v.Any().(type) {
	case string:
		if s.how != prefix {
			return
		}
		if len(x) <= s.longest {
			probe(x)
		}
		for i := min(len(x)-1, s.longest); i >= 0; i-- {
			if x[i] == '/' {
				probe(x[:max(i, 1)])
			}
		}
	case []string:
		if s.how == element {
			for _, text := range x {
				probe(text)
			}
		}
	}
}
