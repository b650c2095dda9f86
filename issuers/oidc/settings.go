package oidc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
)

// Settings say how tokens of one issuer name workloads.
type Settings struct {
	// Path lists the claims whose values, in this order, become the segments of the workload id. Choose
	// claims that the platform never gives to somebody else later.
	Path []ClaimPath `yaml:"path" json:"path" jsonschema:"required,minItems=1" jsonschema_description:"Claims whose string values become the path segments of the workload id, in this order."`
	// Attributes are what rules can ask about. A claim that a token does not have is an absent attribute.
	Attributes map[string]Attribute `yaml:"attributes" json:"attributes,omitempty" jsonschema_description:"Attributes that rules can match, by name. Lower-case letters, digits and '_'."`
	// Required refuses tokens that do not have each of these top-level claims with exactly this value, or
	// one of these values. It keeps other kinds of tokens of the same issuer out.
	Required map[string]Literals `yaml:"required" json:"required,omitempty" jsonschema_description:"Top-level claims that must have exactly this value, or one of these values. Types must match."`
}

// Attribute maps one claim to one attribute.
type Attribute struct {
	Claim  ClaimPath `yaml:"claim" json:"claim" jsonschema:"required" jsonschema_description:"Claim name, or list of names to reach into nested objects."`
	Type   string    `yaml:"type" json:"type,omitempty" jsonschema:"enum=string,enum=strings,enum=bool,enum=int,default=string" jsonschema_description:"Type of the claim. A token where it differs is refused, never converted."`
	Anchor bool      `yaml:"anchor" json:"anchor,omitempty" jsonschema_description:"The platform never gives this value to somebody else later."`
	Doc    string    `yaml:"doc" json:"doc,omitempty" jsonschema_description:"One sentence: what it says and who chooses it."`
}

// ClaimPath names a claim: one name, or names leading into nested objects. Dots have no meaning.
type ClaimPath []string

// UnmarshalYAML reads a string or a list of strings.
func (p *ClaimPath) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		*p = ClaimPath{n.Value}
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return errors.New("a claim is a name or a list of names")
	}
	out := make(ClaimPath, len(n.Content))
	for i, e := range n.Content {
		if e.Kind != yaml.ScalarNode || e.ShortTag() != "!!str" {
			return errors.New("a claim is a name or a list of names")
		}
		out[i] = e.Value
	}
	*p = out
	return nil
}

// JSONSchema describes the two forms.
func (ClaimPath) JSONSchema() *jsonschema.Schema {
	name := &jsonschema.Schema{Type: "string", MinLength: ptr(1)}
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{name, {Type: "array", Items: name, MinItems: ptr(1)}}}
}

// String prints the path for people.
func (p ClaimPath) String() string { return strings.Join(p, " > ") }

func (p ClaimPath) check() error {
	if len(p) == 0 || len(p) > maxClaimPath {
		return fmt.Errorf("a claim has 1 to %d names", maxClaimPath)
	}
	for _, name := range p {
		if name == "" {
			return errors.New("a claim name is empty")
		}
	}
	return nil
}

// maxClaimPath is as deep as claims may nest.
const maxClaimPath = 8

// Literals are the accepted values of a required claim: string, bool or int64 each.
type Literals []any

// UnmarshalYAML reads a scalar or a list of scalars, with the types that YAML gives them: 42 is not "42".
func (l *Literals) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	out := make(Literals, len(nodes))
	for i, e := range nodes {
		v, err := literal(e)
		if err != nil {
			return err
		}
		out[i] = v
	}
	*l = out
	return nil
}

// JSONSchema describes the two forms.
func (Literals) JSONSchema() *jsonschema.Schema {
	one := []*jsonschema.Schema{{Type: "string"}, {Type: "boolean"}, {Type: "integer"}}
	many := &jsonschema.Schema{Type: "array", Items: &jsonschema.Schema{OneOf: one}, MinItems: ptr(1)}
	return &jsonschema.Schema{OneOf: append(one, many)}
}

func literal(n *yaml.Node) (any, error) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str":
			return n.Value, nil
		case "!!bool":
			var b bool
			err := n.Decode(&b)
			return b, err
		case "!!int":
			i, err := strconv.ParseInt(n.Value, 10, 64)
			if err != nil || strconv.FormatInt(i, 10) != n.Value { // 010 is 8 to YAML and 10 to people
				return nil, errors.New("a required integer is written in decimal, without leading zeros")
			}
			return i, nil
		}
	}
	return nil, errors.New("a required value is a string, true, false or an integer")
}

// types are the words for attribute types.
var types = map[string]federation.Type{
	"":        federation.TypeString,
	"string":  federation.TypeString,
	"strings": federation.TypeStrings,
	"bool":    federation.TypeBool,
	"int":     federation.TypeInt,
}

func ptr(n uint64) *uint64 { return &n }
