package config

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// LoadWithServer is [Load] with another server file than the one in dir: that of a running server, which a change of it does not
// reach before the next start. It answers how the file in dir differs, setting by setting, as "sallyport.yaml:3 audit.keep".
func LoadWithServer(dir string, kinds Kinds, server []byte) (*Set, []string, error) {
	var there []byte
	l, err := loadFrom(dir, kinds, func(sources []source) {
		for i, s := range sources {
			if s.name == serverName {
				there, sources[i].data = s.data, server
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	set := l.set
	return &set, differences(server, there), nil
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

// settings are the scalars of a file that loads, by path.
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
