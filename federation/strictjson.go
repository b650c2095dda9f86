package federation

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// The JSON of strangers is read by go-json-experiment: it refuses duplicate names (after unescaping),
// invalid UTF-8, lone surrogates and trailing bytes, and compares names with case (RFC 8725 section 3.7).
// It does not bound nesting below 10,000, so boundJSON looks first.

// boundJSON refuses documents that nest deeper than maxDepth or whose outermost object has more than
// maxClaims members. It trusts nothing about the syntax and allocates nothing.
func boundJSON(doc []byte) error {
	depth, members := 0, 1
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			for i++; i < len(doc) && doc[i] != '"'; i++ {
				if doc[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth > maxDepth {
				return malformed("JSON nests too deep")
			}
		case '}', ']':
			depth--
		case ',':
			if depth != 1 {
				continue
			}
			if members++; members > maxClaims {
				return malformed("JSON object has too many members")
			}
		}
	}
	return nil
}

// eachMember walks one JSON object and calls f with the decoder before each value; f must consume it. The
// name is valid until the next call only.
func eachMember(dec *jsontext.Decoder, f func(name []byte, dec *jsontext.Decoder) error) error {
	if dec.PeekKind() != '{' {
		if _, err := dec.ReadValue(); err != nil {
			return err
		}
		return malformed("JSON is not an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		raw, err := dec.ReadValue() // the decoder compares it with the names before
		if err != nil {
			return err
		}
		if raw.Kind() != '"' {
			return malformed("JSON object has a name that is no string")
		}
		if err := f(unquote(raw), dec); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// unquote returns the text of a JSON string that the decoder has accepted. It aliases value where nothing
// was escaped.
func unquote(value jsontext.Value) []byte {
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	b, _ := jsontext.AppendUnquote(nil, value)
	return b
}

// readString reads a JSON string; anything else, null included, is wrong.
func readString(dec *jsontext.Decoder, wrong error) (string, error) {
	value, err := dec.ReadValue()
	if err != nil {
		return "", err
	}
	if value.Kind() != '"' {
		return "", wrong
	}
	return string(unquote(value)), nil
}

// asRefusal finds the refusal inside what a JSON decoder wrapped around it, or returns other.
func asRefusal(err, other error) error {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	return other
}
