package postgres

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Type is the issued_token_type of what this broker makes.
const Type = brokers.TypePrefix + "postgresql"

// tries is how often a role is made, or dropped, when what stands in the way passes.
const tries = 4

// Broker makes logins for one target. It is safe for concurrent use.
type Broker struct {
	target   string
	settings Settings
	scopes   map[string]Scope
	roles    []string // of all scopes
	conns    *conns
	proofs   proofs
	now      func() time.Time
}

var (
	_ brokers.BulkRevoker = (*Broker)(nil)
	_ brokers.Lister      = (*Broker)(nil)
	_ brokers.Former      = (*Broker)(nil)
	_ io.Closer           = (*Broker)(nil)
)

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Now == nil {
		return nil, fmt.Errorf("postgres broker of target %s needs a clock", t.Name)
	}
	s.ConnectionLimit = cmp.Or(s.ConnectionLimit, defaultConnectionLimit)
	s.MaxConnections = cmp.Or(s.MaxConnections, defaultMaxConnections)
	b := &Broker{target: t.Name, settings: s, scopes: maps.Clone(scopes), proofs: make(proofs, 1), now: d.Now}
	b.roles = union(slices.Collect(maps.Values(scopes)))
	b.conns = newConns(s.MaxConnections, d.Now, func() (*pgx.ConnConfig, error) {
		dsn, err := t.Secret(s.DSN)
		if err != nil {
			return nil, err
		}
		return parseDSN(dsn.Reveal(), s.AllowPlaintext)
	})
	return b, nil
}

// union lists the roles of scopes, each once.
func union(scopes []Scope) []string {
	var out []string
	for _, s := range scopes {
		out = append(out, s.Roles...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Close implements [io.Closer].
func (b *Broker) Close() error { return b.conns.Close() }

// Forms implements [brokers.Former].
func (*Broker) Forms() []string { return []string{Type} }

// login is the credential, in the words of libpq.
type login struct {
	Type        string `json:"type"`
	Version     int    `json:"version" jsonschema_description:"Version of this form; what a later one adds can be ignored."`
	Host        string `json:"host" jsonschema_description:"Host to connect to."`
	Port        int    `json:"port" jsonschema_description:"TCP port to connect to."`
	Database    string `json:"database" jsonschema_description:"Database to connect to."`
	User        string `json:"user" jsonschema_description:"User to log in as; it is for this credential alone."`
	Password    string `json:"password" jsonschema_description:"Its password: 32 letters and digits."`
	SSLMode     string `json:"sslmode" jsonschema_description:"What sslmode of libpq should be."`
	SSLRootCert string `json:"sslrootcert,omitempty" jsonschema_description:"Where the client finds the certificate authority, as its target says."`
	Expiration  string `json:"expiration" jsonschema:"format=date-time" jsonschema_description:"When it ends (RFC 3339)."`
}

// Mint makes a role that can log in until the grant ends.
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	grant := o.Grant()
	granted := make([]Scope, len(grant.Scopes()))
	for i, name := range grant.Scopes() {
		granted[i] = b.scopes[name]
	}
	roles := union(granted)
	if len(roles) == 0 {
		return brokers.Credential{}, fmt.Errorf("%w: the grant's scopes name no role", brokers.ErrMisconfigured)
	}
	expires := grant.Expires().Truncate(time.Second)
	p, err := b.proofs.take()
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	}
	oid, at, err := b.makeRole(ctx, o.Name(), create(o.Name(), p.verifier, expires, b.settings.ConnectionLimit, roles, b.owner(roles)))
	if err != nil {
		return brokers.Credential{}, err
	}
	l := b.tell(at)
	l.User, l.Password, l.Expiration = o.Name(), p.password.Reveal(), expires.UTC().Format(time.RFC3339)
	value, err := brokers.Object(l)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	}
	return brokers.Credential{
		Type: Type, TokenType: brokers.NotApplicable, Value: value, Audience: b.target, Scopes: grant.Scopes(), Expires: expires,
		Data: secret.New(strconv.FormatUint(uint64(oid), 10)),
	}, nil
}

