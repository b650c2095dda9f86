package config

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// IssuerKinds is the platforms that a binary knows. issuers.Set is one.
type IssuerKinds interface {
	Types() []string
	Settings(typ string) (any, bool) // pointer to zero settings, false for an unknown type
	Build(typ string, settings any) (federation.Adapter, error)
	// Platform returns the algorithms of a well-known platform, whose settings stand in the entry itself and whose
	// keys are discovered; false for any other type.
	Platform(typ string) ([]jose.SignatureAlgorithm, bool)
	// Shared returns the type of the platform whose customers share this issuer, and false when none is known.
	Shared(issuer string) (typ string, shared bool)
}

// Kinds is what a binary knows: its platforms and its kinds of credentials.
type Kinds struct {
	Issuers IssuerKinds
	Brokers brokers.Set
	Vault   func(Vault) []brokers.Problem // what is wrong with signing.vault, by the name of the setting; nil: whoever uses it looks
}

// Set is a configuration that was read, understood and checked as a whole. It is never changed.
type Set struct {
	Hash         string // SHA-256 in hex over names and bytes of the configuration files, and of no other file
	Server       Server
	ServerFile   []byte   // its text
	OperatorFile []byte   // nil for none
	Issuers      []Issuer // in the order of files and lines
	Targets      []Target // in the order of files; the built-in one is last
	Policy       *policy.Policy
	Operators    Operators // who may respond over the network
	TrustDomains []string  // in the order of files
}

// Load reads the configuration in dir. The error is of type [Problems] and has every problem. Load has no
// side effects: it writes nothing and opens no connection. Secrets are read to see that they can be, and
// forgotten. Files that change while they are read are read again: a set is never a mixture.
func Load(dir string, kinds Kinds) (*Set, error) {
	l, err := load(dir, kinds)
	if err != nil {
		return nil, err
	}
	set := l.set // alone: a pointer into the loader would keep every file of the configuration in memory
	return &set, nil
}

func load(dir string, kinds Kinds) (*loader, error) {
	return loadFrom(dir, kinds, nil, func(s []source) []source { return s })
}

// loadFrom is load with what change makes of the files. running is what a running server has of its file: it was checked at
// start, and what has become since of the certificates and secrets that it names is not the rest's business.
func loadFrom(dir string, kinds Kinds, running *Server, change func([]source) []source) (*loader, error) {
	l, err := newLoader(dir, kinds)
	if err != nil {
		return nil, err
	}
	sources, problems := readStable(func() ([]source, Problems) { return readAll(l.dir) })
	sources = change(sources)
	l.problems = problems
	docs := make(map[string]*document, len(sources))
	for _, s := range sources {
		if docs[s.name] = parse(s, &l.problems); docs[s.name] == nil && !strings.HasPrefix(s.name, policyFolder+"/") {
			l.incomplete = true
		}
	}
	for _, s := range sources {
		switch s.name {
		case serverName:
			l.set.ServerFile = s.data
		case operatorsName:
			l.set.OperatorFile = s.data
		}
	}
	if d := docs[serverName]; d != nil {
		before := slices.Clone(l.problems)
		if l.server(d); running != nil {
			l.problems, l.set.Server = before, *running
		}
		l.minted[l.set.Server.Issuer+introspectionPath] = "the built-in target " + introspectionTarget
	}
	for _, part := range []struct {
		folder string
		read   func(*document)
	}{{trustFolder, l.trust}, {targetsFolder, l.target}, {policyFolder, l.policy}} {
		for _, s := range sources {
			if d := docs[s.name]; d != nil && strings.HasPrefix(s.name, part.folder+"/") {
				part.read(d)
			}
		}
	}
	if d := docs[operatorsName]; d != nil {
		l.operators(d)
	}
	if remote := l.set.Server.Listen.Operators; remote != "" && len(l.set.Operators.Roles) == 0 && docs[operatorsName] == nil && docs[serverName] != nil {
		docs[serverName].problem("listen.operators", "nobody may call there: write %s, which says who", operatorsName)
	}
	l.compile()
	if len(l.problems) == 0 {
		l.agree()
	}
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	l.set.Hash = hash(sources)
	return l, nil
}

// LoadServer reads the server file alone, for commands that work on the server's own disk: a broken policy
// must not keep an operator from the audit log. The error is of type [Problems].
func LoadServer(dir string) (Server, error) {
	l, err := newLoader(dir, Kinds{})
	if err != nil {
		return Server{}, err
	}
	data, err := readFile(filepath.Join(l.dir, serverName), maxFileSize)
	if err != nil {
		l.problems.add(serverName, "%s", reason(err))
		return Server{}, l.problems
	}
	if d := parse(source{serverName, data}, &l.problems); d != nil {
		l.server(d)
	}
	if len(l.problems) > 0 {
		return Server{}, l.problems.sorted()
	}
	return l.set.Server, nil
}

