package brokers

import (
	"fmt"
	"slices"
	"time"
)

// Kind is one kind of credential: its word in configuration, its settings, its broker.
type Kind struct {
	name     string
	settings func() any
	check    func(Target, any) []Problem
	build    func(Target, any, Deps) (Broker, error)
}

// Target is what a broker knows of the target it serves.
type Target struct {
	Name     string
	Resource string // "" for none
	Scopes   []string
	Signing  []string // algorithms that the service signs with, the default first; nil when that is not known
}

// Problem is one reason why a target's settings do not load. Path is inside the settings block.
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
}

// NewKind describes a kind of credential whose settings have the Go type S. check must have no side
// effects; build is called only after check found nothing.
func NewKind[S any](name string, check func(Target, S) []Problem, build func(Target, S, Deps) (Broker, error)) Kind {
	return Kind{
		name:     name,
		settings: func() any { return new(S) },
		check:    func(t Target, s any) []Problem { return check(t, *s.(*S)) },
		build:    func(t Target, s any, d Deps) (Broker, error) { return build(t, *s.(*S), d) },
	}
}

// Name returns the word that `broker:` in a target file says; the settings block has the same name.
func (k Kind) Name() string { return k.name }

// Settings returns a pointer to zero settings, to be decoded into strictly.
func (k Kind) Settings() any { return k.settings() }

// Check reports what is wrong with settings, without side effects.
func (k Kind) Check(t Target, settings any) []Problem { return k.check(t, settings) }

// Build makes the broker of one target.
func (k Kind) Build(t Target, settings any, d Deps) (Broker, error) { return k.build(t, settings, d) }

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
