package config

import (
	"reflect"
	"slices"

	"go.yaml.in/yaml/v4"
)

// platformEntry gives an entry of a well-known platform the form of every other one: what stands in the entry itself
// moves into the block of its type, and what is known of the platform and was left out is filled in. The nodes keep
// their places, so problems point at what was written.
func (l *loader) platformEntry(d *document, n *yaml.Node, path string) *yaml.Node {
	typ := child(n, "type")
	if typ == nil || typ.Kind != yaml.ScalarNode {
		return n
	}
	algorithms, ok := l.kinds.Issuers.Platform(typ.Value)
	if !ok {
		return n
	}
	settings, _ := l.kinds.Issuers.Settings(typ.Value)
	own, fixed := fieldsOf(reflect.TypeOf(settings).Elem()), fieldsOf(reflect.TypeFor[issuerEntry]())
	out, block := *n, yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		_, isOwn := find(own, key.Value)
		_, isFixed := find(fixed, key.Value)
		switch {
		case isOwn:
			block.Content = append(block.Content, key, value)
		case key.Value == typ.Value:
			d.place(key, below, "settings of %s stand in the entry itself; move them one level up", typ.Value)
		case isFixed, later(below), slices.Contains(l.kinds.Issuers.Types(), key.Value):
			out.Content = append(out.Content, key, value)
		default:
			names := make([]string, 0, len(own)+len(fixed))
			for _, f := range slices.Concat(own, fixed) {
				names = append(names, f.name)
			}
			d.place(key, below, "unknown key %s%s", show(key.Value), suggest(key.Value, names))
		}
	}
	word := func(tag, s string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: s, Line: n.Line, Column: n.Column}
	}
	if child(n, "algorithms") == nil {
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: n.Line, Column: n.Column}
		for _, a := range algorithms {
			list.Content = append(list.Content, word("!!str", string(a)))
		}
		out.Content = append(out.Content, word("!!str", "algorithms"), list)
	}
	if child(n, "keys") == nil {
		keys := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
		keys.Content = []*yaml.Node{word("!!str", "discovery"), word("!!bool", "true")}
		out.Content = append(out.Content, word("!!str", "keys"), keys)
	}
	if len(block.Content) > 0 {
		out.Content = append(out.Content, word("!!str", typ.Value), &block)
	}
	return &out
}
