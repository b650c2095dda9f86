package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
)

func TestCredentialIsARoleOfItsOwnAndNothingElse(t *testing.T) {
	b := newBroker(t, options{settings: postgres.Settings{ConnectionLimit: 3, SSLRootCert: "system"}})
	o := newOrder(t, "read")
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = b.Revoke(t.Context(), brokers.Handle{Name: o.Name()}) }()
	if c.Type != brokers.TypePrefix+"postgresql" || c.TokenType != brokers.NotApplicable || c.Audience != target.Name || !slices.Equal(c.Scopes, []string{"read"}) {
		t.Errorf("the credential says %+v", c)
	}
	l := parse(t, c)
	want := login{
		Type: "postgresql", Version: 1, Host: server.Host(), Port: server.Port(), Database: database, User: o.Name(), Password: l.Password,
		SSLMode: "disable", SSLRootCert: "system", Expiration: o.Grant().Expires().UTC().Format(time.RFC3339),
	}
	if l != want {
		t.Errorf("the credential is %+v\nwant %+v", l, want)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(l.Password) {
		t.Error("the password is not 32 letters and digits")
	}
	got := value[string](t, database, `SELECT concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
		extract(epoch FROM rolvaliduntil)::bigint, rolconfig::text, (SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members WHERE member = r.oid),
		(SELECT count(*) FROM pg_auth_members WHERE roleid = r.oid)) FROM pg_roles r WHERE rolname = $1`, o.Name())
	if want := fmt.Sprintf("f t f f t f f 3 %d {role=orders_ro} orders_ro 0", c.Expires.Unix()); got != want {
		t.Errorf("the role is %q, want %q", got, want)
	}
}

// What the vendor's client can do with a credential is what its scope names.
func TestScopesAllowWhatTheyNameAndNoMore(t *testing.T) {
	b := newBroker(t, options{})
	read, _ := mint(t, b, "read")
	write, _ := mint(t, b, "write")
	both, _ := mint(t, b, "read", "write")
	for _, tc := range []struct {
		who     login
		sql     string
		allowed bool
	}{
		{read, "SELECT id FROM items", true},
		{read, "INSERT INTO items VALUES (2)", false},
		{read, "SET ROLE orders_rw", false},
		{read, "SET ROLE " + admin, false},
		{read, "CREATE TABLE public.mine (n int)", false},
		{read, "CREATE ROLE other LOGIN", false},
		{read, `ALTER ROLE "` + read.User + `" VALID UNTIL 'infinity'`, false},
		{read, `ALTER ROLE "` + read.User + `" CONNECTION LIMIT -1`, false},
		{read, "GRANT orders_ro TO public", false},
		{read, `GRANT "` + read.User + `" TO "` + write.User + `" WITH ADMIN OPTION`, false},
		{read, "SELECT rolpassword FROM pg_authid", false},
		{read, `DROP ROLE "` + write.User + `"`, false},
		{read, "COPY items TO PROGRAM 'cat'", false},
		{write, "INSERT INTO items VALUES (3); DELETE FROM items WHERE id = 3", true},
		{write, "TRUNCATE items", false},
		{both, "INSERT INTO items VALUES (4); DELETE FROM items WHERE id = 4", true},
	} {
		if out, err := psql(tc.who.dsn(), tc.sql); (err == nil) != tc.allowed {
			t.Errorf("%s as %s: %v (%s), want allowed %v", tc.sql, tc.who.User, err, out, tc.allowed)
		}
	}
	stranger := read
	stranger.Password = strings.Repeat("x", 32)
	if out, err := psql(stranger.dsn(), "SELECT 1"); err == nil || !strings.Contains(out, "password authentication failed") {
		t.Errorf("another password: %v (%s)", err, out)
	}
}

