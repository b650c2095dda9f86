package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Words of libpq.
const (
	sslVerify  = "verify-full"
	sslDisable = "disable"
)

// Limits of the admin's connections.
const (
	connectTimeout = 3 * time.Second
	// A statement that nobody waits for any more must have ended before an intent is believed to have come to nothing.
	statementTimeout = "4s"
	lockTimeout      = "2s" // a revocation that cannot get a lock is tried again later, and the others go on
	lockTimeoutAlone = "250ms"
	idleTimeout      = "10s"
)

// dsnKeys are what a dsn may say. Anything else (service, options, passfile, ...) would bring in settings from where
// nobody looks.
var dsnKeys = []string{"host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"}

// parseDSN returns how to connect, or why not, without a word of the dsn.
func parseDSN(dsn string, plaintext bool) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfigWithOptions(dsn, pgx.ParseConfigOptions{ParseConfigOptions: pgconn.ParseConfigOptions{ConnStringAllowedKeys: dsnKeys}})
	if err != nil { // its text may repeat part of a password
		return nil, errors.New("is no connection string, or says something besides host, port, user, password, dbname, sslmode, sslrootcert, sslcert and sslkey, or names a file that cannot be read")
	}
	if c.Database == "" {
		return nil, errors.New("names no database (dbname); the roles are made from there")
	}
	ends := append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
	for _, e := range ends {
		// What pgx made of sslmode, wherever it came from. Only verify-full leaves the checks to crypto/tls, with the name.
		verified := e.TLSConfig != nil && !e.TLSConfig.InsecureSkipVerify && e.TLSConfig.ServerName == e.Host
		plain := e.TLSConfig == nil && (local(e.Host) || plaintext)
		if !verified && !plain {
			return nil, errors.New("sslmode must be verify-full: with any other, and when it is left out, whoever stands between can read statements and put in their own (sslmode=disable is for loopback hosts, or allow_plaintext: true)")
		}
		if plain && !local(e.Host) {
			c.RequireAuth = "!password,!md5" // at least the password itself stays here
		}
	}
	c.ConnectTimeout = connectTimeout
	c.ValidateConnect = begin
	c.RuntimeParams = map[string]string{ // what the environment says is gone
		"application_name":                    "sallyport",
		"search_path":                         "pg_catalog", // a workload may have made functions of its own
		"standard_conforming_strings":         "on",         // quoting relies on it
		"client_encoding":                     "UTF8",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"statement_timeout":                   statementTimeout,
		"lock_timeout":                        lockTimeout,
		"idle_in_transaction_session_timeout": idleTimeout,
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.StatementCacheCapacity, c.DescriptionCacheCapacity = 0, 0
	return c, nil
}

// begin refuses a standby, so that the next host is tried, and a commit that would not survive a crash: a role must not
// rise from the dead.
func begin(ctx context.Context, c *pgconn.PgConn) error {
	rs, err := c.Exec(ctx, `SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', false) END, pg_is_in_recovery()`).ReadAll()
	if err != nil {
		return err
	}
	if string(rs[0].Rows[0][1]) == "t" {
		return pgconn.ErrStandbyConnection
	}
	return nil
}
