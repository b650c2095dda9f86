// Package oidc is the adapter for issuers that have no adapter of their own: configuration says which
// claims make the workload id and which become attributes.
//
// What such an issuer promises, nobody here knows. Whoever writes the entry answers three questions with
// it: which claims can the issuer's users choose (no part of a rule then), which are given to somebody
// else later (not an anchor), and what else does the issuer sign (keep it out with `required`).
//
// # Path segments
//
// The value of one claim is one segment, whatever it contains. Letters, digits, "." and "-" stand for
// themselves, every other byte becomes "_" and two lower-case hex digits: "org:a/b_c" is
// "org_3aa_2fb_5fc". The underscore itself is escaped, and so are the names "." and "..", so two values
// never meet in one segment and a "/" in a value never makes two segments of it. [Unescape] reverses it.
//
// # Types
//
// A claim of another type than declared refuses the token; nothing is converted, since "42" and 42 may be
// two principals to the issuer. An absent claim is an absent attribute. JSON null is no value of any type.
package oidc

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/issuers"
)

// Kind returns the issuer type "oidc".
func Kind() issuers.Kind {
	return issuers.NewKind("oidc", func(s Settings) (federation.Adapter, error) { return New(s) })
}

// Adapter names the workloads of one configured issuer. It is immutable.
type Adapter struct {
	path       []ClaimPath
	attributes []attribute // by name
	required   []requirement
}

var _ federation.Adapter = (*Adapter)(nil)

type attribute struct {
	federation.Attribute
	claim ClaimPath
}

type requirement struct {
	claim  string
	values Literals
}

// New returns the adapter for s, or every problem of s at once.
func New(s Settings) (*Adapter, error) {
	a := &Adapter{path: slices.Clone(s.Path)}
	var problems []error
	if len(s.Path) == 0 {
		problems = append(problems, errors.New("path: at least one claim is needed to tell workloads apart"))
	}
	for i, p := range s.Path {
		if err := p.check(); err != nil {
			problems = append(problems, fmt.Errorf("path[%d]: %w", i, err))
		}
		for name, attr := range s.Attributes {
			if typ, ok := types[attr.Type]; ok && typ != federation.TypeString && slices.Equal(attr.Claim, p) {
				problems = append(problems, fmt.Errorf("path[%d]: attribute %s says that claim %s is of type %s; a path is made of strings, and every token would be refused", i, name, p, attr.Type))
			}
		}
	}
	for name, attr := range s.Attributes {
		if err := attr.Claim.check(); err != nil {
			problems = append(problems, fmt.Errorf("attributes.%s.claim: %w", name, err))
		}
		typ, ok := types[attr.Type]
		if !ok {
			problems = append(problems, fmt.Errorf("attributes.%s.type: is %s, known are string, strings, bool and int", name, attr.Type))
		}
		doc := attr.Doc
		if doc == "" {
			doc = "claim " + attr.Claim.String()
		}
		a.attributes = append(a.attributes, attribute{federation.Attribute{Name: name, Type: typ, Anchor: attr.Anchor, Doc: doc}, attr.Claim})
	}
	for claim, values := range s.Required {
		if len(values) == 0 {
			problems = append(problems, fmt.Errorf("required.%s: has no value", claim))
		}
		a.required = append(a.required, requirement{claim, slices.Clone(values)})
	}
	sort.Slice(a.attributes, func(i, j int) bool { return a.attributes[i].Name < a.attributes[j].Name })
	sort.Slice(a.required, func(i, j int) bool { return a.required[i].claim < a.required[j].claim })
	if len(problems) > 0 {
		sort.Slice(problems, func(i, j int) bool { return problems[i].Error() < problems[j].Error() })
		return nil, errors.Join(problems...)
	}
	return a, nil
}

// Schema implements federation.Adapter.
func (a *Adapter) Schema() federation.Schema {
	out := make(federation.Schema, len(a.attributes))
	for i, attr := range a.attributes {
		out[i] = attr.Attribute
	}
	return out
}

// Name implements federation.Adapter.
func (a *Adapter) Name(c federation.Claims) (federation.Naming, error) {
	for _, r := range a.required {
		v, ok := c.Lookup(r.claim)
		if !ok {
			return federation.Naming{}, fmt.Errorf("required claim %s is missing", r.claim)
		}
		if !r.accepts(v) {
			return federation.Naming{}, fmt.Errorf("required claim %s has another value or type", r.claim)
		}
	}
	path, err := a.segments(c)
	if err != nil {
		return federation.Naming{}, err
	}
	attributes := make(federation.Attributes, len(a.attributes))
	for _, attr := range a.attributes {
		v, ok := c.Lookup(attr.claim...)
		if !ok {
			continue
		}
		typed, ok := value(v, attr.Type)
		if !ok {
			return federation.Naming{}, fmt.Errorf("claim %s is not of type %s", attr.claim, attr.Type)
		}
		attributes[attr.Name] = typed
	}
	return federation.Naming{Path: path, Attributes: attributes}, nil
}

func (a *Adapter) segments(c federation.Claims) (string, error) {
	segments := make([]string, len(a.path))
	for i, p := range a.path {
		v, ok := c.Lookup(p...)
		if !ok {
			return "", fmt.Errorf("path claim %s is missing", p)
		}
		s, ok := v.(string)
		if !ok || s == "" {
			return "", fmt.Errorf("path claim %s is not a non-empty string", p)
		}
		segments[i] = Escape(s)
	}
	return strings.Join(segments, "/"), nil
}

// accepts compares with type. A list never equals a scalar.
func (r requirement) accepts(v any) bool {
	switch v.(type) {
	case string, bool, int64:
		return slices.Contains(r.values, v)
	}
	return false
}

// value gives v the declared type if it has it.
func value(v any, typ federation.Type) (federation.Value, bool) {
	switch typ {
	case federation.TypeString:
		s, ok := v.(string)
		return federation.String(s), ok
	case federation.TypeBool:
		b, ok := v.(bool)
		return federation.Bool(b), ok
	case federation.TypeInt:
		n, ok := v.(int64)
		return federation.Int(n), ok
	case federation.TypeStrings:
		list, ok := v.([]any)
		if !ok {
			return federation.Value{}, false
		}
		out := make([]string, len(list))
		for i, e := range list {
			if out[i], ok = e.(string); !ok {
				return federation.Value{}, false
			}
		}
		return federation.Strings(out), true
	}
	return federation.Value{}, false
}
