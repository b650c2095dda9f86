package config

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// Running is what a running server keeps of its configuration until the next start.
type Running struct {
	Server     Server
	ServerFile []byte // sallyport.yaml
	Operators  []byte // operators.yaml, nil for none
}

// Reloaded is a set that was loaded with what a running server keeps.
type Reloaded struct {
	Set   *Set
	Files string   // names the files as they stand, as Watch asks for it
	Waits []string // how sallyport.yaml differs, setting by setting, as "sallyport.yaml:3 audit.keep"
}

// Reload is [Load] with the sallyport.yaml of a running server, which a change of the file does not reach before the next start:
// whatever became of the file, even if it does not load. An operators.yaml that is gone stays in force as well, since the
// server listens for operators until then.
func Reload(dir string, kinds Kinds, running Running) (*Reloaded, error) {
	out, operators := new(Reloaded), false
	var there []byte
	l, err := loadFrom(dir, kinds, &running.Server, func(sources []source) []source {
		out.Files = hash(sources)
		for i, s := range sources {
			operators = operators || s.name == operatorsName
			if s.name == serverName {
				there, sources[i].data = s.data, running.ServerFile
			}
		}
		if !operators && running.Operators != nil {
			sources = append(sources, source{operatorsName, running.Operators})
		}
		return sources
	})
	if err != nil {
		return nil, err
	}
	set := l.set
	out.Set, out.Waits = &set, differences(running.ServerFile, there)
	if !operators && running.Operators != nil {
		out.Waits = append(out.Waits, operatorsName+" (left out)")
	}
	return out, nil
}

// differences names the settings whose text differs.
func differences(running, there []byte) []string {
	before, after := settings(running), settings(there)
	var out []string
	for path, v := range after {
		if w, ok := before[path]; !ok || w.text != v.text {
			out = append(out, path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	for i, path := range out {
		if v, ok := after[path]; ok {
			out[i] = fmt.Sprintf("%s:%d %s", serverName, v.line, path)
		} else {
			out[i] = serverName + " " + path + " (left out)"
		}
	}
	return out
}

type setting struct {
	text string
	line int
}

// settings are the scalars of a file, by path; none of one that is not YAML.
func settings(data []byte) map[string]setting {
	out := map[string]setting{}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.DocumentNode:
			for _, c := range n.Content {
				walk(c, path)
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(n.Content[i+1], join(path, n.Content[i].Value))
			}
		case yaml.SequenceNode:
			out[path] = setting{strconv.Itoa(len(n.Content)), n.Line}
			for i, c := range n.Content {
				walk(c, index(path, i))
			}
		default:
			out[path] = setting{n.Tag + " " + n.Value, n.Line}
		}
	}
	var doc yaml.Node
	if yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc) == nil {
		walk(&doc, "")
	}
	return out
}
