package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// login is the credential as the workload gets it.
type login struct {
	Type       string `json:"type"`
	Version    int    `json:"version" jsonschema_description:"Version of this form; what a later one adds can be ignored."`
	Host       string `json:"host" jsonschema_description:"Host to connect to."`
	Port       int    `json:"port" jsonschema_description:"TCP port to connect to."`
	Database   string `json:"database,omitempty" jsonschema_description:"Database to connect to."`
	User       string `json:"user" jsonschema_description:"User to log in as; it is for this credential alone."`
	Password   string `json:"password" jsonschema_description:"Its password: 32 letters and digits."`
	SSLMode    string `json:"ssl_mode" jsonschema_description:"What ssl-mode of MySQL should be."`
	SSLCA      string `json:"ssl_ca,omitempty" jsonschema_description:"Path of the PEM certificates that sign the server's. Absent: the target names none."`
	Expiration string `json:"expiration" jsonschema:"format=date-time" jsonschema_description:"When it ends (RFC 3339)."`
}

// Mint implements [brokers.Broker]. Each statement commits by itself: when one fails, what the earlier ones made is dropped.
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	ctx, cancel := within(ctx)
	defer cancel()
	roles := b.granted(o.Grant().Scopes())
	if len(roles) == 0 {
		return brokers.Credential{}, fmt.Errorf("%w: the grant names no scope of target %s, and a login without roles can do nothing; name scopes in the rule", brokers.ErrMisconfigured, b.target)
	}
	a, err := newAccount(o.Name(), b.limits.from)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrMisconfigured, err)
	}
	password := brokers.NewPassword()
	if err := b.make(ctx, a, password, roles); err != nil {
		return brokers.Credential{}, err
	}
	return b.credential(o, password)
}

// make creates the account with its roles.
func (b *Broker) make(ctx context.Context, a account, password secret.Value, roles []role) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	for i, statement := range s.mint(a, password, b.limits, roles) {
		err := s.run(ctx, statement)
		switch {
		case err == nil:
			continue
		case i == 0 && numbered(err, erCannotUser):
			return fmt.Errorf("%w: an account of this name is there already", brokers.ErrUncertain)
		case i == 0:
			return b.failed("creating an account", err, true)
		}
		// An answer that was lost may be to a statement that still runs: then dropping what is there proves nothing.
		err = b.failed("giving an account its roles", err, true)
		if _, undo := b.kill(ctx, []string{a.name}); undo != nil && !errors.Is(err, brokers.ErrUncertain) {
			return fmt.Errorf("%w: it could not be dropped again (%w) after: %w", brokers.ErrUncertain, undo, err)
		}
		return err
	}
	return nil
}

// granted lists the roles of scopes, each once, in a fixed order.
func (b *Broker) granted(scopes []string) []role {
	var out []role
	for _, s := range scopes {
		out = append(out, b.roles[s]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (b *Broker) credential(o brokers.Order, password secret.Value) (brokers.Credential, error) {
	expires := o.Grant().Expires().Truncate(time.Second)
	l := b.login
	l.User, l.Password, l.Expiration = o.Name(), password.Reveal(), expires.UTC().Format(time.RFC3339)
	value, err := brokers.Object(l)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	}
	return brokers.Credential{
		Type:      Type,
		TokenType: brokers.NotApplicable,
		Value:     value,
		Audience:  b.target,
		Scopes:    o.Grant().Scopes(),
		Expires:   expires,
	}, nil
}

// Error numbers of the two servers. Their texts repeat statements, and are not.
const (
	erDBAccessDenied    = 1044
	erAccessDenied      = 1045
	erHandshake         = 1043
	erTableAccessDenied = 1142
	erColumnDenied      = 1143
	erKillDenied        = 1095
	erNoSuchThread      = 1094
	erSpecificDenied    = 1227
	erNoPasswordDenied  = 1698 // MariaDB says it of a role that we may not hand out, too
	erHostNotPrivileged = 1130
	erNoSuchUser        = 1133
	erCannotUser        = 1396
	erTooManyConns      = 1040
	erUserTooManyConns  = 1203
	erUserLimit         = 1226
	erServerShutdown    = 1053
	erLockWaitTimeout   = 1205
	erQueryInterrupted  = 1317
	erReadOnly          = 1290
	erPluginNotLoaded   = 1524
	erKilled            = 1927
	erInvalidRole       = 1959 // MariaDB
	erStatementTimeout  = 1969 // MariaDB
	erUnknownAuthID     = 3523 // MySQL
	erRoleNotGranted    = 3530 // MySQL
	erDefiner           = 4006 // MySQL: an account is the definer of views, routines or events
)

func numbered(err error, numbers ...uint16) bool {
	var m *mysql.MySQLError
	return errors.As(err, &m) && slices.Contains(numbers, m.Number)
}

// failed maps an error. sent says that the statement may have reached the server.
func (b *Broker) failed(doing string, err error, sent bool) error {
	class, why := classify(err, sent)
	return fmt.Errorf("%s at target %s: %w: %w", doing, b.target, class, why)
}

func classify(err error, sent bool) (class, why error) {
	var m *mysql.MySQLError
	if !errors.As(err, &m) {
		switch {
		case errors.As(err, new(configError)), errors.Is(err, errForeign):
			return brokers.ErrMisconfigured, err
		case sent && !neverSent(err):
			return brokers.ErrUncertain, err
		}
		return brokers.ErrUnavailable, err
	}
	why = fmt.Errorf("the server answers with error %d%s", m.Number, meaning(m.Number))
	switch m.Number {
	case erQueryInterrupted, erStatementTimeout, erKilled, erServerShutdown:
		if sent {
			return brokers.ErrUncertain, why
		}
		return brokers.ErrUnavailable, why
	case erTooManyConns, erUserTooManyConns, erUserLimit, erLockWaitTimeout, erNoSuchUser:
		return brokers.ErrUnavailable, why
	}
	return brokers.ErrMisconfigured, why
}

func meaning(number uint16) string {
	switch number {
	case erAccessDenied, erHandshake, erHostNotPrivileged:
		return ": it refuses the account of the DSN"
	case erDBAccessDenied, erTableAccessDenied, erColumnDenied, erSpecificDenied, erKillDenied:
		return ": the account of the DSN lacks a right; docs/brokers/mysql.md lists them"
	case erInvalidRole, erUnknownAuthID, erRoleNotGranted, erNoPasswordDenied:
		return ": a role of the scopes is not there, or the account of the DSN is refused, or does not have the role WITH ADMIN OPTION"
	case erTooManyConns, erUserTooManyConns, erUserLimit:
		return ": it has too many connections"
	case erNoSuchUser:
		return ": the account was dropped meanwhile"
	case erReadOnly:
		return ": it is read-only; the DSN must name the primary"
	case erPluginNotLoaded:
		return ": it lacks the authentication plugin"
	case erDefiner:
		return ": the account is the definer of views, routines or events; grant SET_ANY_DEFINER and ALLOW_NONEXISTENT_DEFINER (before 8.2: SET_USER_ID), or drop them"
	default:
		return ""
	}
}
