package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// document is one parsed file. Its nodes keep their places, so that problems found long after decoding
// still have a line.
type document struct {
	name     string
	root     *yaml.Node // a mapping
	opaque   bool       // an alias or a flood was found: nothing may follow it
	anchored bool       // an anchor was found
	problems *Problems
	broken   map[string]bool // paths at which something was reported
	below    map[string]bool // paths below which something was reported
}

// parse reads one YAML document and refuses what no configuration file may have. It returns nil when
// there is no mapping to look into.
func parse(s source, problems *Problems) *document {
	d := &document{name: s.name, problems: problems, broken: map[string]bool{}, below: map[string]bool{}}
	if !d.text(s.data) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(s.data), yaml.WithPlugin(depthLimit{}))
	if err != nil {
		problems.add(s.name, "%s", err)
		return nil
	}
	var doc, second yaml.Node
	if err := loader.Load(&doc); err != nil {
		d.syntax(err, s.data)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.place(&second, "", "a second document begins here; one file is one document: remove it, or move it to a file of its own")
	case !errors.Is(err, io.EOF):
		d.syntax(err, s.data)
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null" {
		d.empty()
		return nil
	}
	d.root = doc.Content[0]
	if d.root.Kind != yaml.MappingNode {
		d.place(d.root, "", "the file must be a mapping (key: value), not %s", kindOf(d.root))
		return nil
	}
	d.plain(d.root, "")
	if d.opaque {
		return nil
	}
	return d
}

// depthLimit stops nesting while parsing. Aliases are refused later, by [document.plain].
type depthLimit struct{}

var errDepth = fmt.Errorf("nested more than %d deep", maxDepth)

func (depthLimit) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return errDepth
	}
	return nil
}

func (depthLimit) CheckAlias(int, int) error { return nil }

func (d *document) empty() {
	*d.problems = append(*d.problems, Problem{File: d.name, Line: 1, Column: 1,
		Message: "the file is empty; fill it, or delete it"})
}

// text refuses bytes that a reviewer could not see for what they are.
func (d *document) text(data []byte) bool {
	rest := bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(rest)) == 0 {
		d.empty()
		return false
	}
	line, column := 1, 1
	for len(rest) > 0 {
		r, size := utf8.DecodeRune(rest)
		message := ""
		switch {
		case r == utf8.RuneError && size == 1:
			message = "a byte that is not UTF-8; save the file as UTF-8"
		case unicode.Is(unicode.Cf, r):
			message = fmt.Sprintf("the invisible character U+%04X; it can hide or reorder what a line says (write it as an escape in double quotes if it is meant)", r)
		case unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t':
			message = fmt.Sprintf("the control character U+%04X; remove it", r)
		}
		if message != "" {
			*d.problems = append(*d.problems, Problem{File: d.name, Line: line, Column: column, Message: message})
			return false
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		rest = rest[size:]
	}
	return true
}

// syntax reports what the parser says.
func (d *document) syntax(err error, data []byte) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "no documents") {
			d.empty()
			return
		}
		d.problems.add(d.name, "%s", err)
		return
	}
	mark := le.Mark
	if mark.Line == 0 {
		mark = le.ContextMark
	}
	message := "this is not YAML: " + le.Message
	switch {
	case strings.Contains(le.Message, "no documents"):
		d.empty()
		return
	case strings.Contains(le.Message, errDepth.Error()) || errors.Is(err, errDepth):
		message = errDepth.Error() + "; nothing here needs that"
	case tabAt(data, mark.Line):
		message = "a tab indents this line; YAML indents with spaces"
	case le.ContextMsg != "":
		message += " (" + le.ContextMsg + ")"
	}
	*d.problems = append(*d.problems, Problem{File: d.name, Line: mark.Line, Column: mark.Column, Message: printable(message)})
}

// tabAt reports whether the indentation of a line has a tab.
func tabAt(data []byte, line int) bool {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) {
		return false
	}
	text := lines[line-1]
	return bytes.ContainsRune(text[:len(text)-len(bytes.TrimLeft(text, " \t"))], '\t')
}

