package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
)

// What stands in a path, a header or a policy. Neither can leave the place where it is put: there is no escape, no query, no
// glob, no empty segment and no dot segment in them.
var (
	pathShape = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
	nameShape = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
	cnShape   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$`)
)

const maxPath = 256 // characters

// system are the places of Vault itself, which no secret is read from.
var system = []string{"sys", "auth", "identity", "cubbyhole"}

type checking struct{ problems []brokers.Problem }

func (c *checking) refuse(path, format string, args ...any) {
	c.problems = append(c.problems, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	c := new(checking)
	c.connection(t, s)
	c.trust(t, s, scopes)
	if len(scopes) == 0 {
		c.refuse("scopes.", "the target defines no scope; each says what to make in Vault: add scopes: {read: {role: ...}}")
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		c.scope("scopes."+name, s, scopes[name])
	}
	if len(c.problems) == 0 {
		c.together(scopes)
	}
	return c.problems
}

// connection checks how Vault is reached.
func (c *checking) connection(t brokers.Target, s Settings) {
	c.server(s.Address, s.Namespace)
	if s.CAFile != "" {
		if _, err := roots(t.Path(s.CAFile)); err != nil {
			c.refuse("ca_file", "ca_file: %v", err)
		}
	}
	if s.Timeout != 0 && s.Timeout > maxTimeout {
		c.refuse("timeout", "timeout %s is longer than %s; a caller waits for it", s.Timeout, maxTimeout)
	}
	if s.WrapTTL > maxWrapTTL {
		c.refuse("wrap_ttl", "wrap_ttl %s is longer than %s; whoever finds the wrapping token first has what is in it", s.WrapTTL, maxWrapTTL)
	}
}

// server checks which Vault is meant.
func (c *checking) server(address, namespace string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		c.refuse("address", "address is no URL; write https://HOST:PORT")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" || strings.TrimSuffix(u.Path, "/") != "":
		c.refuse("address", "address has more than a host and a port; write https://HOST:PORT")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		c.refuse("address", "address %s is http beyond this machine, and tokens travel over it; use https", address)
	case u.Scheme != "http" && u.Scheme != "https":
		c.refuse("address", "address has the scheme %q; use https", u.Scheme)
	}
	if namespace != "" && !path(namespace) {
		c.refuse("namespace", "namespace %q is no path of letters, digits, '.', '_' and '-'; write it without a slash at either end", namespace)
	}
}

// mount checks the path of a mount.
func (c *checking) mount(at, mount, auth string) {
	if !path(mount) || strings.HasPrefix(mount, "auth/") {
		c.refuse(at, "%s %q is no path of a mount; write it as vault %s list shows it, without auth/ and the last slash", at, mount, auth)
	}
}

// trust checks who we are to Vault.
func (c *checking) trust(t brokers.Target, s Settings, scopes map[string]Scope) {
	c.mount("mount", s.mount(), "auth")
	if s.Audience == "" || len(s.Audience) > 255 || strings.ContainsFunc(s.Audience, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' || r == '"' || r == '\'' || r == '\\' }) {
		c.refuse("audience", "audience must be 1 to 255 printable ASCII characters without spaces, commas, quotes and backslashes")
	}
	needed := s.revocable() && slices.ContainsFunc(slices.Collect(maps.Values(scopes)), func(s Scope) bool { return !s.Batch })
	switch {
	case s.RevokeRole != "" && !nameShape.MatchString(s.RevokeRole):
		c.refuse("revoke_role", "revoke_role %q is no name of a role", s.RevokeRole)
	case s.RevokeRole == "" && needed:
		c.refuse("revoke_role", "revoke_role is missing, and nothing could be revoked; name the role that sallyport trust vault %s prints, or say revocable: false", t.Name)
	case s.RevokeRole != "" && !s.revocable():
		c.refuse("revoke_role", "revoke_role is set, and revocable: false says that it is never used; remove one of them")
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		if s.RevokeRole != "" && scopes[name].Role == s.RevokeRole {
			c.refuse("scopes."+name+".role", "role %s is revoke_role: whoever has this scope could revoke what others have; use a role of its own", s.RevokeRole)
		}
	}
}

func (c *checking) scope(at string, settings Settings, s Scope) {
	if !nameShape.MatchString(s.Role) {
		c.refuse(at+".role", "role %q is no name of a role: letters, digits, '.', '_' and '-'", s.Role)
	}
	for i, p := range s.Policies {
		switch {
		case p == "root" || p == "default":
			c.refuse(fmt.Sprintf("%s.policies[%d]", at, i), "policy %s is not handed out: root may do everything, and default lets a holder ask for more of its own; write a policy with what the scope allows", p)
		case !nameShape.MatchString(p) || p != strings.ToLower(p):
			c.refuse(fmt.Sprintf("%s.policies[%d]", at, i), "policy %q is no name of a policy: lower-case letters, digits, '.', '_' and '-'", p)
		}
	}
	c.read(at, settings, s)
	c.pki(at, settings, s)
	switch {
	case s.Batch && s.form() == TokenType && settings.WrapTTL > 0:
		c.refuse(at+".batch", "wrap_ttl wraps a child, and a batch token makes none; remove batch or wrap_ttl")
	case s.Batch && s.child():
		c.refuse(at+".policies", "a batch token makes no child; remove policies, and give the role token_policies")
	case !s.Batch && !s.child() && (s.form() == TokenType || s.TakesBack):
		c.refuse(at+".policies", "policies is missing: the role's own token can outlive the grant, so a child that ends with it is made, with these policies")
	case s.child() && s.form() != TokenType && !s.TakesBack:
		c.refuse(at+".policies", "policies means nothing here: no token is handed out, and the secret does not end with one; remove it, or say takes_back: true if the engine revokes leases")
	}
}

func (c *checking) read(at string, settings Settings, s Scope) {
	if s.Read == "" {
		if s.TakesBack || s.Static || s.TTLParameter != "" {
			c.refuse(at+".read", "takes_back, static and ttl_parameter are about what is read; name the path in read, or remove them")
		}
		return
	}
	first, _, _ := strings.Cut(s.Read, "/")
	switch {
	case !path(s.Read):
		c.refuse(at+".read", "read %q is no path of letters, digits, '.', '_' and '-' between slashes; write it without v1/ and without a slash at either end", s.Read)
	case slices.Contains(system, first) || first == "v1":
		c.refuse(at+".read", "read %s is no secret but a part of Vault itself; name a path of a secrets engine", s.Read)
	}
	if s.TTLParameter != "" && !nameShape.MatchString(s.TTLParameter) {
		c.refuse(at+".ttl_parameter", "ttl_parameter %q is no name of a parameter", s.TTLParameter)
	}
	if s.Static && (s.TakesBack || s.TTLParameter != "") {
		c.refuse(at+".static", "a static secret has no lease: remove takes_back and ttl_parameter, or static")
	}
	if s.Batch && s.TakesBack {
		c.refuse(at+".takes_back", "what a batch token owns cannot be revoked before the token ends; remove takes_back, or batch")
	}
	if settings.WrapTTL > 0 && !s.Static && !s.TakesBack {
		c.refuse(at+".read", "wrap_ttl hides from us how long the secret lives, and nothing says that it ends with the grant; say takes_back: true if the engine revokes leases, or remove wrap_ttl")
	}
}

func (c *checking) pki(at string, settings Settings, s Scope) {
	if s.PKI == nil {
		return
	}
	parts := strings.Split(s.PKI.Path, "/")
	switch {
	case !path(s.PKI.Path) || len(parts) < 3:
		c.refuse(at+".pki.path", "path %q does not sign; write MOUNT/sign/ROLE", s.PKI.Path)
	case parts[len(parts)-2] != "sign" || slices.Contains(system, parts[0]):
		c.refuse(at+".pki.path", "path %s is not MOUNT/sign/ROLE: issue makes the key where others can keep it, and sign-verbatim obeys the request", s.PKI.Path)
	}
	if s.PKI.CommonName != "" && !cnShape.MatchString(s.PKI.CommonName) {
		c.refuse(at+".pki.common_name", "common_name %q is none: 1 to 64 letters, digits, '.', '_', '@' and '-'", s.PKI.CommonName)
	}
	if s.Read != "" {
		c.refuse(at+".pki", "a scope reads or signs, not both; remove read or pki")
	}
	if settings.WrapTTL > 0 {
		c.refuse(at+".pki", "a certificate is no secret, and wrapped it cannot be checked; remove wrap_ttl")
	}
}

// together checks that every set of scopes that can be granted at once means one thing.
func (c *checking) together(scopes map[string]Scope) {
	names := slices.Sorted(maps.Keys(scopes))
	for _, name := range names {
		for i, other := range scopes[name].Covers {
			at := fmt.Sprintf("scopes.%s.covers[%d]", name, i)
			switch o, ok := scopes[other]; {
			case !ok:
				c.refuse(at, "covers names %s, which is no scope of this target", other)
			case other == name || slices.Contains(o.Covers, name):
				c.refuse(at, "scopes %s and %s cover each other; say which contains the other", name, other)
			}
		}
	}
	for i, name := range names {
		for _, other := range names[:i] {
			a, b := scopes[name], scopes[other]
			switch {
			case a.Role == b.Role && a.Batch != b.Batch:
				c.refuse("scopes."+name+".batch", "scopes %s and %s log in with the role %s, which makes tokens of one type; use two roles", other, name, a.Role)
			case a.form() != b.form():
				c.refuse("scopes."+name, "scopes %s and %s make different things (%s, %s); give each a target of its own", other, name, word(b), word(a))
			case !addable(a, b) && !slices.Contains(a.Covers, other) && !slices.Contains(b.Covers, name):
				c.refuse("scopes."+name, "a grant of both %s and %s would mean two things, and one credential is made; let one cover the other (covers: [%s]), or make two targets", other, name, other)
			}
		}
	}
	if len(c.problems) > 0 {
		return
	}
	// Pairs are settled; a circle of three would still have no first.
	for _, name := range names {
		for _, other := range scopes[name].Covers {
			for _, third := range scopes[other].Covers {
				if !slices.Contains(scopes[name].Covers, third) && !addable(scopes[name], scopes[third]) {
					c.refuse("scopes."+name+".covers", "scope %s covers %s, which covers %s; list %s too", name, other, third, third)
				}
			}
		}
	}
}

func word(s Scope) string { return strings.TrimPrefix(s.form(), brokers.TypePrefix) }

func path(s string) bool { return len(s) <= maxPath && pathShape.MatchString(s) }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// roots reads the certificates in a file.
func roots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the file: %w", bare(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the file holds no PEM certificate")
	}
	return pool, nil
}