// loader gathers what the files say.
type loader struct {
	dir      string
	kinds    Kinds
	problems Problems
	set      Set

	// Where things were defined, for messages: "file:line" by name.
	domains map[string]string
	records map[[2]string]string // (iss, aud) of trusted issuers
	minted  map[string]string    // aud of targets

	known      []policy.Issuer
	rules      []policy.Rule
	places     []place // of set.Issuers
	targets    []place // of set.Targets
	rulePlaces []place // of rules
	issuers    int

	// What is known to be missing, so that nobody is told to repair what only follows from it.
	incomplete bool            // a trust or target file that did not say what it defines
	unnamed    map[string]bool // "domain/issuer" without an adapter, so without attributes
	broken     map[string]bool // targets with problems of their own
}

// place is where a part of the set was written.
type place struct {
	doc  *document
	path string
}

func newLoader(dir string, kinds Kinds) (*loader, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, Problems{{File: serverName, Message: "the configuration directory has no absolute path: " + err.Error()}}
	}
	return &loader{
		dir: abs, kinds: kinds, domains: map[string]string{}, records: map[[2]string]string{},
		minted: map[string]string{}, unnamed: map[string]bool{}, broken: map[string]bool{},
	}, nil
}

// compile adds the built-in target and compiles the policy.
func (l *loader) compile() {
	builtIn, ok := l.introspection()
	if !ok {
		l.problems.add(serverName, "this binary has no %s broker, which the built-in target %s needs", jwtBroker, introspectionTarget)
		return
	}
	l.set.Targets = append(l.set.Targets, builtIn)
	if l.incomplete {
		return
	}
	cfg := policy.Config{Issuers: l.known, Rules: l.rules, Targets: make([]policy.Target, len(l.set.Targets))}
	for i, t := range l.set.Targets {
		cfg.Targets[i] = t.Policy
	}
	compiled, problems := policy.New(cfg)
	var news []func() // what is reported must not hide what comes after it
	for _, p := range problems {
		var at place
		switch {
		case p.Part == "target" && p.Index < len(l.targets):
			at = l.targets[p.Index]
		case p.Part == "rule" && !l.follows(p):
			at = l.rulePlaces[p.Index]
		default:
			continue
		}
		if path := join(at.path, p.Path); at.doc.ok(path) {
			news = append(news, func() {
				if p.Line > 0 {
					at.doc.inside(path, l.rules[p.Index].Name, p)
					return
				}
				at.doc.problem(path, "%s", p.Message)
			})
		}
	}
	for _, report := range news {
		report()
	}
	if compiled == nil {
		return
	}
	l.set.Policy = compiled
	for i := range l.set.Targets {
		l.set.Targets[i].Policy, _ = compiled.Target(l.set.Targets[i].Policy.Name) // with its defaults
	}
}

// follows reports whether a problem of a rule only follows from one that was reported elsewhere.
func (l *loader) follows(p policy.Problem) bool {
	r := l.rules[p.Index]
	for name := range l.unnamed {
		domain, issuer, _ := strings.Cut(name, "/")
		about := func(w policy.Workloads) bool {
			return domain == w.TrustDomain && (w.Issuer == "" || w.Issuer == issuer)
		}
		switch {
		case strings.HasPrefix(p.Path, "workloads.where") && about(r.Workloads),
			p.Path == "when" && about(r.Workloads),
			(p.Path == "when" || strings.HasPrefix(p.Path, "actors.where")) && r.Actors != nil && about(*r.Actors):
			return true
		}
	}
	if strings.HasPrefix(p.Path, "scopes") || p.Path == "lifetime" {
		return slices.ContainsFunc(r.Targets, func(t string) bool { return l.broken[t] })
	}
	return false
}

// agree lets door one compile what was read, with keys that verify nothing, so that a set that loads here
// is one that starts. What it refuses and nothing above did is a problem like any other.
func (l *loader) agree() {
	list := make([]federation.Issuer, len(l.set.Issuers))
	for i, is := range l.set.Issuers {
		list[i] = is.Issuer
		list[i].Keys = noKeys{}
	}
	own := federation.Own{URL: l.set.Server.Issuer, Keys: noKeys{}, Algorithms: []jose.SignatureAlgorithm{jose.ES256}} // any: nothing is verified here
	_, err := federation.NewTrust(list, &own)
	for _, err := range flatten(err) {
		var e *federation.IssuerError
		if !errors.As(err, &e) || e.Index < 0 || e.Index >= len(l.places) {
			l.problems.add(serverName, "%s", err)
			continue
		}
		at := l.places[e.Index]
		key := map[string]string{
			"TrustDomain": "name", "Name": "name", "URL": "issuer", "Audiences": "audiences", "Algorithms": "algorithms",
			"Types": "types", "MaxLifetime": "max_lifetime", "Skew": "clock_skew", "Adapter": "type",
		}[e.Field]
		at.doc.problem(join(at.path, key), "%s %s", key, e.Problem)
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

// noKeys verifies nothing.
type noKeys struct{}

// VerifySignature implements oidc.KeySet.
func (noKeys) VerifySignature(context.Context, *jose.JSONWebSignature) ([]byte, error) {
	return nil, federation.ErrKeysUnavailable
}