// plain refuses everything that makes a line mean something else than it says, anywhere in the tree. What
// could not be understood is taken out, so that the rest can still be checked.
func (d *document) plain(n *yaml.Node, path string) {
	switch {
	case n.Kind == yaml.AliasNode:
		if !d.opaque { // the first is enough: there can be thousands
			d.place(n, path, "the alias *%s: what a line says must stand in that line; write the value out, here and at every other alias", n.Value)
		}
		d.opaque = true
		return
	case n.Anchor != "":
		if !d.anchored {
			d.place(n, path, "the anchor &%s: aliases are not followed, so it does nothing; remove it and every other anchor", n.Anchor)
		}
		d.anchored = true
	case n.Style&yaml.TaggedStyle != 0:
		d.place(n, path, "the tag %s: types follow from what is written; remove the tag and use quotes for a string", show(n.Tag))
	}
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) > maxItems:
		d.opaque = true
		d.place(n, path, "more than %d entries in one list; nothing here needs that", maxItems)
	case n.Kind == yaml.SequenceNode:
		for i, c := range n.Content {
			d.plain(c, index(path, i))
		}
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*maxKeys:
		d.opaque = true
		d.place(n, path, "more than %d keys in one mapping; nothing here needs that", maxKeys)
	case n.Kind == yaml.MappingNode:
		d.plainMapping(n, path)
	}
}

func (d *document) plainMapping(n *yaml.Node, path string) {
	seen := map[string]int{}
	kept := n.Content[:0:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		switch first, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.place(key, path, "a key must be a word, not %s", kindOf(key))
		case key.Tag == "!!merge":
			d.place(key, path, "the merge key <<: what an entry says must stand in that entry; write the values out")
		case key.Tag != "!!str":
			d.place(key, path, "the key %s is %s to YAML; put it in quotes", show(key.Value), kindOf(key))
		case key.Style&yaml.TaggedStyle != 0 || key.Anchor != "":
			d.place(key, path, "the key %s has a tag or an anchor; remove it", show(key.Value))
		case twice:
			d.place(key, below, "the key %s is already defined in line %d; remove one", show(key.Value), first)
		default:
			seen[key.Value] = key.Line
			kept = append(kept, key, value)
			d.plain(value, below)
			continue
		}
		d.opaque = d.opaque || hasAlias(key) || hasAlias(value)
	}
	n.Content = kept
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// place reports a problem at a node.
func (d *document) place(n *yaml.Node, path, format string, args ...any) {
	d.broken[path] = true
	for above := range around(path) {
		d.below[above] = true
	}
	*d.problems = append(*d.problems, Problem{
		File: d.name, Line: n.Line, Column: n.Column, Path: path, Message: printable(fmt.Sprintf(format, args...)),
	})
}

// problem reports a problem at a path, or at the nearest thing above it that is there.
func (d *document) problem(path, format string, args ...any) {
	d.place(d.at(path), path, format, args...)
}

// ok reports whether nothing was reported at path, below it, or at something around it. What is reported
// about the file as a whole is not around anything.
func (d *document) ok(path string) bool {
	if d.below[path] || d.broken[path] {
		return false
	}
	for above := range around(path) {
		if above != "" && d.broken[above] {
			return false
		}
	}
	return true
}

// around yields the paths that a path is in, the nearest first and "" last.
func around(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := len(path) - 1; i > 0; i-- {
			if c := path[i]; (c == '.' || c == '[') && !yield(path[:i]) {
				return
			}
		}
		if path != "" {
			yield("")
		}
	}
}

// at returns the node to point at for a path. A block is pointed at by its key, anything that stands in
// one line by itself.
func (d *document) at(path string) *yaml.Node {
	n, mark, rest := d.root, d.root, path
	for rest != "" {
		key, value, left := step(n, rest)
		if value == nil {
			break
		}
		n, rest = value, left
		if mark = value; key != nil && value.Kind != yaml.ScalarNode && value.Style&yaml.FlowStyle == 0 {
			mark = key
		}
	}
	return mark
}

// value returns the node that a path names, nil when there is none.
func (d *document) value(path string) *yaml.Node {
	n := d.root
	for path != "" {
		_, next, rest := step(n, path)
		if next == nil {
			return nil
		}
		n, path = next, rest
	}
	return n
}

// line returns the line of what a path names.
func (d *document) line(path string) int { return d.at(path).Line }

// step finds the first part of a path below n. Keys may have dots in them, so the longest that fits wins.
func step(n *yaml.Node, path string) (key, value *yaml.Node, rest string) {
	switch n.Kind {
	case yaml.SequenceNode:
		number, after, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= len(n.Content) {
			return nil, nil, path
		}
		return nil, n.Content[i], strings.TrimPrefix(after, ".")
	case yaml.MappingNode:
		longest := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i].Value
			after, ok := strings.CutPrefix(path, k)
			if ok && len(k) > longest && (after == "" || after[0] == '.' || after[0] == '[') {
				longest, key, value, rest = len(k), n.Content[i], n.Content[i+1], strings.TrimPrefix(after, ".")
			}
		}
	}
	return key, value, rest
}

// child returns the value of a key, nil when it is not there.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// kindOf names what a node is, as people say it.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth value"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	default:
		return "a value of type " + n.Tag
	}
}
