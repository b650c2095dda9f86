package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// maxSecretSize is the largest secret file in bytes: a key with its certificate chain fits many times.
const maxSecretSize = 64 << 10

// Secret says where a secret is: in a file or in an environment variable, never the secret itself. Exactly
// one field is set.
type Secret secret.Ref

// environmentName is what a shell takes as a variable's name.
var environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

var _ checker = (*Secret)(nil)

// check never repeats a value: what stands here wrongly is often the secret.
func (*Secret) check(d *document, n *yaml.Node, path string) bool {
	const fix = "write {file: PATH} or {env: NAME}"
	if n.Kind != yaml.MappingNode {
		d.place(n, path, "%s takes a reference to a secret, never the secret (not repeated here); %s", last(path), fix)
		return true
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		below := join(path, key.Value)
		switch {
		case key.Value != "file" && key.Value != "env":
			d.place(key, below, "unknown key %s; %s", show(key.Value), fix)
		case value.Kind != yaml.ScalarNode || value.Tag != "!!str" || value.Value == "":
			d.place(value, below, "%s must be a string, not %s", key.Value, kindOf(value))
		case key.Value == "env" && !environmentName.MatchString(value.Value):
			d.place(value, below, "env takes the name of a variable (letters, digits and _), never the secret (not repeated here)")
		}
	}
	if d.ok(path) && (child(n, "file") == nil) == (child(n, "env") == nil) {
		d.problem(path, "%s needs exactly one of file and env; %s", last(path), fix)
	}
	return true
}

// IsZero reports whether s refers to nothing.
func (s Secret) IsZero() bool { return s == Secret{} }

// Errors of secrets. None of them names a path or a value.
var (
	errNoSecret    = errors.New("no secret is referred to")
	errEmptySecret = errors.New("the secret is empty")
)

// Resolve reads the secret; relative paths start at dir. One trailing line break is removed, as editors
// and `echo` add one. A file that others can read or write is refused, and so is an empty secret. Errors
// hold neither value nor path: what stands there wrongly is often the secret.
func (s Secret) Resolve(dir string) (secret.Value, error) {
	var text string
	switch {
	case s.File != "":
		path := under(dir, s.File)
		if err := checkMode(path); err != nil {
			return secret.Value{}, err
		}
		data, err := readFile(path, maxSecretSize)
		if err != nil {
			return secret.Value{}, fmt.Errorf("reading the file of a secret: %w", err)
		}
		text = string(data)
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return secret.Value{}, fmt.Errorf("the environment variable %s is not set", s.Env)
		}
		text = v
	default:
		return secret.Value{}, errNoSecret
	}
	if t, ok := strings.CutSuffix(text, "\n"); ok {
		text = strings.TrimSuffix(t, "\r")
	}
	if text == "" {
		return secret.Value{}, errEmptySecret
	}
	return secret.New(text), nil
}

// checkMode refuses a secret file that somebody else can read or write: any right for others, or write for
// the group. Read for the group is accepted when this process belongs to it, which is how Kubernetes mounts
// secrets (root:fsGroup, mode 0440). Symbolic links are followed; the file they end at counts.
func checkMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return bare(err)
	}
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return errNotRegular
	case mode&0o007 != 0:
		return fmt.Errorf("everybody on this machine has rights to it (mode %04o); chmod 0600, or defaultMode: 0400 in a Kubernetes volume", mode.Perm())
	case mode&0o020 != 0:
		return fmt.Errorf("its group can write it (mode %04o); chmod 0600, or defaultMode: 0400 in a Kubernetes volume", mode.Perm())
	case mode&0o040 != 0 && !inGroup(info):
		return fmt.Errorf("a group that this process is not in can read it (mode %04o); chmod 0600, or set fsGroup for a Kubernetes volume", mode.Perm())
	}
	return nil
}

// under resolves a path of a configuration.
func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, filepath.FromSlash(path))
}
