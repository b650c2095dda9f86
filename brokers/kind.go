package brokers

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Kind is one kind of credential: its word in configuration, its settings, its broker.
type Kind struct {
	name     string
	able     Capabilities
	settings func() any
	scope    func() any
	check    func(Target, any, map[string]any) []Problem
	build    func(Target, any, map[string]any, Deps) (Broker, error)
}

// Capabilities is what holds for every credential of a kind.
type Capabilities struct {
	// MinLifetime is the shortest life that the upstream can give; 0 for any. A target or rule below it does not load.
	MinLifetime time.Duration
	// Credentials are the forms that no standard describes, by their issued_token_type: a zero value of what access_token
	// holds as JSON, or "" for one opaque string.
	Credentials map[string]any
}

// Target is what a broker knows of the target it serves.
type Target struct {
	Name        string
	Resource    string // "" for none
	Scopes      []string
	MaxLifetime time.Duration
	KMS         bool     // the service has one: signing.vault
	Signing     []string // algorithms that the service signs with, the default first; nil when that is not known

	// Secret reads what a reference in the settings names, anew each time, so that a secret can be changed while the
	// service runs. Its errors hold neither the secret nor the path.
	Secret func(secret.Ref) (secret.Value, error)
	// Path makes a path of the settings absolute: relative ones start at the configuration directory.
	Path func(string) string
}

// Problem is one reason why a target's settings do not load. Path is inside the settings block, or, when it begins
// with "scopes.", inside the target itself.
type Problem struct{ Path, Message string }

// AssertionsPath, behind our issuer identifier, makes the issuer identifier of assertions.
const AssertionsPath = "/assertions"

// Deps is what the service lends to brokers.
type Deps struct {
	Issuer string // our issuer identifier
	Signer Signer
	// Assertions signs, under the issuer Issuer + [AssertionsPath], what is shown to others when we call them. Its
	// tokens are never handed out.
	Assertions Signer
	Now        func() time.Time
	KMS        KMS         // of signing.vault; nil for none
	Status     StatusLists // nil: tokens have no place in a status list
}

// StatusLists gives our own tokens places in status lists (OAuth Token Status List, section 6).
type StatusLists interface {
	// Reserve gives a token that is about to be made its place: the URI of a list, and an index in it.
	Reserve(lease string, ancestors, facts []string, expires time.Time) (uri string, index int)
	// Minted tells what it has become: the SHA-256 of its signing input in hex, and the kid of its header.
	Minted(uri string, index int, fingerprint, keyID string)
}

// NewKind describes a kind of credential whose settings have the Go type S, and each of whose scopes has the Go type C:
// what the scope means upstream. check must have no side effects but reading what the settings refer to; build is
// called only after check found nothing, and connects to nothing.
func NewKind[S, C any](name string, able Capabilities, check func(Target, S, map[string]C) []Problem, build func(Target, S, map[string]C, Deps) (Broker, error)) Kind {
	return Kind{
		name:     name,
		able:     able,
		settings: func() any { return new(S) },
		scope:    func() any { return new(C) },
		check: func(t Target, s any, scopes map[string]any) []Problem {
			return check(t, *s.(*S), typed[C](scopes))
		},
		build: func(t Target, s any, scopes map[string]any, d Deps) (Broker, error) {
			return build(t, *s.(*S), typed[C](scopes), d)
		},
	}
}

func typed[C any](scopes map[string]any) map[string]C {
	out := make(map[string]C, len(scopes))
	for name, c := range scopes {
		out[name] = *c.(*C)
	}
	return out
}

// Name returns the word that `broker:` in a target file says; the settings block has the same name.
func (k Kind) Name() string { return k.name }

// Capabilities returns what holds for every credential of the kind.
func (k Kind) Capabilities() Capabilities { return k.able }

// Settings returns a pointer to zero settings, to be decoded into strictly.
func (k Kind) Settings() any { return k.settings() }

// Scope returns a pointer to what a scope means, zero, to be decoded into strictly.
func (k Kind) Scope() any { return k.scope() }

// Check reports what is wrong with settings and scopes, without side effects. The values of scopes are pointers from
// [Kind.Scope].
func (k Kind) Check(t Target, settings any, scopes map[string]any) []Problem {
	return k.check(t, settings, scopes)
}

// Build makes the broker of one target.
func (k Kind) Build(t Target, settings any, scopes map[string]any, d Deps) (Broker, error) {
	return k.build(t, settings, scopes, d)
}

// Set is the kinds that a binary knows. It is immutable.
type Set struct{ kinds []Kind }

// NewSet returns a set; two kinds of one name are an error.
func NewSet(kinds ...Kind) (Set, error) {
	for i, k := range kinds {
		if slices.ContainsFunc(kinds[:i], func(o Kind) bool { return o.name == k.name }) {
			return Set{}, fmt.Errorf("broker %s is listed twice", k.name)
		}
	}
	return Set{slices.Clone(kinds)}, nil
}

// Lookup returns the kind of a name.
func (s Set) Lookup(name string) (Kind, bool) {
	for _, k := range s.kinds {
		if k.name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// Names lists the kinds' names, in the order given.
func (s Set) Names() []string {
	out := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		out[i] = k.name
	}
	return out
}
