package postgres_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
)

// Errors say whose fault it is, by which callers are answered, and never what the dsn holds.
func TestFaultsSayWhoseTheyAre(t *testing.T) {
	server.Exec(t, database, "CREATE ROLE single LOGIN CREATEROLE CONNECTION LIMIT 1 PASSWORD 'x'", "GRANT CONNECT ON DATABASE orders TO single", "CREATE ROLE barred CREATEROLE PASSWORD 'x'")
	t.Cleanup(func() { server.Exec(t, database, "DROP OWNED BY single", "DROP ROLE single, barred") })
	server.Connect(t, server.UserDSN("single", "x", database))
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, tc := range []struct {
		name   string
		dsn    string
		scopes map[string]any
		want   error
		says   string
	}{
		{"a wrong password", server.UserDSN(admin, "wr0ng-secret", database), nil, brokers.ErrMisconfigured, "28P01"},
		{"a user that there is not", server.UserDSN("wr0ng-secret", "x", database), nil, brokers.ErrMisconfigured, "28P01"},
		{"a user that may not log in", server.UserDSN("barred", "x", database), nil, brokers.ErrMisconfigured, "28000"},
		{"a database that there is not", server.UserDSN(admin, adminPassword, "wr0ng-secret"), nil, brokers.ErrMisconfigured, "3D000"},
		{"no connection left", server.UserDSN("single", "x", database), nil, brokers.ErrUnavailable, "53300"},
		{"nobody there", dsnAt(t, "127.0.0.1:1"), nil, brokers.ErrUnavailable, "refused"},
		{"a role that there is not", server.UserDSN(admin, adminPassword, database), map[string]any{"read": &postgres.Scope{Roles: []string{"missing"}}}, brokers.ErrMisconfigured, "42704"},
		{"a server that says nothing", dsnAt(t, mute.Addr().String()), nil, brokers.ErrUnavailable, "in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBroker(t, options{dsn: func() string { return tc.dsn }, scopes: tc.scopes})
			o := newOrder(t, "read")
			start := time.Now()
			_, err := b.Mint(t.Context(), o)
			if !errors.Is(err, tc.want) || errors.Is(err, brokers.ErrUncertain) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("minting: %v, want %v and %q", err, tc.want, tc.says)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("it took %s", took)
			}
			if tc.scopes == nil {
				if _, rerr := b.Revoke(t.Context(), brokers.Handle{Name: o.Name()}); !errors.Is(rerr, tc.want) {
					t.Errorf("revoking: %v, want %v", rerr, tc.want)
				}
				for _, lerr := range b.List(t.Context()) {
					if !errors.Is(lerr, tc.want) {
						t.Errorf("listing: %v, want %v", lerr, tc.want)
					}
				}
			}
			if strings.Contains(err.Error(), "wr0ng-secret") {
				t.Errorf("the error repeats the dsn: %v", err)
			}
		})
	}
}

// A server that dies and comes back: what it has not answered is said to be uncertain or not done, and revocations are
// done when it is there again.
func TestServerThatDiesAndComesBack(t *testing.T) {
	b := newBroker(t, options{})
	l, h := mint(t, b, "read")
	server.Stop()
	o := newOrder(t, "read")
	start := time.Now()
	_, mintErr := b.Mint(t.Context(), o)
	_, revokeErr := b.Revoke(t.Context(), h)
	took := time.Since(start)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(mintErr, brokers.ErrUnavailable) {
		t.Errorf("minting: %v, want ErrUnavailable", mintErr)
	}
	if !errors.Is(revokeErr, brokers.ErrUnavailable) || took > 5*time.Second {
		t.Errorf("revoking: %v, after %s", revokeErr, took)
	}
	if out, err := psql(l.dsn(), "SELECT 1"); err != nil {
		t.Fatalf("the role did not survive, and this test shows nothing: %s", out)
	}
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
	revoke(t, b, brokers.Handle{Name: o.Name()})
}

// Connections that were kept break when the server restarts, all at once and unseen. No mint fails because of it.
func TestBrokenConnectionsAreNotTheCallersTrouble(t *testing.T) {
	b := newBroker(t, options{})
	l, h := mint(t, b, "read")
	server.Exec(t, database, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '"+admin+"'")
	mint(t, b, "read")
	server.Exec(t, database, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '"+admin+"'")
	if r := revoke(t, b, h); r.Gone || roleExists(t, l.User) {
		t.Errorf("the receipt is %+v", r)
	}
}

// Roles are made on the primary. A standby is one only as long as it is.
func TestStandbyIsRefused(t *testing.T) {
	standby := postgrestest.Start(t)
	standby.Exec(t, "postgres", "CREATE DATABASE "+database, "CREATE ROLE "+admin+" LOGIN PASSWORD '"+strings.ReplaceAll(adminPassword, "'", "''")+"'")
	standby.Stop()
	signal := filepath.Join(standby.Socket(), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(signal, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, options{dsn: func() string { return standby.DSN("postgres") }})
	if _, err := b.Mint(t.Context(), newOrder(t, "read")); !errors.Is(err, brokers.ErrUnavailable) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("minting: %v, want ErrUnavailable and that it is a standby", err)
	}
	// Of several hosts, the one that is the primary is found.
	both := strings.NewReplacer(
		"host=127.0.0.1", "host=127.0.0.1%2C127.0.0.1",
		"port=", "port="+standby.Addr()[len("127.0.0.1:"):]+"%2C",
	).Replace(server.UserDSN(admin, adminPassword, database))
	b = newBroker(t, options{settings: postgres.Settings{Host: server.Host(), Port: server.Port()}, dsn: func() string { return both }})
	l, _ := mint(t, b, "read")
	if l.Port != server.Port() {
		t.Errorf("workloads are told port %d", l.Port)
	}
}

// What the environment says about PostgreSQL is not for us.
func TestEnvironmentHasNoSay(t *testing.T) {
	b := newBroker(t, options{})
	t.Run("while it speaks", func(t *testing.T) {
		for name, v := range map[string]string{
			"PGHOST": "192.0.2.1", "PGPORT": "1", "PGOPTIONS": "-c search_path=evil -c statement_timeout=1", "PGAPPNAME": "somebody", "PGTARGETSESSIONATTRS": "standby",
			"PGPASSWORD": "wrong", "PGUSER": "wrong", "PGDATABASE": "wrong", "PGSSLMODE": "disable", "PGTZ": "Asia/Tokyo", "PGCONNECT_TIMEOUT": "100",
		} {
			t.Setenv(name, v)
		}
		mint(t, b, "read")
	})
	if n := value[int](t, database, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND application_name = 'sallyport'", admin); n != 1 {
		t.Errorf("%d connections of the admin go by the name of sallyport, want 1", n)
	}
}
