package federation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Fingerprint is the SHA-256 of a token's strictly decoded signing input ("header.payload"), never of
// its signature: ECDSA signatures and base64 are malleable.
type Fingerprint [sha256.Size]byte

// String returns the fingerprint in lower-case hex.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Adapter names what a verified token of one platform says: claims in, path and attributes out. It is
// pure: no clock, no network, no state. It neither verifies nor chooses the trust domain, and it
// refuses (with an error) a token that is not of the kind the platform promises.
type Adapter interface {
	Schema() Schema
	Name(Claims) (Naming, error)
}

// Tenancy is implemented by adapters of platforms on which one issuer can sign for customers that do not know each
// other. Such an issuer is trusted only with its tenants pinned: every user of the platform could speak here otherwise.
type Tenancy interface {
	// Shared reports whether the issuer with this iss is shared by customers, and whether the adapter refuses the tokens
	// of all but the configured ones.
	Shared(issuer string) (shared, pinned bool)
}

// Naming is an adapter's answer.
type Naming struct {
	Path       string     // segments joined by "/", each of SPIFFE's path characters; fixed per adapter
	Attributes Attributes // each declared by the adapter's Schema; absent claims are absent here
}

// Schema declares every attribute an adapter can set. It drives `where`, lint and documentation.
type Schema []Attribute

// Attribute declares one attribute.
type Attribute struct {
	Name   string
	Type   Type
	Anchor bool   // immutable on the platform: never given to somebody else later
	Doc    string // one sentence: what it says and who chooses it
}

// Lookup returns the declaration of one attribute.
func (s Schema) Lookup(name string) (Attribute, bool) {
	for _, a := range s {
		if a.Name == name {
			return a, true
		}
	}
	return Attribute{}, false
}

// Type is the type of an attribute. Values of unlike types are never equal ("true" is not true).
type Type int

// The attribute types. The zero Type is no type.
const (
	TypeString Type = iota + 1
	TypeStrings
	TypeBool
	TypeInt
)

// String returns the type's name as configuration spells it.
func (t Type) String() string {
	switch t {
	case TypeString:
		return "string"
	case TypeStrings:
		return "strings"
	case TypeBool:
		return "bool"
	case TypeInt:
		return "int"
	default:
		return "invalid"
	}
}

// Attributes maps declared names to values.
type Attributes map[string]Value

// Value is one typed attribute value: string, []string, bool or int64. The zero Value equals nothing.
type Value struct {
	v any
}

// String returns a string value.
func String(s string) Value { return Value{s} }

// Strings returns a list value. The slice must not be changed afterwards.
func Strings(s []string) Value { return Value{s} }

// Bool returns a boolean value.
func Bool(b bool) Value { return Value{b} }

// Int returns an integer value.
func Int(n int64) Value { return Value{n} }

// Any returns the Go value: string, []string, bool or int64; nil for the zero Value.
func (v Value) Any() any { return v.v }

// Type returns the value's type.
func (v Value) Type() Type {
	switch v.v.(type) {
	case string:
		return TypeString
	case []string:
		return TypeStrings
	case bool:
		return TypeBool
	case int64:
		return TypeInt
	default:
		return 0
	}
}

// MarshalJSON implements json.Marshaler: the bare value, null for the zero Value.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.v) }