// owner is the role as which sessions begin, "" for none: what they create belongs to it. It is never one that was not
// granted.
func (b *Broker) owner(roles []string) string {
	switch {
	case len(roles) == 1:
		return roles[0]
	case slices.Contains(roles, b.settings.Owner):
		return b.settings.Owner
	}
	return ""
}

// tell says where to connect to.
func (b *Broker) tell(at *pgx.ConnConfig) login {
	l := login{
		Type: "postgresql", Version: 1, Host: cmp.Or(b.settings.Host, at.Host), Port: cmp.Or(b.settings.Port, int(at.Port)),
		Database: cmp.Or(b.settings.Database, at.Database), SSLMode: b.settings.SSLMode, SSLRootCert: b.settings.SSLRootCert,
	}
	if l.SSLMode == "" {
		l.SSLMode = sslVerify
		if socket(l.Host) {
			l.SSLMode = sslDisable
		}
	}
	return l
}

// makeRole creates a role and returns its oid, and where it was made. A role of that name is of an earlier try, whose
// password nobody has: it is dropped, and made anew.
func (b *Broker) makeRole(ctx context.Context, name, statement string) (oid uint32, at *pgx.ConnConfig, err error) {
	uncertain := false // an earlier try may have made one
	for range tries {
		err = b.conns.with(ctx, homeBase, func(ctx context.Context, c *conn) error {
			if err := b.vet(ctx, c); err != nil {
				return err
			}
			at = c.Config()
			oid, err = createRole(ctx, c, statement)
			return err
		})
		switch {
		case err == nil:
			return oid, at, nil
		case wrapped(err): // nothing was sent
		case duplicate(err):
			if r := b.revoke(ctx, []brokers.Handle{{Name: name}})[0]; r.Err != nil {
				err, uncertain = r.Err, true
				break
			}
			continue
		case passing(err):
			continue
		case lost(err):
			uncertain = true
			if ctx.Err() == nil {
				continue // made or not, the next try finds out
			}
		}
		break
	}
	err = fault("making role "+name+" of target "+b.target, err)
	if uncertain {
		err = fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	}
	return 0, nil, err
}

func createRole(ctx context.Context, c *conn, statement string) (uint32, error) {
	rs, err := c.PgConn().Exec(ctx, statement).ReadAll()
	if err != nil {
		return 0, err
	}
	last := rs[len(rs)-1]
	if len(last.Rows) != 1 {
		return 0, fmt.Errorf("the server returned %d rows for one role", len(last.Rows))
	}
	oid, err := strconv.ParseUint(string(last.Rows[0][0]), 10, 32)
	return uint32(oid), err
}

// vet refuses to make members of roles that could undo a revocation: a superuser, whoever makes roles, whoever acts as
// the server. It looks once for each connection.
func (b *Broker) vet(ctx context.Context, c *conn) error {
	if c.vetted {
		return nil
	}
	rows, err := c.Query(ctx, unfit, b.roles, beyondSQL)
	if err == nil {
		var names []string
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		if len(names) > 0 {
			return fmt.Errorf("%w: the roles %q of its scopes are, or are members of, a superuser or a role that makes roles; nobody could take back what they give", brokers.ErrMisconfigured, names)
		}
	}
	if err != nil {
		return fault("looking at the roles of the scopes", err)
	}
	c.vetted = true
	return nil
}

// List implements [brokers.Lister]. It reads all names before it yields one, so that whoever revokes them meanwhile
// finds a connection.
func (b *Broker) List(ctx context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) {
		var names []string
		err := b.conns.with(ctx, homeBase, func(ctx context.Context, c *conn) error {
			rows, err := c.Query(ctx, ours)
			if err != nil {
				return err
			}
			names, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		if err != nil {
			yield(brokers.Handle{}, fault("listing roles of target "+b.target, err))
			return
		}
		for _, name := range names {
			if expires, ok := brokers.ParseName(name); ok && !yield(brokers.Handle{Name: name, Expires: expires}, nil) {
				return
			}
		}
	}
}
