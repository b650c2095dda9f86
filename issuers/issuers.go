// Package issuers is the seam where platforms plug in: a [Kind] per source of subject tokens, and the
// [Set] of those that a binary knows. Each source has a folder of its own; only cmd names them.
package issuers

import (
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
)

// Kind is one platform: its type word in configuration, its settings, its adapter.
type Kind struct {
	typ      string
	settings func() any
	build    func(settings any) (federation.Adapter, error)
	platform []jose.SignatureAlgorithm // of a well-known platform, else nil
	shared   func(issuer string) bool  // nil for a platform without shared issuers
}

// NewKind describes a platform whose own settings have the Go type S (struct{} for none). build gets the
// settings as configured and refuses what it cannot use; it has no side effects.
func NewKind[S any](typ string, build func(S) (federation.Adapter, error)) Kind {
	return Kind{
		typ:      typ,
		settings: func() any { return new(S) },
		build:    func(s any) (federation.Adapter, error) { return build(*s.(*S)) },
	}
}

// NewPlatform describes a platform about whose issuers enough is known beforehand: they have discovery and sign with
// these algorithms, so entries may leave keys and algorithms out, and its settings stand in the entry itself.
func NewPlatform[S any](typ string, algorithms []jose.SignatureAlgorithm, build func(S) (federation.Adapter, error)) Kind {
	k := NewKind(typ, build)
	k.platform = slices.Clone(algorithms)
	return k
}

// Sharing returns k for a platform some of whose issuers sign for customers that do not know each other: those for which
// shared reports true. They are of this type or of none: only its adapter knows which claim holds the tenant.
func (k Kind) Sharing(shared func(issuer string) bool) Kind {
	k.shared = shared
	return k
}

// Type returns the word that `type:` in a trust file says.
func (k Kind) Type() string { return k.typ }

// Settings returns a pointer to zero settings, to be decoded into strictly from the block of the
// issuer entry that is named like the type.
func (k Kind) Settings() any { return k.settings() }

// Build makes the adapter from what Settings returned.
func (k Kind) Build(settings any) (federation.Adapter, error) { return k.build(settings) }

// Set is the platforms that a binary knows. It is immutable.
type Set struct{ kinds []Kind }

// NewSet returns a set; two kinds of one type are an error.
func NewSet(kinds ...Kind) (Set, error) {
	for i, k := range kinds {
		if slices.ContainsFunc(kinds[:i], func(o Kind) bool { return o.typ == k.typ }) {
			return Set{}, fmt.Errorf("issuer type %s is listed twice", k.typ)
		}
	}
	return Set{slices.Clone(kinds)}, nil
}

// Lookup returns the kind of a type word.
func (s Set) Lookup(typ string) (Kind, bool) {
	for _, k := range s.kinds {
		if k.typ == typ {
			return k, true
		}
	}
	return Kind{}, false
}

// Types lists the type words, in the order given.
func (s Set) Types() []string {
	out := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		out[i] = k.typ
	}
	return out
}

// Settings returns a pointer to zero settings of a type, and false for a type that is not known.
func (s Set) Settings(typ string) (any, bool) {
	k, ok := s.Lookup(typ)
	if !ok {
		return nil, false
	}
	return k.Settings(), true
}

// Platform returns the algorithms of a well-known platform, and false for any other type.
func (s Set) Platform(typ string) ([]jose.SignatureAlgorithm, bool) {
	k, _ := s.Lookup(typ)
	return slices.Clone(k.platform), k.platform != nil
}

// Shared returns the type of the platform whose customers share the issuer with this iss, and false when none is known.
func (s Set) Shared(issuer string) (typ string, shared bool) {
	for _, k := range s.kinds {
		if k.shared != nil && k.shared(issuer) {
			return k.typ, true
		}
	}
	return "", false
}

// Build makes the adapter of a type from what Settings returned.
func (s Set) Build(typ string, settings any) (federation.Adapter, error) {
	k, ok := s.Lookup(typ)
	if !ok {
		return nil, fmt.Errorf("issuer type %s is not known", typ)
	}
	return k.Build(settings)
}
