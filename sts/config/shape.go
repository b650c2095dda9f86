package config

import (
	"encoding"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// checker is a type that judges its own node. It reports through d and says whether that was all: false
// leaves the node to the check by kind.
type checker interface {
	check(d *document, n *yaml.Node, path string) (done bool)
}

// decode checks n against the type that v points to, strictly, and loads it. It returns false when
// anything was reported; v then holds what could be understood.
//
// The check is ours because it knows places, names what is near, and is stricter than the library, for
// which 99 is a string, yes is true and 010 is eight. The library is strict underneath: what the check
// missed, it refuses.
func (d *document) decode(n *yaml.Node, path string, v any, required bool) bool {
	before := len(*d.problems)
	d.shape(n, reflect.TypeOf(v).Elem(), path, required)
	err := n.Load(v, yaml.WithKnownFields())
	if len(*d.problems) > before {
		return false // err repeats what was reported
	}
	d.library(err, n, path)
	return err == nil
}

// library reports what the library says of a node.
func (d *document) library(err error, n *yaml.Node, path string) {
	var all *yaml.LoadErrors
	switch {
	case errors.As(err, &all):
		for _, e := range all.Errors {
			d.place(&yaml.Node{Line: max(e.Mark.Line, n.Line), Column: max(e.Mark.Column, 1)}, path, "%s", quotedValues.ReplaceAllString(e.Message, "the value"))
		}
	case err != nil:
		d.place(n, path, "%s", quotedValues.ReplaceAllString(err.Error(), "the value"))
	}
}

// quotedValues is how the library repeats a value, which may be a secret.
var quotedValues = regexp.MustCompile("(?s)`.*`")

// shape compares a node with a Go type. required demands the fields without omitempty.
func (d *document) shape(n *yaml.Node, t reflect.Type, path string, required bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	zero := reflect.New(t).Interface()
	if c, ok := zero.(checker); ok && c.check(d, n, path) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.place(n, path, "%s has no value; write one, or leave the key out", last(path))
		return
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		d.duration(n, path)
		return
	case reflect.TypeFor[secret.Ref](): // settings of a broker
		(*Secret)(nil).check(d, n, path)
		return
	}
	if custom(zero) { // the type decodes itself: ask it now, so that its problems stand beside the others
		d.library(n.Load(zero, yaml.WithKnownFields()), n, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.fields(n, t, path, required)
	case reflect.Map:
		if d.is(n, yaml.MappingNode, path) {
			for i := 0; i+1 < len(n.Content); i += 2 {
				d.shape(n.Content[i+1], t.Elem(), join(path, n.Content[i].Value), required)
			}
			if len(n.Content) == 0 && required {
				d.place(n, path, "%s is empty; an empty mapping does not mean all: fill it, or leave the key out", last(path))
			}
		}
	case reflect.Slice, reflect.Array:
		if d.is(n, yaml.SequenceNode, path) {
			for i, c := range n.Content {
				d.shape(c, t.Elem(), index(path, i), required)
			}
			if len(n.Content) == 0 && required {
				d.place(n, path, "%s lists nothing; an empty list does not mean all: fill it, or leave the key out", last(path))
			}
		}
	case reflect.Interface: // a document of others, such as a policy of theirs: any shape, but no missing values
		for i, c := range n.Content {
			if n.Kind == yaml.SequenceNode {
				d.shape(c, t, index(path, i), required)
			} else if i%2 == 1 {
				d.shape(c, t, join(path, n.Content[i-1].Value), required)
			}
		}
	default:
		d.scalar(n, t.Kind(), path)
	}
}

// custom reports whether a type decodes itself, in which case the library calls it.
func custom(zero any) bool {
	switch zero.(type) {
	case yaml.Unmarshaler, encoding.TextUnmarshaler:
		_, ours := zero.(checker)
		return !ours
	default:
		return false
	}
}

func (d *document) is(n *yaml.Node, want yaml.Kind, path string) bool {
	if n.Kind == want {
		return true
	}
	switch {
	case want == yaml.SequenceNode && n.Kind == yaml.ScalarNode:
		d.place(n, path, "%s must be a list, not %s; write [%s]", last(path), kindOf(n), strings.Trim(show(n.Value), `"`))
	case want == yaml.SequenceNode:
		d.place(n, path, "%s must be a list ([a, b], or a line with - for each), not %s", last(path), kindOf(n))
	default:
		d.place(n, path, "%s must be a mapping (key: value), not %s", last(path), kindOf(n))
	}
	return false
}

// fields checks a mapping against a struct.
func (d *document) fields(n *yaml.Node, t reflect.Type, path string, required bool) {
	if !d.is(n, yaml.MappingNode, path) {
		return
	}
	known := fieldsOf(t)
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		f, ok := find(known, key.Value)
		switch {
		case ok:
			d.shape(value, f.typ, below, required)
		case later(below):
			d.place(key, below, "%s is not supported by this version; leave it out, what it promises would not happen", key.Value)
		default:
			d.place(key, below, "unknown key %s%s", show(key.Value), suggest(key.Value, names))
		}
	}
	if !required {
		return
	}
	for _, f := range known {
		if !f.optional && child(n, f.name) == nil {
			mark, at := n, path
			if path != "" {
				mark = d.at(path)
			}
			d.place(mark, join(at, f.name), "%s is missing%s", f.name, inside(path))
		}
	}
}

func inside(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}

// scalar checks a single value by its tag.
func (d *document) scalar(n *yaml.Node, kind reflect.Kind, path string) {
	if n.Kind != yaml.ScalarNode {
		d.place(n, path, "%s must be a single value, not %s", last(path), kindOf(n))
		return
	}
	switch kind {
	case reflect.String:
		if n.Tag != "!!str" {
			d.place(n, path, `%s must be a string, and YAML reads %s as %s; write it in quotes`, last(path), strings.Trim(show(n.Value), `"`), kindOf(n))
		}
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.place(n, path, "%s must be true or false, not %s", last(path), show(n.Value))
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n.Tag != "!!int" || !decimal.MatchString(n.Value) {
			d.place(n, path, "%s must be a whole number in decimal digits, not %s", last(path), show(n.Value))
		}
	}
}

// decimal is the only form of a number that nobody reads in two ways.
var decimal = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

// field is one key that a struct takes.
type field struct {
	name     string
	typ      reflect.Type
	optional bool
}

// fieldsOf lists the keys of a struct by its yaml tags, as the library reads them.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() && !f.Anonymous || name == "-":
		case strings.Contains(options, "inline") && f.Type.Kind() == reflect.Struct:
			out = append(out, fieldsOf(f.Type)...)
		default:
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			out = append(out, field{name, f.Type, strings.Contains(options, "omitempty")})
		}
	}
	return out
}

func find(fields []field, name string) (field, bool) {
	for _, f := range fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// last returns the last part of a path, for the beginning of a message.
func last(path string) string {
	if path == "" {
		return "the file"
	}
	return path[strings.LastIndexByte(path, '.')+1:]
}

// later reports whether design section 4 has this key and this version does not.
func later(path string) bool {
	switch brackets.ReplaceAllString(path, "") {
	case "trusted_proxies",
		"issuers.token_review", "issuers.client_authentication",
		"sensitivity":
		return true
	default:
		return false
	}
}

var brackets = regexp.MustCompile(`\[[0-9]+\]`)