// What a workload creates belongs to the role that it was granted, from the start, and never to one that it was not.
func TestSessionsBeginAsTheOneOwnerThatWasGranted(t *testing.T) {
	owner := newBroker(t, options{settings: postgres.Settings{Owner: "orders_rw"}})
	none := newBroker(t, options{})
	apart := newBroker(t, options{settings: postgres.Settings{Owner: "orders_rw"}, scopes: map[string]any{
		"read": &postgres.Scope{Roles: []string{"orders_ro", "pg_read_all_stats"}}, "write": &postgres.Scope{Roles: []string{"orders_rw"}},
	}})
	for _, tc := range []struct {
		b      *postgres.Broker
		scopes []string
		want   string // "" for its own
	}{
		{none, []string{"read"}, "orders_ro"},
		{none, []string{"write"}, "orders_rw"},
		{none, []string{"read", "write"}, ""},
		{owner, []string{"read", "write"}, "orders_rw"},
		{owner, []string{"read"}, "orders_ro"},
		{apart, []string{"read"}, ""},
	} {
		l, _ := mint(t, tc.b, tc.scopes...)
		want := tc.want
		if want == "" {
			want = l.User
		}
		if got, err := psql(l.dsn(), "SELECT current_user"); err != nil || got != want {
			t.Errorf("a session with %v begins as %s (%v), want %s", tc.scopes, got, err, want)
		}
	}
}

func TestConnectionLimitHolds(t *testing.T) {
	l, _ := mint(t, newBroker(t, options{settings: postgres.Settings{ConnectionLimit: 1}}), "read")
	open(t, l)
	if out, err := psql(l.dsn(), "SELECT 1"); err == nil || !strings.Contains(out, "too many connections for role") {
		t.Errorf("a second session: %v (%s)", err, out)
	}
}

// The server logs every statement in this package's tests, with parameters and durations.
func TestNoPasswordReachesTheServersLog(t *testing.T) {
	l, h := mint(t, newBroker(t, options{}), "read")
	if out, err := psql(l.dsn(), "SELECT id FROM items"); err != nil {
		t.Fatal(err, out)
	}
	stored := value[string](t, database, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", l.User)
	revoke(t, newBroker(t, options{}), h)
	raw, err := os.ReadFile(server.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	log := string(raw)
	if !strings.Contains(log, "CREATE ROLE \""+l.User) {
		t.Fatal("the log does not say that the role was made; this test looks at nothing")
	}
	if strings.Contains(log, l.Password) {
		t.Error("the password is in the server's log")
	}
	// Had the server hashed what it was sent, it would have stored something else than stands in the log.
	if !strings.Contains(log, "PASSWORD '"+stored+"'") {
		t.Error("the server did not store the verifier that it was sent")
	}
	if strings.Contains(log, adminPassword) {
		t.Error("the admin's password is in the server's log")
	}
}

func TestRolesThatCouldUndoARevocationAreNotGiven(t *testing.T) {
	server.Exec(t, database, "CREATE ROLE maker CREATEROLE", "CREATE ROLE near_maker IN ROLE maker", "CREATE ROLE files IN ROLE pg_read_server_files",
		`CREATE ROLE root SUPERUSER`, "CREATE ROLE fine")
	t.Cleanup(func() { server.Exec(t, database, "DROP ROLE near_maker, maker, files, root, fine") })
	superuser := func() string { return server.DSN(database) } // who could grant them
	for _, role := range []string{"maker", "near_maker", "files", "root", admin} {
		b := newBroker(t, options{dsn: superuser, scopes: map[string]any{"read": &postgres.Scope{Roles: []string{"fine", role}}, "write": &postgres.Scope{Roles: []string{"fine"}}}})
		o := newOrder(t, "write")
		if _, err := b.Mint(t.Context(), o); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), role) {
			t.Errorf("a target with a scope that gives %s: %v, want ErrMisconfigured and its name", role, err)
		}
		if roleExists(t, o.Name()) {
			t.Errorf("a role was made that gives %s", role)
		}
	}
	b := newBroker(t, options{dsn: superuser, scopes: map[string]any{"read": &postgres.Scope{Roles: []string{"fine"}}}})
	mint(t, b, "read")
}

