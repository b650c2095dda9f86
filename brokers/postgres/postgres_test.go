package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const (
	database      = "orders"
	other         = "billing"
	admin         = "sallyport"
	adminPassword = "admin:p@ss/w'ord"
	patience      = 20 * time.Second
)

// server is the one PostgreSQL of this package's tests, with deploy/postgres/grants.sql run in it. It logs whatever it
// is asked.
var server *postgrestest.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	server, err = postgrestest.New("log_statement=all", "log_min_duration_statement=0", "log_connections=on", "max_prepared_transactions=5")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = server.Close() }()
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// setUp makes two databases and runs the sample of deploy in one of them, as its first lines say.
func setUp() error {
	grants, err := filepath.Abs("../../deploy/postgres/grants.sql")
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-d", "postgres", "-c", "CREATE DATABASE " + database, "-c", "CREATE DATABASE " + other},
		{"-d", database, "-c", "CREATE TABLE items (id int PRIMARY KEY)", "-c", "INSERT INTO items VALUES (1)"},
		{"-d", database, "-v", "database=" + database, "-v", "password=" + adminPassword, "-f", grants},
	} {
		if out, err := psql(server.DSN(postgrestest.Superuser), "", args...); err != nil {
			return fmt.Errorf("psql %q: %w: %s", args, err, out)
		}
	}
	return nil
}

// psql is the vendor's own client. A database among args overrides that of dsn.
func psql(dsn, sql string, args ...string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	password, _ := u.User.Password()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", append([]string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "PGHOST=" + u.Query().Get("host"), "PGPORT=" + u.Query().Get("port"), "PGDATABASE=" + strings.TrimPrefix(u.Path, "/"),
		"PGUSER=" + u.User.Username(), "PGPASSWORD=" + password, "PGSSLMODE=" + u.Query().Get("sslmode"), "PGSSLROOTCERT=" + u.Query().Get("sslrootcert"), "PGCONNECT_TIMEOUT=10",
	}
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		err = errors.New("psql is missing; install it with: apt-get install -y --no-install-recommends postgresql-client")
	}
	return strings.TrimSpace(string(out)), err
}

// login is what a workload gets.
type login struct {
	Type, Host, Database, User, Password, SSLMode, SSLRootCert, Expiration string
	Version, Port                                                          int
}

func parse(t testing.TB, c brokers.Credential) login {
	t.Helper()
	var l login
	if err := json.Unmarshal([]byte(c.Value.Reveal()), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// dsn is how a workload that got l connects.
func (l login) dsn() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(l.User, l.Password), Path: "/" + l.Database}
	u.RawQuery = url.Values{"host": {l.Host}, "port": {fmt.Sprint(l.Port)}, "sslmode": {l.SSLMode}, "sslrootcert": {l.SSLRootCert}}.Encode()
	return u.String()
}

var target = policy.Target{Name: "orders-db", Scopes: []string{"read", "write"}}

var scopes = map[string]any{"read": &postgres.Scope{Roles: []string{"orders_ro"}}, "write": &postgres.Scope{Roles: []string{"orders_rw"}}}

// options change what a broker under test is made of.
type options struct {
	settings postgres.Settings
	scopes   map[string]any
	dsn      func() string // default: the admin of grants.sql
}

// newBroker builds a broker as the service does: check, then build.
func newBroker(t testing.TB, o options) *postgres.Broker {
	t.Helper()
	if o.dsn == nil {
		o.dsn = func() string { return server.UserDSN(admin, adminPassword, database) }
	}
	if o.scopes == nil {
		o.scopes = scopes
	}
	if o.settings.SSLMode == "" {
		o.settings.SSLMode = "disable"
	}
	o.settings.DSN = secret.Ref{Env: "DSN"}
	bt := brokers.Target{Name: target.Name, Secret: func(r secret.Ref) (secret.Value, error) {
		if r != (secret.Ref{Env: "DSN"}) {
			return secret.Value{}, fmt.Errorf("asked for %v", r)
		}
		return secret.New(o.dsn()), nil
	}}
	kind := postgres.Kind()
	if problems := kind.Check(bt, &o.settings, o.scopes); len(problems) > 0 {
		t.Fatalf("the settings do not load: %v", problems)
	}
	b, err := kind.Build(bt, &o.settings, o.scopes, brokers.Deps{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	p := b.(*postgres.Broker)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func newOrder(t testing.TB, scopes ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Scopes: scopes, Lifetime: 10 * time.Minute, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

// mint makes a credential that is revoked, at the latest, when t ends.
func mint(t testing.TB, b *postgres.Broker, scopes ...string) (login, brokers.Handle) {
	t.Helper()
	o := newOrder(t, scopes...)
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatalf("minting: %v", err)
	}
	h := brokertest.HandleOf(o, c.Data)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := b.Revoke(ctx, h); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return parse(t, c), h
}

func revoke(t testing.TB, b *postgres.Broker, h brokers.Handle) brokers.Receipt {
	t.Helper()
	r, err := b.Revoke(t.Context(), h)
	if err != nil {
		t.Fatalf("revoking: %v", err)
	}
	return r
}

// open opens a session of a workload, which ends with t.
func open(t testing.TB, l login) *pgx.Conn {
	t.Helper()
	return server.Connect(t, l.dsn())
}

// works reports why a session does not serve, nil when it does.
func works(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.Exec(ctx, "SELECT 1")
	return err
}

// value asks the server, as its superuser, for one value.
func value[T any](t testing.TB, database, sql string, args ...any) T {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func roleExists(t testing.TB, name string) bool {
	t.Helper()
	return value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name)
}

// hostPort is the admin's DSN with another address.
func dsnAt(t testing.TB, address string) string {
	t.Helper()
	return strings.Replace(server.UserDSN(admin, adminPassword, database), fmt.Sprintf("port=%d", server.Port()), "port="+address[strings.LastIndex(address, ":")+1:], 1)
}

func upstream(dsn func(t testing.TB, address string) string) brokertest.Upstream {
	return brokertest.Upstream{
		Target:  target,
		Address: server.Addr(),
		Build: func(t testing.TB, address string) brokers.Revoker {
			return newBroker(t, options{settings: postgres.Settings{Host: server.Host(), Port: server.Port()}, dsn: func() string { return dsn(t, address) }})
		},
		Works: func(c brokers.Credential) error {
			var l login
			if err := json.Unmarshal([]byte(c.Value.Reveal()), &l); err != nil {
				return err
			}
			if out, err := psql(l.dsn(), "", "-c", "SELECT id FROM items"); err != nil || out != "1" {
				return fmt.Errorf("psql says %q (%w)", out, err)
			}
			return nil
		},
		Session: func(t testing.TB, c brokers.Credential) func() bool {
			session := open(t, parse(t, c))
			return func() bool { return works(session) == nil }
		},
		Count: func(t testing.TB) int {
			return value[int](t, database, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sts\_%'`)
		},
	}
}

func TestBroker(t *testing.T) {
	brokertest.RunRevoker(t, upstream(dsnAt))
}
