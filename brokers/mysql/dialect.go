package mysql

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// dialect is how one of the two servers is spoken to.
type dialect int

const (
	mariaDB dialect = iota + 1
	mySQL           // 8.0 and later; Percona and Aurora as well
)

func dialectOf(version, comment string) dialect {
	if strings.Contains(strings.ToLower(version+" "+comment), "mariadb") {
		return mariaDB
	}
	return mySQL
}

// modes makes a session mean what we mean. Without NO_AUTO_CREATE_USER, a GRANT that arrives after its account was
// dropped makes the account anew on MariaDB, with no password at all. The limits end what nobody waits for any more,
// well before the ledger of leases believes that a mint that was given up has come to nothing.
func (d dialect) modes() string {
	if d == mariaDB {
		return "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_CREATE_USER', lock_wait_timeout = 8, max_statement_time = 10"
	}
	return "SET SESSION sql_mode = 'STRICT_ALL_TABLES', lock_wait_timeout = 8"
}

// account is a user at a host pattern; its parts passed [newAccount].
type account struct{ name, host string }

// accountHosts are those that can stand between quotes in every mode of the server.
var accountHosts = regexp.MustCompile(`^[A-Za-z0-9._:%/-]{0,255}$`)

// newAccount refuses whatever no lease is called.
func newAccount(name, host string) (account, error) {
	if _, ok := brokers.ParseName(name); !ok || !accountHosts.MatchString(host) {
		return account{}, errForeign
	}
	return account{name, host}, nil
}

// String writes the account as it stands in statements.
func (a account) String() string { return "'" + a.name + "'@'" + a.host + "'" }

// limits is what every account of a target has.
type limits struct {
	from     string // passed patterns
	tls      bool
	sessions int
}

// mint lists the statements that make an account. The first makes it; each later one only adds to it.
func (d dialect) mint(a account, password secret.Value, l limits, roles []role) []string {
	require := "NONE"
	if l.tls {
		require = "SSL"
	}
	hash := "VIA mysql_native_password USING '" + nativeHash(password) + "'"
	if d == mySQL {
		hash = "WITH caching_sha2_password AS 0x" + cachingHash(password)
	}
	create := fmt.Sprintf("CREATE USER %s IDENTIFIED %s REQUIRE %s WITH MAX_USER_CONNECTIONS %d", a, hash, require, l.sessions)
	if d == mySQL {
		list := join(roles)
		return []string{create, "GRANT " + list + " TO " + a.String(), "SET DEFAULT ROLE " + list + " TO " + a.String()}
	}
	if len(roles) == 1 {
		return []string{create, "GRANT " + quote(roles[0]) + " TO " + a.String(), "SET DEFAULT ROLE " + quote(roles[0]) + " FOR " + a.String()}
	}
	// A session of MariaDB has one role. Several become a role of the lease, named as its account is: a role's host is "".
	own := role(a.name)
	out := []string{create, "CREATE ROLE " + quote(own)}
	for _, r := range roles {
		out = append(out, "GRANT "+quote(r)+" TO "+quote(own))
	}
	return append(out, "GRANT "+quote(own)+" TO "+a.String(), "SET DEFAULT ROLE "+quote(own)+" FOR "+a.String())
}

func quote(r role) string { return "`" + string(r) + "`" }

func join(roles []role) string {
	quoted := make([]string, len(roles))
	for i, r := range roles {
		quoted[i] = quote(r)
	}
	return strings.Join(quoted, ", ")
}

// accountsOf asks for the accounts of names, and MariaDB's roles among them.
func (d dialect) accountsOf(names []string) string {
	isRole := "'N'"
	if d == mariaDB {
		isRole = "is_role"
	}
	return "SELECT User, Host, " + isRole + " FROM mysql.user WHERE User IN (" + literals(names) + ")"
}

// sessionsOf asks for the sessions of names, and for statements that still make something: after a connection was cut,
// the server goes on with what it had begun.
func (dialect) sessionsOf(names []string) string {
	return "SELECT ID, USER, COALESCE(INFO, '') FROM information_schema.processlist WHERE USER IN (" + literals(names) + ")" +
		" OR ID <> CONNECTION_ID() AND (INFO LIKE 'CREATE USER ''sts|_%' ESCAPE '|' OR INFO LIKE 'CREATE ROLE `sts|_%' ESCAPE '|' OR INFO LIKE 'GRANT %sts|_%' ESCAPE '|')"
}

// all asks for every name that may be ours, of accounts and of sessions that have none.
func (dialect) all() []string {
	return []string{
		"SELECT User FROM mysql.user WHERE User LIKE 'sts|_%' ESCAPE '|'",
		"SELECT USER FROM information_schema.processlist WHERE USER LIKE 'sts|_%' ESCAPE '|'",
	}
}

// literals quotes names that [brokers.ParseName] takes.
func literals(names []string) string { return "'" + strings.Join(names, "', '") + "'" }

// kill ends a session. MariaDB ends those of a name with one word, also one that has logged in since we looked.
func (d dialect) kill(s thread) string {
	if d == mariaDB && s.name != "" {
		return "KILL USER '" + s.name + "'"
	}
	return fmt.Sprintf("KILL %d", s.id)
}

// thread is one connection of the server.
type thread struct {
	id   uint64
	name string // of the lease whose session it is; "" for one that makes something
}