func TestTheAdminIsReadAnewForEachConnection(t *testing.T) {
	server.Exec(t, database, "CREATE ROLE turning LOGIN CREATEROLE PASSWORD 'first' IN ROLE orders_ro, pg_signal_backend", "GRANT CONNECT ON DATABASE orders TO turning")
	t.Cleanup(func() {
		server.Exec(t, database, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'turning'", "DROP OWNED BY turning", "DROP ROLE turning")
	})
	password := "first"
	b := newBroker(t, options{dsn: func() string { return server.UserDSN("turning", password, database) }})
	mint(t, b, "read")
	server.Exec(t, database, "ALTER ROLE turning PASSWORD 'second'", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'turning'")
	if _, err := b.Mint(t.Context(), newOrder(t, "read")); !errors.Is(err, brokers.ErrMisconfigured) && !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting with a password that was changed: %v", err)
	}
	password = "second"
	mint(t, b, "read")
}

// No two of many that mint and revoke at once disturb each other, and no more connections are open than may be.
func TestManyAtOnceLoseNone(t *testing.T) {
	b := newBroker(t, options{settings: postgres.Settings{MaxConnections: 3}})
	const n = 24
	var wg sync.WaitGroup
	handles := make([]brokers.Handle, n)
	orders := make([]brokers.Order, n)
	for i := range n {
		orders[i] = newOrder(t, "read", "write")
	}
	for i := range n {
		wg.Go(func() {
			c, err := b.Mint(t.Context(), orders[i])
			if err != nil {
				t.Errorf("mint %d: %v", i, err)
				return
			}
			handles[i] = brokers.Handle{Name: orders[i].Name(), Data: c.Data}
			if i%2 == 0 { // the others are still being made
				if r, err := b.Revoke(t.Context(), handles[i]); err != nil || r.State != brokers.Dead || r.Gone {
					t.Errorf("revoke %d: %v (%+v)", i, err, r)
				}
			}
		})
	}
	wg.Wait()
	if n := value[int](t, database, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", admin); n > 3 {
		t.Errorf("%d connections of the admin are open, want at most 3", n)
	}
	for i := 1; i < n; i += 2 {
		wg.Go(func() {
			if r, err := b.Revoke(t.Context(), handles[i]); err != nil || r.State != brokers.Dead || r.Gone {
				t.Errorf("revoke %d: %v (%+v)", i, err, r)
			}
		})
	}
	wg.Wait()
	if left := value[int](t, database, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sts\_%'`); left > 0 {
		t.Errorf("%d roles are left", left)
	}
	_ = b.Close()
	eventually(t, "connections are left open", func() bool {
		return value[int](t, database, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", admin) == 0
	})
	if _, err := b.Mint(t.Context(), newOrder(t, "read")); !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("minting with a closed broker: %v, want ErrUnavailable", err)
	}
}

// Names that are no names of ours, however odd, are quoted everywhere that they stand.
func TestOddNamesOfRolesAndDatabasesAreOnlyNames(t *testing.T) {
	odd := `o'dd"; DROP ROLE orders_ro; --\` + "\n$$é"
	quoted := `"` + strings.ReplaceAll(odd, `"`, `""`) + `"`
	t.Cleanup(func() { server.Exec(t, database, "DROP ROLE "+quoted) }) // after the database
	server.Database(t, odd)
	server.Exec(t, odd, "CREATE ROLE "+quoted, "GRANT "+quoted+" TO "+admin+" WITH ADMIN OPTION", "GRANT ALL ON SCHEMA public TO "+quoted)
	b := newBroker(t, options{
		settings: postgres.Settings{Owner: odd, Database: odd},
		scopes:   map[string]any{"read": &postgres.Scope{Roles: []string{odd}}, "write": &postgres.Scope{Roles: []string{odd, "orders_rw"}}},
	})
	for _, scopes := range [][]string{{"read"}, {"read", "write"}} {
		l, h := mint(t, b, scopes...)
		c := open(t, l)
		var who string
		if err := c.QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != odd {
			t.Errorf("a session begins as %q (%v), want %q", who, err, odd)
		}
		if _, err := c.Exec(t.Context(), "SET ROLE NONE; CREATE TABLE t"+h.Name+" (n int)"); err != nil {
			t.Fatal(err)
		}
		if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
			t.Errorf("the receipt is %+v", r)
		}
		if got := value[string](t, odd, "SELECT tableowner::text FROM pg_tables WHERE tablename = $1", "t"+h.Name); got != odd {
			t.Errorf("what it left belongs to %q, want %q", got, odd)
		}
	}
	if !roleExists(t, "orders_ro") {
		t.Error("a name was taken for a statement")
	}
}

func TestTLSIsVerified(t *testing.T) {
	verified := func(host string) func() string {
		return func() string {
			return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=verify-full sslrootcert=%s", host, server.Port(), admin, strings.ReplaceAll(adminPassword, "'", `\'`), database, server.CAFile())
		}
	}
	b := newBroker(t, options{dsn: verified("127.0.0.1"), settings: postgres.Settings{SSLMode: "verify-full", SSLRootCert: server.CAFile()}})
	l, h := mint(t, b, "read")
	if got, err := psql(l.dsn(), `\conninfo`); err != nil || !strings.Contains(got, "SSL connection") {
		t.Errorf("a workload connects without TLS: %s (%v)", got, err)
	}
	if !value[bool](t, database, "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1", admin) {
		t.Error("the admin is connected without TLS")
	}
	revoke(t, b, h)
	// The certificate is for 127.0.0.1, and localhost is another name.
	_, err := newBroker(t, options{dsn: verified("localhost")}).Mint(t.Context(), newOrder(t, "read"))
	if !errors.Is(err, brokers.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server with another's certificate: %v, want ErrUnavailable and why", err)
	}
}

