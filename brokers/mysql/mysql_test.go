package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// upstream is the server as the suite sees it, for a target whose scope read means roles.
func upstream(t *testing.T, roles []string, works func(t testing.TB, l login) error) brokertest.Upstream {
	means := map[string]any{"read": &mysql.Scope{Roles: roles}, "write": &mysql.Scope{Roles: []string{"orders_rw"}}}
	return brokertest.Upstream{
		Target:  target,
		Address: server.Address(),
		Build: func(t testing.TB, address string) brokers.Revoker {
			return build(t, dsn(address), settings(), means)
		},
		Works: func(c brokers.Credential) error { return works(t, loginOf(t, c)) },
		Session: func(t testing.TB, c brokers.Credential) func() bool {
			conn, err := loginOf(t, c).open(t).Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return func() bool {
				var n int
				return conn.QueryRowContext(context.Background(), "SELECT COUNT(*) FROM orders.list").Scan(&n) == nil
			}
		},
		Count: func(t testing.TB) int {
			if accounts(t) == 1 {
				return 1
			}
			return ours(t)
		},
	}
}

// may runs the vendor's client: what the roles allow works, what they do not is refused.
func may(t testing.TB, l login, allowed, denied string) error {
	t.Helper()
	out, err := l.client(t, allowed)
	if refused(err) {
		return err
	}
	if err != nil || out == "" {
		t.Errorf("%s: %q, %v", allowed, out, err)
	}
	if _, err := l.client(t, denied); err == nil || !strings.Contains(err.Error(), "ERROR 1142") {
		if refused(err) {
			return err // it died between the two
		}
		t.Errorf("%s: %v, want error 1142", denied, err)
	}
	return nil
}

func TestBroker(t *testing.T) {
	brokertest.RunRevoker(t, upstream(t, []string{"orders_ro"}, func(t testing.TB, l login) error {
		return may(t, l, "SELECT COUNT(*) FROM orders.list", "INSERT INTO orders.list VALUES (4)")
	}))
}

// MariaDB has one active role at a time, so that several need one of the lease's own.
func TestBrokerOfSeveralRoles(t *testing.T) {
	brokertest.RunRevoker(t, upstream(t, []string{"orders_ro", "stock_ro"}, func(t testing.TB, l login) error {
		return may(t, l, "SELECT COUNT(*) FROM orders.list, stock.list", "INSERT INTO stock.list VALUES (4)")
	}))
}

func TestCredentialSaysWhatAClientNeeds(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read", "write")
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = b.Revoke(context.Background(), brokertest.HandleOf(o, secret.Value{})) }()
	brokertest.CheckForm(t, c)
	l := loginOf(t, c)
	want := login{Type: "mysql", Version: 1, Host: server.Host, Port: server.Port, Database: "orders", User: o.Name(), Password: l.Password, SSLMode: "VERIFY_IDENTITY", SSLCA: server.CAFile, Expiration: o.Grant().Expires().Truncate(time.Second).UTC()}
	if l != want || len(l.Password) != 32 {
		t.Errorf("got %+v\nwant %+v", l, want)
	}
	if c.Type != brokers.TypePrefix+"mysql" || c.TokenType != brokers.NotApplicable || c.Audience != target.Name || !c.Data.IsZero() || c.Fingerprint != "" {
		t.Errorf("the credential is %+v", c)
	}
	if !strings.HasPrefix(c.Value.Reveal(), `{"type":"mysql","version":1,`) {
		t.Error("the first member does not say the kind")
	}
	if out, err := l.client(t, "INSERT INTO orders.list VALUES (7); DELETE FROM orders.list WHERE id = 7; SELECT CURRENT_ROLE()"); err != nil || out != o.Name() {
		t.Errorf("both scopes: %q, %v", out, err)
	}
}

func TestSeveralScopesAreTheirUnion(t *testing.T) {
	b := build(t, dsn(server.Address()), settings(), map[string]any{"read": &mysql.Scope{Roles: []string{"orders_ro", "stock_ro"}}, "write": &mysql.Scope{Roles: []string{"orders_rw", "orders_ro"}}})
	l := mint(t, b, order(t, "read", "write"))
	if out, err := l.client(t, "INSERT INTO orders.list VALUES (8); DELETE FROM orders.list WHERE id = 8; SELECT COUNT(*) FROM stock.list"); err != nil || out != "1" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := l.client(t, "INSERT INTO stock.list VALUES (8)"); err == nil {
		t.Error("the union is more than its parts")
	}
}

