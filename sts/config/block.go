package config

import (
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// block is the part of an entry that is named like the entry's kind and decoded by that kind's settings.
type block struct{ key, value *yaml.Node }

// mapItems returns the root with every mapping in the list at key replaced. The tree itself is not changed.
func (d *document) mapItems(key string, replace func(int, *yaml.Node) *yaml.Node) *yaml.Node {
	root := *d.root
	root.Content = slices.Clone(root.Content)
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != key || root.Content[i+1].Kind != yaml.SequenceNode {
			continue
		}
		list := *root.Content[i+1]
		list.Content = slices.Clone(list.Content)
		for j, item := range list.Content {
			if item.Kind == yaml.MappingNode {
				list.Content[j] = replace(j, item)
			}
		}
		root.Content[i+1] = &list
	}
	return &root
}

// detach takes the blocks of kinds out of an entry, and returns the one of the entry's own kind, which the
// key `selector` names. A block of another kind is a problem.
func (d *document) detach(n *yaml.Node, path, selector string, entry reflect.Type, kinds []string) (*yaml.Node, block) {
	fixed := fieldsOf(entry)
	own := ""
	if s := child(n, selector); s != nil && s.Kind == yaml.ScalarNode {
		own = s.Value
	}
	var found block
	rest := *n
	rest.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		_, isFixed := find(fixed, key.Value)
		switch {
		case isFixed:
			rest.Content = append(rest.Content, key, value)
		case key.Value == own:
			found = block{key, value}
		case slices.Contains(kinds, key.Value):
			d.place(key, join(path, key.Value), "the block %s is for %s: %s, and this entry says %s; remove one of the two", key.Value, selector, key.Value, show(own))
		default:
			rest.Content = append(rest.Content, key, value)
		}
	}
	return &rest, found
}

// source returns "file:line" of a path.
func (d *document) source(path string) string { return d.name + ":" + strconv.Itoa(d.line(path)) }

// shaped reports whether the list at key was decoded whole.
func (d *document) shaped(key string, n int) bool {
	list := child(d.root, key)
	return list != nil && list.Kind == yaml.SequenceNode && len(list.Content) == n
}
