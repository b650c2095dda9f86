package federation

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// errNoClaims means that the zero Claims was asked for something.
var errNoClaims = errors.New("no claims")

// Claims are the verified claims of one token, as strict JSON: valid UTF-8, no duplicate names, member
// names compared with case, bounded depth. Only verification makes a non-zero Claims. Values are
// immutable and safe for concurrent use.
type Claims struct {
	payload []byte
	members []member
}

// member is one top-level claim, as it stands in the payload.
type member struct {
	name  []byte
	value jsontext.Value
}

func findMember(members []member, name string) jsontext.Value {
	for _, m := range members {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// IsZero reports whether c holds nothing.
func (c Claims) IsZero() bool { return c.payload == nil }

// Decode fills v, a pointer to a struct or map, by the rules of encoding/json/v2: names match with case,
// types must fit, unknown members are ignored. JSON null leaves a zero value, as does an absent claim; a
// field of pointer type tells neither apart. The error names members and types, never values.
func (c Claims) Decode(v any) error {
	if c.payload == nil {
		return errNoClaims
	}
	if err := json.Unmarshal(c.payload, v); err != nil {
		if s := (*json.SemanticError)(nil); errors.As(err, &s) && s.JSONPointer != "" {
			return errors.New("claim " + string(s.JSONPointer) + " has the wrong type")
		}
		return errors.New("claims have the wrong shape")
	}
	return nil
}

// Lookup returns the value at path, each element one member name, and whether it is there. Values are
// string, bool, int64 (integers without fraction or exponent that fit), float64, nil for JSON null, []any
// and map[string]any.
func (c Claims) Lookup(path ...string) (any, bool) {
	if len(path) == 0 {
		return nil, false
	}
	raw := findMember(c.members, path[0])
	for _, name := range path[1:] {
		var object map[string]jsontext.Value
		if raw.Kind() != '{' || json.Unmarshal(raw, &object) != nil {
			return nil, false
		}
		raw = object[name]
	}
	if raw == nil {
		return nil, false
	}
	return goValue(raw)
}

// goValue turns one valid JSON value into Go's.
func goValue(raw jsontext.Value) (any, bool) {
	switch raw.Kind() {
	case '0':
		if n, ok := integer(raw); ok {
			return n, true
		}
	case '[':
		var elements []jsontext.Value
		if json.Unmarshal(raw, &elements) != nil {
			return nil, false
		}
		out := make([]any, len(elements))
		for i, e := range elements {
			var ok bool
			if out[i], ok = goValue(e); !ok {
				return nil, false
			}
		}
		return out, true
	case '{':
		var members map[string]jsontext.Value
		if json.Unmarshal(raw, &members) != nil {
			return nil, false
		}
		out := make(map[string]any, len(members))
		for k, e := range members {
			var ok bool
			if out[k], ok = goValue(e); !ok {
				return nil, false
			}
		}
		return out, true
	}
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil, false // a number beyond float64
	}
	return v, true
}

// integer parses a JSON number written without fraction and exponent.
func integer(raw jsontext.Value) (int64, bool) {
	if bytes.ContainsAny(raw, ".eE") {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil
}