func TestUnixSocketNeedsNoTLS(t *testing.T) {
	b := newBroker(t, options{dsn: func() string {
		return strings.Replace(server.UserDSN(admin, adminPassword, database), "127.0.0.1", strings.ReplaceAll(server.Socket(), "/", "%2F"), 1)
	}})
	l, _ := mint(t, b, "read")
	if l.Host != server.Socket() || l.SSLMode != "disable" {
		t.Errorf("workloads are told host %s and sslmode %s", l.Host, l.SSLMode)
	}
	if out, err := psql(l.dsn(), "SELECT id FROM items"); err != nil || out != "1" {
		t.Errorf("psql: %v (%s)", err, out)
	}
}

// An earlier try, whose answer was lost, is still at work: its role, which nobody has the password of, gives way.
func TestMintGetsOverAnEarlierTry(t *testing.T) {
	b := newBroker(t, options{})
	o := newOrder(t, "read")
	earlier := server.Connect(t, server.DSN(database))
	if _, err := earlier.Exec(t.Context(), `BEGIN; CREATE ROLE "`+o.Name()+`" LOGIN PASSWORD 'earlier' IN ROLE orders_rw`); err != nil {
		t.Fatal(err)
	}
	minted := make(chan brokers.Credential, 1)
	go func() {
		c, err := b.Mint(context.WithoutCancel(t.Context()), o)
		if err != nil {
			t.Errorf("minting: %v", err)
		}
		minted <- c
	}()
	eventually(t, "the mint does not wait", func() bool {
		return value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)")
	})
	if _, err := earlier.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	c := <-minted
	if t.Failed() {
		return
	}
	l := parse(t, c)
	if out, err := psql(l.dsn(), "SELECT id FROM items"); err != nil {
		t.Errorf("the credential does not work: %s", out)
	}
	stale := l
	stale.Password = "earlier"
	if _, err := psql(stale.dsn(), "SELECT 1"); err == nil {
		t.Error("the password of the earlier try works")
	}
	if r := revoke(t, b, brokertest.HandleOf(o, c.Data)); r.State != brokers.Dead || r.Gone || roleExists(t, l.User) {
		t.Errorf("the receipt is %+v", r)
	}
}

// Where a connection in the clear is allowed, the server is not given the password itself, whatever it asks for.
func TestPasswordIsNotSentInTheClear(t *testing.T) {
	server.Exec(t, database, "CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'plain'", "GRANT CONNECT ON DATABASE orders TO plain")
	t.Cleanup(func() { server.Exec(t, database, "DROP OWNED BY plain", "DROP ROLE plain") })
	file := filepath.Join(server.Socket(), "data", "pg_hba.conf")
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		server.Exec(t, database, "SELECT pg_reload_conf()")
	}
	set("host all plain 127.0.0.1/32 password\n" + string(rules))
	t.Cleanup(func() { set(string(rules)) })
	nearby := server.UserDSN("plain", "plain", database)
	network := func(dsn string) string { return strings.Replace(dsn, "127.0.0.1", "0.0.0.0", 1) } // is this machine, and looks like any other
	eventually(t, "the server does not ask for passwords", func() bool {
		_, err := newBroker(t, options{dsn: func() string { return network(nearby) }, settings: postgres.Settings{AllowPlaintext: true, Host: "127.0.0.1"}}).Mint(t.Context(), newOrder(t, "read"))
		return errors.Is(err, brokers.ErrMisconfigured) && strings.Contains(err.Error(), "not encrypted")
	})
	mint(t, newBroker(t, options{dsn: func() string { return nearby }}), "read") // it never leaves the machine
	mint(t, newBroker(t, options{dsn: func() string { return network(server.UserDSN(admin, adminPassword, database)) }, settings: postgres.Settings{AllowPlaintext: true, Host: "127.0.0.1"}}), "read")
}
