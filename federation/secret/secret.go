// Package secret holds the type for bearer values: tokens, passwords, keys. A Value shows itself to
// nobody who does not ask by name: every formatting, logging and marshalling path prints [redacted].
//
// The bytes sit behind a closure. With a plain []byte field, fmt's %v of a struct that holds the
// Value in an unexported field would print them, because fmt cannot call methods there.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
)

// Redacted is what a Value prints as, everywhere.
const Redacted = "[redacted]"

// Value is a bearer value. The zero Value is empty. Values are immutable and safe for concurrent use.
type Value struct {
	reveal func() string
}

// New returns a Value holding s.
func New(s string) Value {
	return Value{reveal: func() string { return s }}
}

// Reveal returns the bytes. Every call is a place where a secret can leak; keep them few.
func (v Value) Reveal() string {
	if v.reveal == nil {
		return ""
	}
	return v.reveal()
}

// IsZero reports whether v holds nothing.
func (v Value) IsZero() bool { return v.Len() == 0 }

// Len returns the length in bytes.
func (v Value) Len() int { return len(v.Reveal()) }

// Equal compares two values in time that depends only on their lengths.
func (v Value) Equal(o Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(o.Reveal())) == 1
}

// Format implements fmt.Formatter for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String implements fmt.Stringer.
func (v Value) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (v Value) GoString() string { return Redacted }

// MarshalText implements encoding.TextMarshaler, and with it JSON, YAML and zerolog's Interface.
func (v Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }
