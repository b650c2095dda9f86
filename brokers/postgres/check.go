package postgres

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
)

// maxIdentifier is how many bytes a name has at most: PostgreSQL cuts longer ones off, and two may then be one.
const maxIdentifier = 63

// beyondSQL are roles that can do more than SQL lets the server's superuser undo: run programs, or read and write files,
// as the server.
var beyondSQL = []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"}

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	return slices.Concat(checkAdmin(t, s), checkTold(s), checkBounds(s), checkScopes(s, scopes))
}

// checkAdmin checks how we connect, and what workloads are told by what the dsn says.
func checkAdmin(t brokers.Target, s Settings) []brokers.Problem {
	if s.DSN.IsZero() {
		return []brokers.Problem{{Path: "dsn", Message: "no dsn; refer to a connection string by file or env"}}
	}
	dsn, err := t.Secret(s.DSN)
	if err != nil {
		return []brokers.Problem{{Path: "dsn", Message: "cannot be read"}}
	}
	c, err := parseDSN(dsn.Reveal(), s.AllowPlaintext)
	if err != nil {
		return []brokers.Problem{{Path: "dsn", Message: err.Error()}}
	}
	var out []brokers.Problem
	if len(hosts(c)) > 1 && (s.Host == "" || s.Port == 0) {
		out = append(out, brokers.Problem{Path: "host", Message: "the dsn names several hosts, of which one at a time is the primary; say with host and port where workloads connect to"})
	}
	if host := cmp.Or(s.Host, c.Host); s.SSLMode == sslDisable && !local(host) {
		told := "the host of the dsn"
		if s.Host != "" {
			told = fmt.Sprintf("the host %q", s.Host)
		}
		out = append(out, brokers.Problem{Path: "sslmode", Message: fmt.Sprintf("sslmode is disable, and workloads are told %s: what they ask and get would cross the network in the clear; leave sslmode out, or tell them a loopback host or a Unix socket", told)})
	}
	return out
}

// checkTold checks what ends up in the hands of clients that are not ours.
func checkTold(s Settings) []brokers.Problem {
	var out []brokers.Problem
	add := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if unprintable(s.Host) || strings.ContainsAny(s.Host, ", ") {
		add("host", "host %q is no host; write one name, address or directory", s.Host)
	}
	if unprintable(s.SSLRootCert) {
		add("sslrootcert", "sslrootcert %q is no path", s.SSLRootCert)
	}
	if problem := badName(s.Database); s.Database != "" && problem != "" {
		add("database", "database %q %s", s.Database, problem)
	} else if strings.Contains(s.Database, "=") || strings.Contains(s.Database, "://") {
		add("database", "database %q would be taken for a connection string by psql; it must have neither = nor ://", s.Database)
	}
	if s.SSLMode != "" && s.SSLMode != sslDisable && s.SSLMode != sslVerify {
		add("sslmode", "sslmode %q is neither verify-full nor disable: everything between can be made plain text or another server by whoever stands between", s.SSLMode)
	}
	return out
}

func checkBounds(s Settings) []brokers.Problem {
	var out []brokers.Problem
	for _, n := range []struct {
		path  string
		value int
		most  int
	}{{"port", s.Port, 1<<16 - 1}, {"connection_limit", s.ConnectionLimit, maxConnectionLimit}, {"max_connections", s.MaxConnections, maxMaxConnections}} {
		if n.value < 0 || n.value > n.most {
			out = append(out, brokers.Problem{Path: n.path, Message: fmt.Sprintf("%s is %d; it must be 1 to %d", n.path, n.value, n.most)})
		}
	}
	return out
}

func checkScopes(s Settings, scopes map[string]Scope) []brokers.Problem {
	if len(scopes) == 0 {
		return []brokers.Problem{{Path: "scopes.", Message: "the target has no scopes; a credential has the rights of the roles that its scopes name, and without any it could do nothing: give scopes with roles"}}
	}
	var out []brokers.Problem
	owned := false
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		path, roles := "scopes."+name, scopes[name].Roles
		if len(roles) == 0 {
			out = append(out, brokers.Problem{Path: path, Message: "no roles; name at least one role of the server"})
		}
		for i, role := range roles {
			switch problem := badRole(role); {
			case problem != "":
				out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf("role %q %s", role, problem)})
			case slices.Contains(roles[:i], role):
				out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf("role %q is listed twice", role)})
			}
		}
		owned = owned || slices.Contains(roles, s.Owner)
	}
	if s.Owner != "" && !owned {
		out = append(out, brokers.Problem{Path: "owner", Message: fmt.Sprintf("owner %q is no role of any scope; nobody could ever create anything as it: name one that is", s.Owner)})
	}
	return out
}

func badRole(name string) string {
	if problem := badName(name); problem != "" {
		return problem
	}
	if _, ours := brokers.ParseName(name); ours {
		return "has the form of a role that a lease makes, and would be dropped as one; choose another name"
	}
	switch {
	case name == "public" || name == "none":
		return "is a word that PostgreSQL keeps for itself, even in quotes; name a role"
	case slices.Contains(beyondSQL, name):
		return "lets its members act as the server itself, beyond any revocation; grant what they need by a role of your own"
	}
	return ""
}

// badName says what is wrong with an identifier.
func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxIdentifier:
		return fmt.Sprintf("has %d bytes; PostgreSQL cuts names off after %d, and it would be another", len(name), maxIdentifier)
	case strings.ContainsRune(name, 0):
		return "has a NUL byte"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	}
	return ""
}

func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
}

// local reports whether a host is this machine, by what it says and not by asking a resolver.
func local(host string) bool {
	if socket(host) || host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// socket reports whether a host is the directory of a Unix socket.
func socket(host string) bool { return strings.HasPrefix(host, "/") }

// hosts lists where a configuration connects to.
func hosts(c *pgx.ConnConfig) []string {
	out := []string{c.Host}
	for _, f := range c.Fallbacks {
		out = append(out, f.Host)
	}
	return out
}
