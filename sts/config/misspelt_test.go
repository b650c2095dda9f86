package config_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/config"
)

// Vault's Kubernetes login once ignored a misspelt `audiences` and checked none (failures.md 10). Here every
// key of every file is misspelt in turn, and each time the line is named.
func TestEveryMisspeltKeyIsRefusedInItsLine(t *testing.T) {
	for _, story := range []struct {
		archive string
		kinds   config.Kinds
	}{{"base.txtar", testKinds(t)}, {"sample.txtar", productKinds(t)}} {
		a, tried := archive(t, story.archive), 0
		dir := write(t, a)
		writeCertificate(t, dir)
		for _, f := range a.Files {
			if !strings.HasSuffix(f.Name, ".yaml") {
				continue
			}
			for _, k := range keysOf(t, f.Data) {
				if chosenByUser.MatchString(k.path) {
					continue
				}
				for _, misspelt := range []string{"x" + k.key, k.key + "_", strings.ToUpper(k.key[:1]) + k.key[1:]} {
					put(t, dir, f.Name, string(k.replaced(f.Data, misspelt)))
					if all := problems(t, dir, story.kinds); !names(all, f.Name, k.line) {
						t.Errorf("%s: %s line %d: %s written as %s: got\n%swant a problem in that line", story.archive, f.Name, k.line, k.path, misspelt, text(all))
					}
					tried++
				}
			}
			put(t, dir, f.Name, string(f.Data))
		}
		if tried < 100 {
			t.Errorf("%s: tried %d misspellings, want at least 100", story.archive, tried)
		}
	}
}

// chosenByUser are keys that the writer of the file makes up.
var chosenByUser = regexp.MustCompile(`^scopes\.[^.]+$|\.labels\.[^.]+$|\.attributes\.[^.]+$|\.required\.[^.]+$`)

// keyPlace is one key in a file.
type keyPlace struct {
	path, key    string
	line, column int
}

// replaced returns the file with the key written differently.
func (k keyPlace) replaced(data []byte, with string) []byte {
	lines := strings.Split(string(data), "\n")
	l := lines[k.line-1]
	lines[k.line-1] = l[:k.column-1] + with + l[k.column-1+len(k.key):]
	return []byte(strings.Join(lines, "\n"))
}

func keysOf(t testing.TB, data []byte) []keyPlace {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		t.Fatal(err)
	}
	var out []keyPlace
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.SequenceNode:
			for i, c := range n.Content {
				walk(c, fmt.Sprintf("%s[%d]", path, i))
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := n.Content[i]
				below := strings.TrimPrefix(path+"."+key.Value, ".")
				out = append(out, keyPlace{below, key.Value, key.Line, key.Column})
				walk(n.Content[i+1], below)
			}
		}
	}
	walk(doc.Content[0], "")
	return out
}

func names(all config.Problems, file string, line int) bool {
	for _, p := range all {
		if p.File == file && p.Line == line {
			return true
		}
	}
	return false
}
