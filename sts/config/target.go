package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// The built-in target: a resource server exchanges for it to call the introspection endpoint.
const (
	introspectionTarget = "introspection"
	introspectionPath   = "/introspect"
	// jwtBroker is the kind of the built-in target, and the one whose audiences must differ.
	jwtBroker = "jwt"
)

// Target is one target: what policy knows of it and how to make its broker.
type Target struct {
	Policy   policy.Target
	Kind     brokers.Kind   // its name is the broker's
	Settings any            // for Kind.Build
	Scopes   map[string]any // for Kind.Build
	Broker   brokers.Target // for Kind.Build
	Leases   int            // that may live at once; 0: what the server file says
	Reuse    bool           // a credential may answer several exchanges
}

// targetFile is one file in targets/. The block named like its broker is not in it, see [document.detach].
type targetFile struct {
	Target          string                   `yaml:"target" jsonschema:"minLength=1,maxLength=64,pattern=^[A-Za-z0-9._-]+$" jsonschema_description:"Name of the target, by which callers ask for it (audience): letters, digits, '.', '_' and '-', at most 64. Required."`
	Broker          string                   `yaml:"broker" jsonschema:"minLength=1" jsonschema_description:"Kind of credential to make. Required. A block of the same name holds that kind's own settings."`
	Resource        string                   `yaml:"resource,omitempty" jsonschema:"minLength=1" jsonschema_description:"Absolute URI by which callers can also ask for the target (RFC 8707). Default: none."`
	MaxLifetime     duration                 `yaml:"max_lifetime,omitempty" jsonschema_description:"Longest life of a credential; 1s to 1h. Default: 15m. Rules can only shorten it."`
	MaxLeases       int                      `yaml:"max_leases,omitempty" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"Credentials for this target that may live outside at once; 1 to 1000000. Default: leases.per_target of sallyport.yaml. Means nothing to the jwt broker, whose tokens live nowhere."`
	Reuse           bool                     `yaml:"reuse,omitempty" jsonschema_description:"true: the same workload, asking again for the same, may get the credential that it has already, while at least half of the time that it would get is left. Policy is asked each time, and whatever kills one of these leases kills the credential for all. Default: false. Not for the jwt broker."`
	GrantableTo     *grantableBlock          `yaml:"grantable_to,omitempty" jsonschema_description:"Who may be granted this target at all, by its owner's word; a rule outside it does not load. Default: every trust domain."`
	ResourceServers []string                 `yaml:"resource_servers,omitempty" jsonschema:"minItems=1" jsonschema_description:"Workload ids that may introspect tokens of this target, or the beginning of such ids followed by /*. Default: nobody."`
	Scopes          map[string]scopeSettings `yaml:"scopes,omitempty" jsonschema_description:"Words for degrees of access, each with what it means to the broker. Default: the target has no scopes."`
}

type grantableBlock struct {
	TrustDomains []string `yaml:"trust_domains" jsonschema:"minItems=1" jsonschema_description:"Trust domains whose workloads may be granted this target. Required."`
}

// scopeSettings is the native entitlement of a scope, decoded when the broker is known.
type scopeSettings struct{}

var (
	_ checker          = (*scopeSettings)(nil)
	_ yaml.Unmarshaler = (*scopeSettings)(nil)
)

// check comes later, when the broker is known.
func (*scopeSettings) check(*document, *yaml.Node, string) bool { return true }

// UnmarshalYAML leaves the node to [loader.broker].
func (*scopeSettings) UnmarshalYAML(*yaml.Node) error { return nil }

// target checks one target file and adds it to the set.
func (l *loader) target(d *document) {
	rest, b := d.detach(d.root, "", "broker", reflect.TypeFor[targetFile](), l.kinds.Brokers.Names())
	var f targetFile
	d.decode(rest, "", &f, true)
	if f.Target == "" || !d.ok("target") {
		l.incomplete = true
		if d.ok("target") {
			d.problem("target", "target is empty; give it the name that callers ask for")
		}
		return
	}
	if f.Target == introspectionTarget {
		d.problem("target", "the target %s is built in, so that resource servers can ask about tokens; choose another name", introspectionTarget)
		return
	}
	t := Target{Policy: policy.Target{
		Name: f.Target, Resource: f.Resource, MaxLifetime: f.MaxLifetime.value(), ResourceServers: f.ResourceServers,
	}}
	for name := range f.Scopes {
		t.Policy.Scopes = append(t.Policy.Scopes, name)
	}
	slices.Sort(t.Policy.Scopes)
	if f.GrantableTo != nil {
		t.Policy.GrantableTo = append([]string{}, f.GrantableTo.TrustDomains...) // never nil: nil means all
	}
	dir := l.dir // not l: the broker lives on, and would keep every file of the configuration in memory
	t.Broker = brokers.Target{
		Name: f.Target, Resource: f.Resource, Scopes: slices.Clone(t.Policy.Scopes), MaxLifetime: cmp.Or(t.Policy.MaxLifetime, policy.DefaultLifetime),
		Signing: l.set.Server.Signing.Algorithms, KMS: l.set.Server.Signing.Vault != (Vault{}),
		Secret: func(r secret.Ref) (secret.Value, error) { return Secret(r).Resolve(dir) },
		Path:   func(path string) string { return under(dir, path) },
	}
	if child(d.root, "max_leases") != nil {
		d.countOf("max_leases", f.MaxLeases)
		t.Leases = f.MaxLeases
	}
	if t.Reuse = f.Reuse; f.Reuse && f.Broker == jwtBroker {
		d.problem("reuse", "reuse is for credentials that live outside, and the jwt broker's do not; leave it out, a token costs a signature")
	}
	if d.ok("broker") {
		l.broker(d, f, b, &t)
	}
	if !d.ok("") {
		l.broken[f.Target] = true
	}
	l.set.Targets = append(l.set.Targets, t)
	l.targets = append(l.targets, place{d, ""})
}

