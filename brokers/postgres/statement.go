package postgres

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Statements are text: what makes and drops roles takes no parameters. Names are quoted by ident and literal, whatever
// they are, and are those of [brokers.Order], of the configuration, or of the server's own catalogs.

// ident quotes an identifier. NUL bytes and length were checked.
func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a string; standard_conforming_strings is on, so that a backslash means itself.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// create makes a role whole or not at all: several statements in one message are one transaction. The last one
// returns the role's oid.
func create(name, verifier string, expires time.Time, limit int, roles []string, owner string) string {
	quoted := make([]string, len(roles))
	for i, r := range roles {
		quoted[i] = ident(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE ROLE %s LOGIN PASSWORD %s VALID UNTIL %s CONNECTION LIMIT %d IN ROLE %s;",
		ident(name), literal(verifier), literal(expires.UTC().Format("2006-01-02 15:04:05+00")), limit, strings.Join(quoted, ", "))
	if owner != "" { // sessions begin as it, so that what they create belongs to it and does not hold up the drop
		fmt.Fprintf(&b, "ALTER ROLE %s SET role = %s;", ident(name), literal(owner))
	}
	fmt.Fprintf(&b, "SELECT %s::regrole::oid", literal(ident(name)))
	return b.String()
}

// find returns which of the roles there are, as oid and name.
func find(ds []*doomed) string {
	return "SELECT oid, rolname FROM pg_roles WHERE rolname IN (" + list(ds, func(d *doomed) string { return literal(d.name) }) + ")"
}

func list(ds []*doomed, item func(*doomed) string) string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = item(d)
	}
	return strings.Join(out, ", ")
}

// Each of these is given the quoted name of one role, and is one of many in a message.
func noLogin(role string) string { return "ALTER ROLE " + role + " NOLOGIN;" }
func drop(role string) string    { return "DROP ROLE IF EXISTS " + role + ";" }
func join(role string) string    { return "GRANT " + role + " TO CURRENT_USER;" }

// absent fails when there is a role, and waits for whoever is making it now: the maker may be gone, and the role, which
// nobody sees yet, be there a moment later. No lock that a workload could hold is in it.
func absent(role string) string { return "CREATE ROLE " + role + ";" + drop(role) }

// handOver makes what a role owns in this database an heir's, and removes what else names it there. Without an heir it
// owns nothing.
func handOver(role, heir string) string {
	s := join(role)
	if heir != "" {
		s += "REASSIGN OWNED BY " + role + " TO " + ident(heir) + ";"
	}
	return s + "DROP OWNED BY " + role + ";"
}

// look tells the sessions of roles, by oid, to end, and returns in its last answer whose are not gone yet. Where a role is
// gone its sessions have no name any more; where its oid is another role's now, they are that one's.
//
// A login that was let in and is not yet among the sessions holds or awaits the lock of its database. The answer before
// the last says which processes do; it is taken first, so that none can pass from the one to the other unseen. Those of
// them that have long been sessions, at work on their database itself, are in the last answer too.
func look(ds []*doomed) string {
	const entering = "SELECT pid FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND pid IS NOT NULL" // no process: a prepared transaction
	return entering + "; " + hangUp(ds) + " UNION ALL SELECT pid, 0, false FROM pg_stat_activity WHERE pid IN (" + entering + ")"
}

func hangUp(ds []*doomed) string {
	oids := list(ds, func(d *doomed) string { return strconv.FormatUint(uint64(d.oid), 10) })
	names := list(ds, func(d *doomed) string { return literal(d.name) })
	return "SELECT pid, usesysid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid IN (" + oids + ") AND (usename IS NULL OR usename IN (" + names + "))"
}

const (
	// unfit are those of the roles $1 that could undo a revocation, or are members of one that could.
	unfit = `SELECT DISTINCT a.rolname::text FROM pg_roles a, pg_roles p
WHERE a.rolname = ANY($1::text[]) AND (p.rolsuper OR p.rolcreaterole OR p.rolname = ANY($2::text[])) AND pg_has_role(a.oid, p.oid, 'MEMBER')`

	// ties are what holds up the drop of the roles $1: in which database ('' for this one, and for what is in none),
	// whether they own something there, and what they have prepared to commit there.
	ties = `SELECT s.refobjid, coalesce(nullif(d.datname::text, current_database()::text), ''), bool_or(s.deptype = 'o'), ''
FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY($1::oid[]) GROUP BY 1, 2
UNION ALL SELECT r.oid, coalesce(nullif(p.database::text, current_database()::text), ''), false, p.gid FROM pg_prepared_xacts p JOIN pg_roles r ON r.rolname = p.owner WHERE r.oid = ANY($1::oid[])`

	// heirs are the roles that $1 is a member of, $2 first: it could have created everything as one of them, so that
	// what it owns can be theirs without becoming more powerful.
	heirs = `SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = $1 ORDER BY r.rolname <> $2, r.rolname`

	// ours are the names that may be ours.
	ours = `SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'sts\_%' ORDER BY 1`
)