func TestRoleOfTwoScopesIsOneRole(t *testing.T) {
	b := build(t, dsn(server.Address()), settings(), map[string]any{"read": &mysql.Scope{Roles: []string{"orders_ro"}}, "write": &mysql.Scope{Roles: []string{"orders_ro"}}})
	l := mint(t, b, order(t, "read", "write"))
	if out, err := l.client(t, "SELECT CURRENT_ROLE()"); err != nil || out != "orders_ro" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestLoginNeedsTLSUnlessTheSettingsSayOtherwise(t *testing.T) {
	b := newBroker(t)
	l := mint(t, b, order(t, "read"))
	if _, err := l.client(t, "SELECT 1", "--skip-ssl"); !refused(err) {
		t.Errorf("without TLS: %v, want a refusal", err)
	}
	s := settings()
	s.TLS = "optional"
	l = mint(t, build(t, dsn(server.Address()), s, scopes()), order(t, "read"))
	if _, err := l.client(t, "SELECT 1", "--skip-ssl"); err != nil || l.SSLMode != "PREFERRED" {
		t.Errorf("with tls: optional: %v (ssl_mode %s)", err, l.SSLMode)
	}
}

func TestSessionsOfOneCredentialAreLimited(t *testing.T) {
	s := settings()
	s.MaxConnections = 2
	l := mint(t, build(t, dsn(server.Address()), s, scopes()), order(t, "read"))
	var err error
	for range 3 {
		_, err = l.open(t).Conn(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "1226") {
		t.Errorf("the third session: %v, want error 1226", err)
	}
}

func TestLoginsAreRefusedFromElsewhere(t *testing.T) {
	s := settings()
	s.From = "10.9.%"
	b := build(t, dsn(server.Address()), s, scopes())
	o := order(t, "read")
	if l := mint(t, b, o); true {
		if _, err := l.client(t, "SELECT 1"); !refused(err) {
			t.Errorf("from another address: %v, want a refusal", err)
		}
	}
	var host string
	if err := server.Root.QueryRow("SELECT Host FROM mysql.user WHERE User = ?", o.Name()).Scan(&host); err != nil || host != "10.9.%" {
		t.Errorf("the account is at %q (%v)", host, err)
	}
	// The same target after its pattern was changed: the name is enough.
	if r, err := newBroker(t).Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.Gone || ours(t) != 0 {
		t.Errorf("revoking what stands at another host: %+v, %v", r, err)
	}
}

func TestEveryHostOfANameIsKilled(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read")
	mint(t, b, o)
	server.Exec(t, fmt.Sprintf("CREATE USER '%s'@'127.0.0.1' IDENTIFIED BY 'other'", o.Name()))
	other := login{Host: server.Host, Port: server.Port, User: o.Name(), Password: "other"}
	session, err := other.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.State != brokers.Dead || ours(t) != 0 {
		t.Errorf("got %+v, %v; %d things are left", r, err, ours(t))
	}
	if session.PingContext(t.Context()) == nil {
		t.Error("the session at the other host still serves")
	}
}

// An account that was dropped by hand leaves its sessions: they are killed all the same, and listed.
func TestSessionWithoutAnAccountIsFoundAndKilled(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read")
	l := mint(t, b, o)
	session, err := l.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "DROP USER '"+o.Name()+"'@'%'")
	if err := session.PingContext(t.Context()); err != nil {
		t.Fatalf("the trap is gone: DROP USER ended the session (%v)", err)
	}
	listed := 0
	for h, err := range b.List(t.Context()) {
		if err != nil || h.Name != o.Name() {
			t.Errorf("it lists %+v, %v", h, err)
		}
		listed++
	}
	if listed != 1 {
		t.Errorf("it lists %d handles, want 1", listed)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.Gone {
		t.Errorf("got %+v, %v", r, err)
	}
	if session.PingContext(t.Context()) == nil {
		t.Error("the session still serves")
	}
}

func TestStatementThatRunsIsEnded(t *testing.T) {
	b := newBroker(t)
	first, second := order(t, "read"), order(t, "read")
	l := mint(t, b, first)
	mint(t, b, second)
	db := l.open(t)
	ended := make(chan error, 1)
	go func() {
		_, err := db.Exec("SELECT SLEEP(60)")
		ended <- err
	}()
	eventually(t, "the statement does not run", func() bool {
		var n int
		return server.Root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE USER = ? AND COMMAND = 'Query'", first.Name()).Scan(&n) == nil && n == 1
	})
	results := b.RevokeAll(t.Context(), []brokers.Handle{brokertest.HandleOf(first, secret.Value{}), brokertest.HandleOf(second, secret.Value{})})
	for i, r := range results {
		if r.Err != nil || r.Receipt.State != brokers.Dead || r.Receipt.Gone {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if err := <-ended; err == nil {
		t.Error("the statement went on to its end")
	}
	if n := ours(t); n != 0 {
		t.Errorf("%d things are left", n)
	}
}

func TestDeadServerIsToldAndRecoveredFrom(t *testing.T) {
	b := newBroker(t)
	o, second := order(t, "read"), order(t, "read")
	mint(t, b, o)
	server.Kill()
	start := time.Now()
	if _, err := b.Mint(t.Context(), second); !errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting at a dead server: %v, want ErrUnavailable", err)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err == nil {
		t.Errorf("revoking at a dead server has a receipt: %+v", r)
	}
	for _, err := range b.List(t.Context()) {
		if err == nil {
			t.Error("a dead server lists something")
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to notice", took)
	}
	if err := server.Continue(); err != nil {
		t.Fatal(err)
	}
	// The very first calls after it came back: connections from before are found stale, not reported.
	mint(t, b, second)
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.State != brokers.Dead || r.Gone {
		t.Errorf("after it came back: %+v, %v", r, err)
	}
}

func TestHungServerHoldsNobody(t *testing.T) {
	b := newBroker(t)
	o, second := order(t, "read"), order(t, "read")
	mint(t, b, o) // leaves a connection in the pool
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, mintErr := b.Mint(ctx, second)
	_, revokeErr := b.Revoke(ctx, brokertest.HandleOf(o, secret.Value{}))
	took := time.Since(start)
	if err := server.Continue(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(mintErr, brokers.ErrUncertain) || revokeErr == nil || took > 5*time.Second {
		t.Errorf("mint: %v, want ErrUncertain; revoke: %v; took %s", mintErr, revokeErr, took)
	}
	eventually(t, "what was made is not revoked", func() bool {
		_, err := b.Revoke(t.Context(), brokertest.HandleOf(second, secret.Value{}))
		return err == nil && accounts(t) == 1
	})
}
