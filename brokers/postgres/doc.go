// Package postgres is the broker of logins to a PostgreSQL database: for each lease a role of its own, which ends with
// the lease. It is a member of the roles that the target's scopes name and has no other right, so that what it may do is
// decided in one place and two leases never write the same catalog row.
//
// A mint is one round trip and one commit. The server is sent a SCRAM verifier (RFC 5802, RFC 7677) in place of the
// password, so that neither it nor its log ever sees one. A revocation closes the door first (NOLOGIN, committed), then
// ends the sessions and sees them gone, hands over or removes what the role owns in every database, drops it, and looks
// for sessions once more: DROP ROLE succeeds while sessions are open, and one that had SET ROLE goes on with its rights.
//
// Names in statements are those that [brokers.Order] makes, and roles of the configuration, quoted. Nothing of a caller
// reaches a statement. docs/brokers/postgres.md says what the admin must be granted.
package postgres
