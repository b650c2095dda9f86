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
	Name         string          `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the rule, unique in all files; audit records and explanations refer to it. Required."`
	Effect       string          `yaml:"effect,omitempty" jsonschema:"enum=allow,enum=deny" jsonschema_description:"What a matching rule does. Default: allow."`
	Workloads    workloadsBlock  `yaml:"workloads" jsonschema_description:"Whom the rule is about. Required."`
	Targets      []string        `yaml:"targets,omitempty" jsonschema:"minItems=1" jsonschema_description:"Names of targets. Required in an allow rule; default in a deny rule: every target."`
	Scopes       []string        `yaml:"scopes,omitempty" jsonschema:"minItems=1" jsonschema_description:"Scopes that an allow rule grants at most; each target must define them. Default: none."`
	Lifetime     duration        `yaml:"lifetime,omitempty" jsonschema_description:"Life of the credential, from 1s to max_lifetime of the targets. Default: max_lifetime of the target."`
	Actors       *workloadsBlock `yaml:"actors,omitempty" jsonschema_description:"Who may act for these workloads: makes an allow rule one for requests in which such a workload acts. Issuer is required. With where it presents a platform's token; without where and actors_from, in a rule with exchange_from, it is the one that the subject token names. Default: the rule is for requests in which nobody acts for another."`
	ActorsFrom   []string        `yaml:"actors_from,omitempty" jsonschema:"minItems=1" jsonschema_description:"The actors present a token that Sallyport minted for one of the targets listed here, and have no where. Whoever serves such a target could present tokens of its callers, so let it be a target for nothing else. Default: no token minted here is an actor token."`
	When         string          `yaml:"when,omitempty" jsonschema:"minLength=1,maxLength=4096" jsonschema_description:"Condition in CEL over workload, actor, target, request and env, checked at load, at most 4 KiB; it can only narrow. An absent attribute or an error is no match in an allow rule and a match in a deny rule. Default: none."`
	Require      *requireBlock   `yaml:"require,omitempty" jsonschema_description:"What an allow rule demands of the subject token beyond its attributes; what is not met is no match. Default: nothing."`
	Outlives     *opening        `yaml:"outlives_subject,omitempty" jsonschema_description:"true lets the credential live past the subject token, up to the rule's lifetime, for platforms whose tokens live shorter than any credential. Never past the actor token, never with exchange_from. A stolen subject token then buys more time. Default: no credential outlives its subject token."`
	Family       *familyBound    `yaml:"family_lifetime,omitempty" jsonschema:"-"`
	ExchangeFrom []string        `yaml:"exchange_from,omitempty" jsonschema:"minItems=1" jsonschema_description:"Makes this a rule for tokens that Sallyport minted for the targets listed here, presented as subject tokens. Default: the rule is for tokens of platforms only."`
}

type workloadsBlock struct {
	TrustDomain string                `yaml:"trust_domain" jsonschema:"minLength=1" jsonschema_description:"Trust domain of the workloads. Required."`
	Issuer      string                `yaml:"issuer,omitempty" jsonschema:"minLength=1" jsonschema_description:"Name of their issuer inside the trust domain. Required in an allow rule; default in a deny rule: every issuer of the trust domain."`
	Where       map[string]whereValue `yaml:"where,omitempty" jsonschema_description:"What the workload's attributes must be; all must match. Names and types are those that the issuer's type declares. Required in an allow rule without exchange_from; default in a deny rule: every workload."`
}

type requireBlock struct {
	Fresh     duration `yaml:"fresh,omitempty" jsonschema_description:"The subject token was issued (iat) at most so long ago, such as 5m; at least 1s. A token without iat is not fresh. Default: any age that the issuer's max_lifetime lets pass."`
	SingleUse *opening `yaml:"single_use,omitempty" jsonschema_description:"true: the subject token may be exchanged for the target once. Default: as often as it is valid, unless its issuer says single_use."`
	Bound     *opening `yaml:"bound,omitempty" jsonschema_description:"true: the subject token is bound to a key. No token can be in this version, so a rule with it does not load. Default: not demanded."`
}

// opening is a key that is true or not there: false would read as if it took something back.
type opening bool

var _ checker = (*opening)(nil)

func (*opening) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || !strings.EqualFold(n.Value, "true") {
		d.place(n, path, "%s can only be true, not %s; leave the key out for the default", last(path), show(n.Value))
	}
	return true
}

// familyBound refuses a key of which only the name is known.
type familyBound struct{}

var _ checker = (*familyBound)(nil)

func (*familyBound) check(d *document, n *yaml.Node, path string) bool {
	d.place(n, path, "family_lifetime would let a family of tokens that is bound to a key renew itself, and no token can be bound to a key in this version; leave it out, and exchange a fresh token instead")
	return true
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

func (w workloadsBlock) value() policy.Workloads {
	out := policy.Workloads{TrustDomain: w.TrustDomain, Issuer: w.Issuer}
	if w.Where != nil {
		out.Where = make(map[string]policy.Matcher, len(w.Where))
		for name, v := range w.Where {
			out.Where[name] = v.matcher
		}
	}
	return out
}

// inside reports what a condition says at a line and column of its own text. A text that stands in the file as it
// is, in one line, is pointed into; elsewhere the message says where.
func (d *document) inside(path, rule string, p policy.Problem) {
	n := d.at(path)
	at, what := *n, "the condition of rule "+show(rule)
	switch {
	case n.Kind != yaml.ScalarNode || strings.Contains(n.Value, "\n") || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		d.place(n, path, "line %d, column %d of %s: %s", p.Line, p.Column, what, p.Message)
		return
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		at.Column++
	}
	at.Column += p.Column - 1
	d.place(&at, path, "%s: %s", what, p.Message)
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
		if n := d.value(join(path, "when")); n != nil && d.ok(join(path, "when")) && strings.TrimSpace(n.Value) == "" {
			d.problem(join(path, "when"), "the condition is empty; write one, or leave the key out")
		}
		if q := e.Require; q != nil && *q == (requireBlock{}) && d.ok(join(path, "require")) {
			d.problem(join(path, "require"), "require demands nothing; name fresh or single_use, or leave the key out")
		}
		if !d.ok(path) {
			continue // what policy would say of half a rule is not true of the whole one
		}
		r := policy.Rule{
			Name: e.Name, Source: d.source(path), Effect: policy.Allow, Targets: e.Targets, Scopes: e.Scopes,
			Lifetime: e.Lifetime.value(), ExchangeFrom: e.ExchangeFrom, ActorsFrom: e.ActorsFrom,
			Workloads: e.Workloads.value(), When: e.When, OutlivesSubject: e.Outlives != nil,
		}
		if e.Effect == policy.Deny.String() {
			r.Effect = policy.Deny
		}
		if e.Actors != nil {
			actors := e.Actors.value()
			r.Actors = &actors
		}
		if q := e.Require; q != nil {
			r.Require = policy.Require{Fresh: q.Fresh.value(), SingleUse: q.SingleUse != nil, Bound: q.Bound != nil}
		}
		l.rules = append(l.rules, r)
		l.rulePlaces = append(l.rulePlaces, place{d, path})
	}
}
