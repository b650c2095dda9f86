package config

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// policyFile is one file in policy/. Not a key, not an issuer URL.
type policyFile struct {
	Rules []ruleEntry `yaml:"rules" jsonschema:"minItems=1" jsonschema_description:"Rules in order: of the allow rules that cover a request the first decides, a deny rule wins over all. Required, at least one."`
}

type ruleEntry struct {
	Name         string         `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the rule, unique in all files; audit records and explanations refer to it. Required."`
	Effect       string         `yaml:"effect,omitempty" jsonschema:"enum=allow,enum=deny" jsonschema_description:"What a matching rule does. Default: allow."`
	Workloads    workloadsBlock `yaml:"workloads" jsonschema_description:"Whom the rule is about. Required."`
	Targets      []string       `yaml:"targets,omitempty" jsonschema:"minItems=1" jsonschema_description:"Names of targets. Required in an allow rule; default in a deny rule: every target."`
	Scopes       []string       `yaml:"scopes,omitempty" jsonschema:"minItems=1" jsonschema_description:"Scopes that an allow rule grants at most; each target must define them. Default: none."`
	Lifetime     duration       `yaml:"lifetime,omitempty" jsonschema_description:"Life of the credential, from 1s to max_lifetime of the targets. Default: max_lifetime of the target."`
	ExchangeFrom []string       `yaml:"exchange_from,omitempty" jsonschema:"minItems=1" jsonschema_description:"Makes this a rule for tokens that Sallyport minted for the targets listed here, presented as subject tokens. Default: the rule is for tokens of platforms only."`
}

type workloadsBlock struct {
	TrustDomain string                `yaml:"trust_domain" jsonschema:"minLength=1" jsonschema_description:"Trust domain of the workloads. Required."`
	Issuer      string                `yaml:"issuer,omitempty" jsonschema:"minLength=1" jsonschema_description:"Name of their issuer inside the trust domain. Required in an allow rule; default in a deny rule: every issuer of the trust domain."`
	Where       map[string]whereValue `yaml:"where,omitempty" jsonschema_description:"What the workload's attributes must be; all must match. Names and types are those that the issuer's type declares. Required in an allow rule without exchange_from; default in a deny rule: every workload."`
}

// whereValue is a matcher as written: a value, a list of values, {prefix: p} or {contains: v}.
type whereValue struct{ matcher policy.Matcher }

var (
	_ checker          = (*whereValue)(nil)
	_ yaml.Unmarshaler = (*whereValue)(nil)
)

func (*whereValue) check(d *document, n *yaml.Node, path string) bool {
	switch n.Kind {
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.whereScalar(c, index(path, i))
		}
		if len(n.Content) == 0 {
			d.place(n, path, "%s lists no value; an empty list does not mean all", last(path))
		}
	case yaml.MappingNode:
		d.whereMapping(n, path)
	default:
		d.whereScalar(n, path)
	}
	return true
}

func (d *document) whereMapping(n *yaml.Node, path string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		switch {
		case key.Value != "prefix" && key.Value != "contains":
			d.place(key, below, "unknown key %s%s", show(key.Value), suggest(key.Value, []string{"prefix", "contains"}))
		case d.whereScalar(value, below) && value.Tag != "!!str":
			d.place(value, below, "%s compares strings, and YAML reads %s as %s; write it in quotes", key.Value, strings.Trim(show(value.Value), `"`), kindOf(value))
		}
	}
	if d.ok(path) && len(n.Content) != 2 {
		d.place(n, path, "%s needs exactly one of prefix and contains", last(path))
	}
}

// whereScalar checks one value. It is data, never a pattern, and its type is the one it is written with.
func (d *document) whereScalar(n *yaml.Node, path string) bool {
	value := strings.Trim(show(n.Value), `"`)
	message := ""
	switch {
	case n.Kind != yaml.ScalarNode:
		message = "a value must be a string, a whole number, true or false, not " + kindOf(n)
	case n.Tag == "!!str" && n.Value == "":
		message = "an empty string is no value; an attribute that is absent matches nothing"
	case n.Tag == "!!str" && strings.Contains(n.Value, "*"):
		message = "the value " + value + " has a *, and there are no wildcards: it would match a literal star only; use {prefix: PATH} for whole segments, or a list"
	case n.Tag == "!!str" || n.Tag == "!!bool":
	case n.Tag == "!!int" && decimal.MatchString(n.Value) && n.Load(new(int64)) == nil:
	case n.Tag == "!!null":
		message = last(path) + " has no value; write one, or leave the key out"
	default:
		message = "the value " + value + " can be read in two ways; put it in quotes for a string, or write a whole number in decimal digits"
	}
	if message != "" {
		d.place(n, path, "%s", message)
	}
	return message == ""
}

// UnmarshalYAML reads a matcher; what check refuses is left out.
func (w *whereValue) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, c := range n.Content {
			w.matcher.OneOf = append(w.matcher.OneOf, scalarValue(c))
		}
	case yaml.MappingNode:
		if p := child(n, "prefix"); p != nil {
			w.matcher.Prefix = p.Value
		}
		if c := child(n, "contains"); c != nil {
			v := scalarValue(c)
			w.matcher.Contains = &v
		}
	default:
		w.matcher.OneOf = []federation.Value{scalarValue(n)}
	}
	return nil
}

// scalarValue returns a value by its tag; the zero Value equals nothing.
func scalarValue(n *yaml.Node) federation.Value {
	var number int64
	switch {
	case n.Kind != yaml.ScalarNode:
	case n.Tag == "!!str":
		return federation.String(n.Value)
	case n.Tag == "!!bool":
		return federation.Bool(strings.EqualFold(n.Value, "true"))
	case n.Tag == "!!int" && n.Load(&number) == nil:
		return federation.Int(number)
	}
	return federation.Value{}
}

// policy checks one policy file and adds its rules.
func (l *loader) policy(d *document) {
	var f policyFile
	d.decode(d.root, "", &f, true)
	if !d.shaped("rules", len(f.Rules)) {
		return
	}
	for i, e := range f.Rules {
		path := index("rules", i)
		if len(l.rules) == maxRules {
			d.problem(path, "more than %d rules; split the deployment", maxRules)
			return
		}
		if d.ok(join(path, "effect")) && e.Effect != "" && e.Effect != policy.Allow.String() && e.Effect != policy.Deny.String() {
			d.problem(join(path, "effect"), "effect %s is neither allow nor deny%s", show(e.Effect), didYouMean(e.Effect, []string{policy.Allow.String(), policy.Deny.String()}))
		}
		if !d.ok(path) {
			continue // what policy would say of half a rule is not true of the whole one
		}
		r := policy.Rule{
			Name: e.Name, Source: d.source(path), Effect: policy.Allow, Targets: e.Targets, Scopes: e.Scopes,
			Lifetime: e.Lifetime.value(), ExchangeFrom: e.ExchangeFrom,
			Workloads: policy.Workloads{TrustDomain: e.Workloads.TrustDomain, Issuer: e.Workloads.Issuer},
		}
		if e.Effect == policy.Deny.String() {
			r.Effect = policy.Deny
		}
		if e.Workloads.Where != nil {
			r.Workloads.Where = make(map[string]policy.Matcher, len(e.Workloads.Where))
			for name, w := range e.Workloads.Where {
				r.Workloads.Where[name] = w.matcher
			}
		}
		l.rules = append(l.rules, r)
		l.rulePlaces = append(l.rulePlaces, place{d, path})
	}
}
