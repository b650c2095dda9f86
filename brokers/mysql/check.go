package mysql

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Values of Settings.TLS.
const (
	tlsRequired = "required"
	tlsOptional = "optional"
)

var (
	hosts     = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,253}$`)
	databases = regexp.MustCompile(`^[A-Za-z0-9_$.-]{1,64}$`)
	paths     = regexp.MustCompile(`^[A-Za-z0-9._/:\\ -]{1,255}$`)
	patterns  = regexp.MustCompile(`^[A-Za-z0-9._:%/-]{1,60}$`) // no quote and no backslash: it stands in statements
	roleNames = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,31}$`)
)

// reserved are no roles, whatever quotes stand around them.
var reserved = []string{"none", "all", "default", "public", "current_user", "current_role"}

// role is a name that passed [newRole]: nothing in it needs quoting.
type role string

func newRole(s string) (role, error) {
	switch _, ours := brokers.ParseName(s); {
	case !roleNames.MatchString(s):
		return "", fmt.Errorf("role %q is not 1 to 32 letters, digits and _, a letter first; name a role of the server", s)
	case slices.Contains(reserved, strings.ToLower(s)):
		return "", fmt.Errorf("role %q means something else to the server; name a role", s)
	case ours:
		return "", fmt.Errorf("role %q is named as a lease is, and would be dropped as one; rename it", s)
	}
	return role(s), nil
}

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	add := func(path, message string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(message, args...)})
	}
	if _, err := open(t, s); err != nil {
		path := "dsn"
		if isCA(err) {
			path = "ca_file"
		}
		add(path, "%s", err)
	}
	if !hosts.MatchString(s.Host) {
		add("host", "host %q is no host name or address without port; the port has a key of its own", s.Host)
	}
	if s.Port < 0 || s.Port > 65535 {
		add("port", "port %d is outside 1 to 65535", s.Port)
	}
	if s.Database != "" && !databases.MatchString(s.Database) {
		add("database", "database %q is not 1 to 64 letters, digits, '_', '$', '.' and '-'", s.Database)
	}
	if s.SSLCA != "" && !paths.MatchString(s.SSLCA) {
		add("ssl_ca", "ssl_ca %q is no path of letters, digits and ._/:\\ -, at most 255", s.SSLCA)
	}
	if s.From != "" && !patterns.MatchString(s.From) {
		add("from", "from %q is no host pattern; write letters, digits, '.', ':', '_', '-', '/' and %%, at most 60", s.From)
	}
	if s.MaxConnections < 0 || s.MaxConnections > 1000 {
		add("max_connections", "max_connections %d is outside 1 to 1000", s.MaxConnections)
	}
	switch s.TLS {
	case "", tlsRequired:
	case tlsOptional:
		if !s.AllowPlaintext && !local(s.Host) {
			add("tls", "tls: optional lets workloads send what they read over the network to %s in the clear; leave it out, or say allow_plaintext: true for a network that encrypts", s.Host)
		}
	default:
		add("tls", "tls %q is neither required nor optional", s.TLS)
	}
	return append(out, checkScopes(scopes)...)
}

func checkScopes(scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	if len(scopes) == 0 {
		out = append(out, brokers.Problem{Path: "scopes.", Message: "the target has no scopes, and a login without roles can do nothing; write scopes: {read: {roles: [...]}}"})
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		path := "scopes." + name + ".roles"
		if len(scopes[name].Roles) == 0 {
			out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf("scope %s names no role, and would grant nothing", name)})
		}
		for _, r := range scopes[name].Roles {
			if _, err := newRole(r); err != nil {
				out = append(out, brokers.Problem{Path: path, Message: err.Error()})
			}
		}
	}
	return out
}

// local reports whether a host is this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sslMode is what a client should be told to do.
func sslMode(s Settings) string {
	if s.TLS == tlsOptional {
		return "PREFERRED"
	}
	return "VERIFY_IDENTITY"
}
