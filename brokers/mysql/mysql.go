// Package mysql is the broker of logins at MySQL 8 and MariaDB: an account for each lease, named by it, with the roles
// that the granted scopes mean.
//
// The password is drawn here and only its hash is sent, so that it stands in no log of the server. An account expires
// by nothing but our revocation: neither server knows an expiry below a day. A revocation locks the account, kills its
// sessions, which would outlive it, drops it, and believes nothing before it has looked.
//
// Statements are put together from generated names, hex digits, and names of the configuration that passed a strict
// check; nothing that a caller says is in one. Which of the two dialects to speak is asked of each connection.
package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Type is the issued_token_type of a login.
const Type = brokers.TypePrefix + "mysql"

// Settings is the `mysql:` block of a target file.
type Settings struct {
	DSN            secret.Ref `yaml:"dsn" json:"dsn" jsonschema_description:"Reference to the DSN of the account that makes accounts: USER:PASSWORD@tcp(HOST:PORT)/?tls=true, or USER:PASSWORD@unix(/PATH)/. Required. Read anew for every connection. docs/brokers/mysql.md has the grants it needs; it can do whatever root can on MariaDB."`
	Host           string     `yaml:"host" json:"host" jsonschema:"minLength=1" jsonschema_description:"Host that workloads connect to, a name or an address, without port. Required."`
	Port           int        `yaml:"port,omitempty" json:"port,omitempty" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"Port that workloads connect to. Default: 3306."`
	Database       string     `yaml:"database,omitempty" json:"database,omitempty" jsonschema:"minLength=1" jsonschema_description:"Database that workloads are told to use; what they may do there is what the roles say. Default: none is named."`
	From           string     `yaml:"from,omitempty" json:"from,omitempty" jsonschema:"minLength=1" jsonschema_description:"Host pattern of the accounts: where workloads may connect from, as the server sees it, for example 10.0.%. Default: % (anywhere). Too narrow, and their logins are refused."`
	TLS            string     `yaml:"tls,omitempty" json:"tls,omitempty" jsonschema:"enum=required,enum=optional" jsonschema_description:"Whether workloads must connect with TLS. optional is accepted only when host is this machine, or with allow_plaintext. Default: required. The server must have a certificate then, else no login works."`
	SSLCA          string     `yaml:"ssl_ca,omitempty" json:"ssl_ca,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path, where workloads run, of the PEM certificates that sign the server's; it is part of the credential. Default: none is named, and clients use what they trust anyway."`
	MaxConnections int        `yaml:"max_connections,omitempty" json:"max_connections,omitempty" jsonschema:"minimum=1,maximum=1000" jsonschema_description:"Sessions that one credential can have at a time. Default: 10. Too few, and a connection pool is refused at its limit."`
	CAFile         string     `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the server's, for our own connections; relative paths start at the configuration directory. Default: those of the system."`
	AllowPlaintext bool       `yaml:"allow_plaintext,omitempty" json:"allow_plaintext,omitempty" jsonschema_description:"Accept connections without TLS to another machine, for a network that encrypts by itself. Default: false. With it, whoever reads the network can take over the admin account."`
}

// Scope is what a scope means at the server.
type Scope struct {
	Roles []string `yaml:"roles" json:"roles" jsonschema:"minItems=1,pattern=^[A-Za-z][A-Za-z0-9_]{0\\,31}$" jsonschema_description:"Roles of the server that the credential has, all active from the first statement on: letters, digits and _, a letter first, at most 32. Required. A role that the server does not have makes every exchange fail."`
}

// Defaults of the settings.
const (
	defaultPort        = 3306
	defaultFrom        = "%"
	defaultConnections = 10
)

// Times and sizes. Five callers wait rather than connect: one server takes DDL one by one anyway.
const (
	callTimeout = 15 * time.Second // of a call that came without a deadline
	connections = 4
	idleTime    = time.Minute
	lifeTime    = 10 * time.Minute // a changed DSN is in force after it
)

// Broker makes accounts at one server. It connects when it is first used.
type Broker struct {
	target  string
	login   login // but for user, password and expiration
	limits  limits
	roles   map[string][]role // by scope
	db      *sql.DB
	dialect atomic.Pointer[dialect] // of the connection made last
	now     func() time.Time
}

var (
	_ brokers.BulkRevoker = (*Broker)(nil)
	_ brokers.Lister      = (*Broker)(nil)
	_ brokers.Former      = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("mysql", brokers.Capabilities{Credentials: map[string]any{Type: login{}}}, check, build)
}

// Forms implements [brokers.Former].
func (*Broker) Forms() []string { return []string{Type} }

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Now == nil || t.Secret == nil || t.Path == nil {
		return nil, fmt.Errorf("mysql broker of target %s needs a clock, secrets and paths", t.Name)
	}
	b := &Broker{
		target: t.Name,
		login:  login{Type: "mysql", Version: 1, Host: s.Host, Port: cmp.Or(s.Port, defaultPort), Database: s.Database, SSLMode: sslMode(s), SSLCA: s.SSLCA},
		limits: limits{from: cmp.Or(s.From, defaultFrom), tls: s.TLS != tlsOptional, sessions: cmp.Or(s.MaxConnections, defaultConnections)},
		roles:  make(map[string][]role, len(scopes)),
		now:    d.Now,
	}
	for name, scope := range scopes {
		for _, r := range scope.Roles {
			checked, err := newRole(r)
			if err != nil {
				return nil, fmt.Errorf("scope %s of target %s: %w", name, t.Name, err)
			}
			b.roles[name] = append(b.roles[name], checked)
		}
	}
	b.db = sql.OpenDB(&connector{open: func() (*config, error) { return open(t, s) }, spoken: &b.dialect})
	b.db.SetMaxOpenConns(connections)
	b.db.SetMaxIdleConns(connections)
	b.db.SetConnMaxIdleTime(idleTime)
	b.db.SetConnMaxLifetime(lifeTime)
	return b, nil
}

// Close implements [io.Closer].
func (b *Broker) Close() error { return b.db.Close() }

// session is one connection and how to speak on it.
type session struct {
	*sql.Conn
	dialect
}

// session returns a connection of the pool, made when there is none. An error means that nothing was sent.
func (b *Broker) session(ctx context.Context) (session, error) {
	c, err := b.db.Conn(ctx)
	if err != nil {
		return session{}, b.failed("connecting", err, false)
	}
	return session{c, *b.dialect.Load()}, nil
}

// run executes a statement.
func (s session) run(ctx context.Context, statement string) error {
	_, err := s.ExecContext(ctx, statement)
	return err
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}
