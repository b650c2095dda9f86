package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport-sts/sallyport/brokers"
)

// SQLSTATEs that are acted on.
const (
	codeDuplicate    = "42710"
	codeUnique       = "23505"
	codeUndefined    = "42704"
	codeForbidden    = "42501"
	codeDependent    = "2BP01"
	codeLocked       = "55P03" // lock_timeout
	codeInternal     = "XX000" // tuple concurrently updated, or deleted
	codeSerializable = "40001"
	codeDeadlock     = "40P01"
)

// refusals are the SQLSTATEs that a person has to do something about, and what it may be. All others pass.
var refusals = map[string]string{
	"28P01":       "the server does not take the password of the dsn",
	"28000":       "the server does not let the user of the dsn in; see its pg_hba.conf",
	"3D000":       "there is no such database",
	"08P01":       "the server refuses how the session begins; a pooler must not stand between",
	"0LP01":       "a role of the scopes cannot be granted",
	codeUndefined: "a role of the scopes does not exist",
	codeForbidden: "the user of the dsn lacks a right; docs/brokers/postgres.md lists them",
	codeDependent: "something depends on the role that the user of the dsn cannot change",
}

// fault says what an error of the server or the network means. Nothing but the SQLSTATE of what the server said is
// repeated: messages hold names and statements.
func fault(doing string, err error) error {
	if wrapped(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	kind, why := brokers.ErrUnavailable, "the connection broke"
	var server *pgconn.PgError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &server):
		why = "SQLSTATE " + server.Code
		if hint, ok := refusals[server.Code]; ok {
			kind, why = brokers.ErrMisconfigured, why+": "+hint
		}
	case errors.Is(err, pgconn.ErrStandbyConnection):
		why = "it is a standby; the dsn must reach the primary"
	case errors.As(err, &certificate):
		why = certificate.Error()
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		why = noAnswer
	case errors.As(err, &op):
		why = op.Err.Error()
	case strings.Contains(err.Error(), "require_auth"):
		kind, why = brokers.ErrMisconfigured, "the server asks for the password itself, and the connection is not encrypted"
	}
	return fmt.Errorf("%s: %w: %s", doing, kind, why)
}

// wrapped reports whether an error has been through [fault], or is as good.
func wrapped(err error) bool {
	for _, e := range []error{brokers.ErrUnavailable, brokers.ErrUncertain, brokers.ErrMisconfigured} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lost reports whether nobody knows what came of a statement that failed.
func lost(err error) bool { return err != nil && code(err) == "" && !wrapped(err) }

// code returns the SQLSTATE with which the server refused a statement, "" when it did not.
func code(err error) string {
	var server *pgconn.PgError
	// A FATAL can come after the commit, when somebody ends our session.
	if errors.As(err, &server) && server.SeverityUnlocalized == "ERROR" {
		return server.Code
	}
	return ""
}

// duplicate reports whether there is a role of that name, or has come to be while we waited.
func duplicate(err error) bool { return code(err) == codeDuplicate || code(err) == codeUnique }

// passing reports whether another try may succeed at once.
func passing(err error) bool {
	switch code(err) {
	case codeInternal, codeSerializable, codeDeadlock:
		return true
	}
	return false
}
