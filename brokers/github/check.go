package github

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if s.App == "" || len(s.App) > 64 || strings.ContainsFunc(s.App, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("app", "app %q is neither a client id nor an App id; it stands in the settings of the App", s.App)
	}
	if s.Installation < 1 {
		bad("installation", "installation %d is no id; it is the number at the end of the URL of the installation's settings", s.Installation)
	}
	switch inVault := s.TransitKey != ""; {
	case inVault && !s.PrivateKey.IsZero():
		bad("transit_key", "the App's key is in Vault or here; leave private_key out, or transit_key")
	case inVault && !transitKey.MatchString(s.TransitKey):
		bad("transit_key", "transit_key %q is no name with a version; write for instance github-app:1", s.TransitKey)
	case inVault && !t.KMS:
		bad("transit_key", "transit_key names a key in Vault, and signing.vault does not say which Vault; add it to sallyport.yaml, or name a private_key")
	case inVault:
	case s.PrivateKey.IsZero():
		bad("private_key", "private_key is missing; name a file or a variable that holds the App's key: {file: PATH}, or a transit_key")
	case t.Secret != nil:
		key, err := t.Secret(s.PrivateKey)
		if err == nil {
			_, err = parseKey(key)
		}
		if err != nil {
			bad("private_key", "private_key: %s", err)
		}
	}
	if _, err := parseAPI(s.API); err != nil {
		bad("api", "api %q %s", s.API, err)
	}
	if _, err := upstream.Authorities(t, s.CAFile); err != nil {
		bad("ca_file", "%s; it takes PEM certificates", err)
	}
	if len(scopes) == 0 {
		bad("scopes.", "the target has no scopes, and it is they that say which repositories and permissions; add scopes: {NAME: {repositories: [ID], permissions: {contents: read}}}")
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		out = append(out, checkScope("scopes."+name, scopes[name])...)
	}
	return out
}

func checkScope(path string, s Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(at, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path + at, Message: fmt.Sprintf(format, args...)})
	}
	switch n := len(s.Repositories); {
	case n == 0:
		bad(".repositories", "repositories lists nothing, which GitHub takes for all; list ids: gh api repos/OWNER/NAME --jq .id")
	case n > maxRepositories:
		bad(".repositories", "%d repositories are more than %d; make targets of fewer", n, maxRepositories)
	}
	for i, id := range s.Repositories {
		if at := fmt.Sprintf(".repositories[%d]", i); id < 1 {
			bad(at, "repository %d is no id; see: gh api repos/OWNER/NAME --jq .id", id)
		} else if slices.Contains(s.Repositories[:i], id) {
			bad(at, "repository %d stands twice", id)
		}
	}
	if len(s.Permissions) == 0 {
		bad(".permissions", "permissions has nothing in it, which GitHub takes for all of the App's; name them: {contents: read}")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Permissions)) {
		level := s.Permissions[name]
		switch {
		case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }):
			bad(".permissions", "permission %q is no name of GitHub's: a to z and _", name)
		case !slices.Contains(levels, level):
			bad(".permissions", "permission %s is %q; it can be read, write or admin", name, level)
		}
	}
	return out
}

// parseAPI returns the URL without a slash at its end.
func parseAPI(s string) (string, error) {
	if s == "" {
		return defaultAPI, nil
	}
	if _, err := upstream.ParseURL(s, "https://HOST/api/v3"); err != nil {
		return "", err
	}
	return strings.TrimSuffix(s, "/"), nil
}

var transitKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}:[1-9][0-9]{0,8}$`)