// broker decodes and checks the block of the target's broker, and what its scopes mean.
func (l *loader) broker(d *document, f targetFile, b block, t *Target) {
	name := f.Broker
	kind, ok := l.kinds.Brokers.Lookup(name)
	if !ok {
		d.problem("broker", "broker %s is not known%s", show(name), suggest(name, l.kinds.Brokers.Names()))
		return
	}
	t.Kind, t.Settings, t.Scopes = kind, kind.Settings(), map[string]any{}
	if b.value == nil {
		at := d.at("broker")
		b.value = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: at.Line, Column: at.Column} // for what is missing in it
	}
	readable := d.decode(b.value, name, t.Settings, true)
	for _, scope := range t.Policy.Scopes {
		path := join("scopes", scope)
		if !d.ok(path) {
			readable = false
			continue
		}
		meaning, n := kind.Scope(), child(child(d.root, "scopes"), scope)
		t.Scopes[scope] = meaning
		if reflect.TypeOf(meaning).Elem().NumField() == 0 && (n.Kind != yaml.MappingNode || len(n.Content) > 0) {
			d.place(n, path, "a scope of this broker means nothing more than its name; write %s: {}", scope)
			readable = false
			continue
		}
		readable = d.decode(n, path, meaning, true) && readable
	}
	if readable && l.secrets(d, name, reflect.ValueOf(t.Settings).Elem()) {
		for _, p := range kind.Check(t.Broker, t.Settings, t.Scopes) {
			path := join(name, p.Path)
			if strings.HasPrefix(p.Path, "scopes.") {
				path = p.Path
			}
			d.problem(strings.TrimSuffix(path, "."), "%s", p.Message)
		}
	}
	if least := kind.Capabilities().MinLifetime; d.ok("max_lifetime") && t.Broker.MaxLifetime < least {
		d.problem("max_lifetime", "max_lifetime is %s, and a credential of this kind lives at least %s; raise it", t.Broker.MaxLifetime, least)
	}
	t.Policy.MinLifetime = kind.Capabilities().MinLifetime
	if name == jwtBroker {
		t.Policy.Audience = l.audience(d, t.Broker, b)
	}
}

// secrets checks that every secret that settings refer to can be read, and reports whether they all can.
func (l *loader) secrets(d *document, path string, v reflect.Value) bool {
	switch {
	case v.Type() == reflect.TypeFor[secret.Ref]():
		ref := Secret(v.Interface().(secret.Ref))
		if ref != (Secret{}) {
			l.secret(d, path, ref)
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return l.secrets(d, path, v.Elem())
	case v.Kind() == reflect.Struct:
		fine := true
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if f.IsExported() && name != "-" {
				fine = l.secrets(d, join(path, cmp.Or(name, strings.ToLower(f.Name))), v.Field(i)) && fine
			}
		}
		return fine
	case v.Kind() == reflect.Slice:
		fine := true
		for i := range v.Len() {
			fine = l.secrets(d, index(path, i), v.Index(i)) && fine
		}
		return fine
	}
	return d.ok(path)
}

// audience returns the aud of a target's tokens, and refuses two targets whose tokens could be taken for each other
// (RFC 9068 section 5).
func (l *loader) audience(d *document, t brokers.Target, b block) string {
	path, aud := join(jwtBroker, "audience"), cmp.Or(t.Resource, t.Name)
	if n := child(b.value, "audience"); n != nil && n.Value != "" {
		aud = n.Value
	}
	first, ok := l.minted[aud]
	if !ok {
		l.minted[aud] = d.source(path)
		return aud
	}
	if child(b.value, "audience") == nil {
		path = "target"
	}
	d.problem(path, "tokens of this target would have the audience %s, as those of %s have; a token for the one would open the other (RFC 9068 section 5): give each its own", show(aud), first)
	return aud
}

// introspection returns the built-in target. A binary without the jwt broker has none.
func (l *loader) introspection() (Target, bool) {
	kind, ok := l.kinds.Brokers.Lookup(jwtBroker)
	if !ok {
		return Target{}, false
	}
	aud := l.set.Server.Issuer + introspectionPath
	t := Target{
		Policy:   policy.Target{Name: introspectionTarget, Audience: aud, MaxLifetime: policy.DefaultLifetime},
		Kind:     kind,
		Settings: kind.Settings(),
		Broker:   brokers.Target{Name: introspectionTarget},
	}
	settings := yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: "audience"},
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: aud},
	}}
	return t, settings.Load(t.Settings, yaml.WithKnownFields()) == nil
}
