package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
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
	Broker   brokers.Target // for Kind.Build
}

// targetFile is one file in targets/. The block named like its broker is not in it, see [document.detach].
type targetFile struct {
	Target          string                   `yaml:"target" jsonschema:"minLength=1,maxLength=64,pattern=^[A-Za-z0-9._-]+$" jsonschema_description:"Name of the target, by which callers ask for it (audience): letters, digits, '.', '_' and '-', at most 64. Required."`
	Broker          string                   `yaml:"broker" jsonschema:"minLength=1" jsonschema_description:"Kind of credential to make. Required. A block of the same name holds that kind's own settings."`
	Resource        string                   `yaml:"resource,omitempty" jsonschema:"minLength=1" jsonschema_description:"Absolute URI by which callers can also ask for the target (RFC 8707). Default: none."`
	MaxLifetime     duration                 `yaml:"max_lifetime,omitempty" jsonschema_description:"Longest life of a credential; 1s to 1h. Default: 15m. Rules can only shorten it."`
	GrantableTo     *grantableBlock          `yaml:"grantable_to,omitempty" jsonschema_description:"Who may be granted this target at all, by its owner's word; a rule outside it does not load. Default: every trust domain."`
	ResourceServers []string                 `yaml:"resource_servers,omitempty" jsonschema:"minItems=1" jsonschema_description:"Workload ids that may introspect tokens of this target, or the beginning of such ids followed by /*. Default: nobody."`
	Scopes          map[string]scopeSettings `yaml:"scopes,omitempty" jsonschema_description:"Words for degrees of access, each with what it means to the broker. Default: the target has no scopes."`
}

type grantableBlock struct {
	TrustDomains []string `yaml:"trust_domains" jsonschema:"minItems=1" jsonschema_description:"Trust domains whose workloads may be granted this target. Required."`
}

// scopeSettings is the native entitlement of a scope. No broker has one yet.
type scopeSettings struct{}

var _ checker = (*scopeSettings)(nil)

func (*scopeSettings) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.MappingNode || len(n.Content) > 0 {
		d.place(n, path, "a scope of this broker means nothing more than its name; write %s: {}", last(path))
	}
	return true
}

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
	t.Broker = brokers.Target{Name: f.Target, Resource: f.Resource, Scopes: slices.Clone(t.Policy.Scopes), Signing: l.set.Server.Signing.Algorithms}
	if d.ok("broker") {
		l.broker(d, f.Broker, b, &t)
	}
	if !d.ok("") {
		l.broken[f.Target] = true
	}
	l.set.Targets = append(l.set.Targets, t)
	l.targets = append(l.targets, place{d, ""})
}

// broker decodes and checks the block of the target's broker.
func (l *loader) broker(d *document, name string, b block, t *Target) {
	kind, ok := l.kinds.Brokers.Lookup(name)
	if !ok {
		d.problem("broker", "broker %s is not known%s", show(name), suggest(name, l.kinds.Brokers.Names()))
		return
	}
	t.Kind, t.Settings = kind, kind.Settings()
	if b.value != nil && !d.decode(b.value, name, t.Settings, false) {
		return
	}
	for _, p := range kind.Check(t.Broker, t.Settings) {
		d.problem(strings.TrimSuffix(join(name, p.Path), "."), "%s", p.Message)
	}
	if name == jwtBroker {
		l.audience(d, t.Broker, b)
	}
}

// audience refuses two targets whose tokens could be taken for each other (RFC 9068 section 5).
func (l *loader) audience(d *document, t brokers.Target, b block) {
	path, aud := join(jwtBroker, "audience"), cmp.Or(t.Resource, t.Name)
	if n := child(b.value, "audience"); n != nil && n.Value != "" {
		aud = n.Value
	}
	first, ok := l.minted[aud]
	if !ok {
		l.minted[aud] = d.source(path)
		return
	}
	if child(b.value, "audience") == nil {
		path = "target"
	}
	d.problem(path, "tokens of this target would have the audience %s, as those of %s have; a token for the one would open the other (RFC 9068 section 5): give each its own", show(aud), first)
}

// introspection returns the built-in target. A binary without the jwt broker has none.
func (l *loader) introspection() (Target, bool) {
	kind, ok := l.kinds.Brokers.Lookup(jwtBroker)
	if !ok {
		return Target{}, false
	}
	t := Target{
		Policy:   policy.Target{Name: introspectionTarget, MaxLifetime: policy.DefaultLifetime},
		Kind:     kind,
		Settings: kind.Settings(),
		Broker:   brokers.Target{Name: introspectionTarget},
	}
	settings := yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: "audience"},
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: l.set.Server.Issuer + introspectionPath},
	}}
	return t, settings.Load(t.Settings, yaml.WithKnownFields()) == nil
}
