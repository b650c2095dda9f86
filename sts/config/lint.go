package config

import (
	"cmp"
	"slices"

	"github.com/sallyport-sts/sallyport/federation/policy"
)

// Finding is something in a configuration that loads and is probably not meant.
type Finding struct {
	Problem
	Severity policy.Severity
}

// Lint loads dir as [Load] does and returns what its policy says that is probably not meant, by place. The error
// is that of Load.
func Lint(dir string, kinds Kinds) ([]Finding, error) {
	l, err := load(dir, kinds)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, f := range l.set.Policy.Lint() {
		at, ok := l.whereIs(f)
		if !ok {
			continue // the built-in target is nobody's to change
		}
		path := join(at.path, f.Path)
		n := at.doc.at(path)
		out = append(out, Finding{
			Problem:  Problem{File: at.doc.name, Line: n.Line, Column: n.Column, Path: path, Message: printable(f.Message)},
			Severity: f.Severity,
		})
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out, nil
}

func (l *loader) whereIs(f policy.Finding) (place, bool) {
	list := map[string][]place{"rule": l.rulePlaces, "target": l.targets, "issuer": l.places}[f.Part]
	if f.Index >= len(list) {
		return place{}, false
	}
	return list[f.Index], true
}
