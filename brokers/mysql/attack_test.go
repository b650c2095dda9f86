package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// logs returns what the server has written of its statements: the general log, the error log and the binary log.
func logs(t *testing.T) string {
	t.Helper()
	server.Exec(t, "FLUSH LOGS")
	files, err := filepath.Glob(filepath.Join(filepath.Dir(server.GeneralLog), "binlog*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no binary log (%v)", err)
	}
	var all strings.Builder
	for _, f := range append(files, server.GeneralLog, server.ErrorLog) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

func TestPasswordIsInNoLogOfTheServerAndInNoProcessList(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read", "write")
	l := mint(t, b, o)
	if _, err := l.client(t, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil {
		t.Fatal(err)
	}
	all := logs(t)
	for _, must := range []string{"CREATE USER '" + o.Name() + "'", "ALTER USER IF EXISTS '" + o.Name() + "'@'%' ACCOUNT LOCK", "DROP USER IF EXISTS '" + o.Name() + "'"} {
		if strings.Count(all, must) < 2 { // general log and binary log
			t.Errorf("the logs do not have %q twice: they show nothing", must)
		}
	}
	for what, secret := range map[string]string{"password": l.Password, "hex of the password": fmt.Sprintf("%x", l.Password), "admin's password": adminPassword} {
		text := strings.ReplaceAll(all, "CREATE USER 'sallyport'@'%' IDENTIFIED BY '"+adminPassword+"'", "") // of the test itself
		if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
			t.Errorf("the server's logs have the %s", what)
		}
	}
}

// Whatever the server's modes make of quotes and backslashes, and of a GRANT to nobody.
func TestModesOfTheServerDoNotMatter(t *testing.T) {
	var before string
	if err := server.Root.QueryRow("SELECT @@GLOBAL.sql_mode").Scan(&before); err != nil {
		t.Fatal(err)
	}
	defer server.Exec(t, "SET GLOBAL sql_mode = '"+before+"'")
	for _, mode := range []string{"", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE", "ORACLE", "MSSQL", "TRADITIONAL"} {
		server.Exec(t, "SET GLOBAL sql_mode = '"+mode+"'")
		b := newBroker(t)
		o := order(t, "read", "write")
		l := mint(t, b, o)
		if out, err := l.client(t, "SELECT COUNT(*) FROM orders.list"); err != nil || out != "3" {
			t.Errorf("mode %q: %q, %v", mode, out, err)
		}
		if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.Gone || ours(t) != 0 {
			t.Errorf("mode %q: revoked %+v, %v, and %d things are left", mode, r, err, ours(t))
		}
	}
}

// blockStatements makes whatever changes something wait at the server, so that what a mint sends is caught in flight.
func blockStatements(t *testing.T) (release func()) {
	t.Helper()
	conn, err := server.Root.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "FLUSH TABLES WITH READ LOCK"); err != nil {
		t.Fatal(err)
	}
	released := false
	release = func() {
		if !released {
			released = true
			_, _ = conn.ExecContext(context.Background(), "UNLOCK TABLES")
			_ = conn.Close()
		}
	}
	t.Cleanup(release)
	return release
}

// A mint that nobody waits for any more goes on at the server. Its revocation ends it there first; else it would make
// the account after the receipt said that there is none.
func TestStatementInFlightMakesNothingAfterTheReceipt(t *testing.T) {
	b := newBroker(t)
	release := blockStatements(t)
	o := order(t, "read")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := b.Mint(ctx, o); !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("a mint without an answer: %v, want ErrUncertain", err)
	}
	r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{}))
	if err != nil || r.State != brokers.Dead {
		t.Errorf("got %+v, %v", r, err)
	}
	release()
	// What was behind the lock is done before this statement, which needs the same lock.
	server.Exec(t, "CREATE USER 'behind'@'%' ACCOUNT LOCK", "DROP USER 'behind'@'%'")
	if n := ours(t); n != 0 {
		t.Errorf("%d things came to be after the receipt", n)
	}
}

// MariaDB makes an account out of a GRANT to nobody, with no password, unless the session's mode forbids it.
func TestLateGrantMakesNoAccount(t *testing.T) {
	var before string
	if err := server.Root.QueryRow("SELECT @@GLOBAL.sql_mode").Scan(&before); err != nil {
		t.Fatal(err)
	}
	defer server.Exec(t, "SET GLOBAL sql_mode = '"+before+"'")
	server.Exec(t, "SET GLOBAL sql_mode = ''")
	c, err := driver.ParseDSN(server.RootDSN)
	if err != nil {
		t.Fatal(err)
	}
	c.User, c.Passwd, c.Net, c.Addr, c.TLS = "sallyport", adminPassword, "tcp", server.Address(), nil
	c.TLSConfig = "skip-verify"
	naive, err := sql.Open("mysql", c.FormatDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer naive.Close()
	if _, err := naive.Exec("GRANT orders_ro TO 'late'@'%'"); err != nil {
		t.Fatalf("the trap is gone: %v", err)
	}
	if _, err := naive.Exec("DROP USER 'late'@'%'"); err != nil {
		t.Fatal(err)
	}

	// The same from the broker's own connections: the account is dropped between the first and the second statement.
	b := newBroker(t)
	o := order(t, "read")
	name := o.Name()
	server.Exec(t, `CREATE OR REPLACE PROCEDURE orders.vanish() BEGIN REPEAT SET @n = 1; UNTIL EXISTS (SELECT * FROM mysql.user WHERE User = '`+name+`') END REPEAT; DROP USER '`+name+`'@'%'; END`)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // until it is dropped before the GRANT
		done := make(chan error, 1)
		go func() { _, err := server.Root.Exec("CALL orders.vanish()"); done <- err }()
		_, err := b.Mint(t.Context(), o)
		if vanish := <-done; vanish != nil {
			t.Fatal(vanish)
		}
		if n := ours(t); n != 0 {
			t.Fatalf("a late GRANT left %d things", n)
		}
		if err != nil && strings.Contains(err.Error(), "error 1133") {
			if !errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, brokers.ErrUncertain) {
				t.Errorf("a GRANT to nobody: %v, want ErrUnavailable", err)
			}
			return
		}
	}
	t.Error("within a minute the account was never dropped in time; nothing was seen")
}

// Each right of the sample is needed: without it nothing is made, nothing is left, and the error says what to do.
func TestRightsOfTheSampleAreAllNeeded(t *testing.T) {
	for _, tc := range []struct {
		right  string
		revoke bool // it is the revocation that needs it
	}{
		{"CREATE USER ON *.*", false},
		{"PROCESS ON *.*", false},
		{"CONNECTION ADMIN ON *.*", true},
		{"SELECT (User, Host, is_role) ON mysql.user", true},
		{"UPDATE ON mysql.*", false},
		{"ADMIN OPTION FOR orders_ro", false},
	} {
		t.Run(tc.right, func(t *testing.T) {
			o := order(t, "read")
			if tc.revoke {
				l := mint(t, newBroker(t), o)
				if _, err := l.open(t).Conn(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			back := "GRANT " + tc.right + " TO 'sallyport'@'%'"
			if role, ok := strings.CutPrefix(tc.right, "ADMIN OPTION FOR "); ok {
				back = "GRANT " + role + " TO 'sallyport'@'%' WITH ADMIN OPTION"
			}
			server.Exec(t, "REVOKE "+tc.right+" FROM 'sallyport'@'%'")
			defer server.Exec(t, back)
			b := newBroker(t)
			var err error
			if tc.revoke {
				_, err = b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{}))
			} else {
				_, err = b.Mint(t.Context(), o)
			}
			if err == nil || !errors.Is(err, brokers.ErrMisconfigured) {
				t.Fatalf("got %v, want ErrMisconfigured", err)
			}
			if !strings.Contains(err.Error(), "docs/brokers/mysql.md") && !strings.Contains(err.Error(), "WITH ADMIN OPTION") {
				t.Errorf("%v does not say what to do", err)
			}
			if !tc.revoke && accounts(t) != 0 {
				t.Errorf("a mint that was refused left something")
			}
		})
	}
}

func TestRoleThatIsNotThereIsToldAndLeavesNothing(t *testing.T) {
	b := build(t, dsn(server.Address()), settings(), map[string]any{"read": &mysql.Scope{Roles: []string{"orders_ro", "no_such_role"}}})
	if _, err := b.Mint(t.Context(), order(t, "read")); !errors.Is(err, brokers.ErrMisconfigured) || errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("got %v, want ErrMisconfigured", err)
	}
	if n := ours(t); n != 0 {
		t.Errorf("%d things are left", n)
	}
}

// hostile is what an attacker writes wherever a string of theirs could reach a statement.
var hostile = []string{
	"'", "''", `\`, `\'`, `"`, "`", "x' OR '1'='1", "x'@'%'; DROP USER 'sallyport'@'%'; --", "x`; GRANT ALL ON *.* TO 'x'@'%'; --", "x\x00y", "x\ny", "%", "_", "sts_%",
	"root", "root'@'localhost", "sallyport", "mariadb.sys", "x /*!50000 OR 1 */", "x#", "x -- ", "\u02bcx", "x\u2019; --", "\xbf\x27 OR 1=1", strings.Repeat("a", 300), "${name}", "{{name}}", "current_user", "PUBLIC",
}

// Claims, leases, names of targets: nothing of them is in a statement but the generated name.
func TestNothingThatACallerSaysReachesAStatement(t *testing.T) {
	before, mark := everything(t), len(logs(t))
	var wrote []string
	for i, h := range hostile {
		s := settings()
		tg := targetOf(dsn(server.Address()))
		tg.Name = h
		made, err := mysql.Kind().Build(tg, s, scopes(), brokers.Deps{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		b := made.(*mysql.Broker)
		defer b.Close()
		subject := "app"
		if regexp.MustCompile(`^[A-Za-z0-9._-]{1,60}$`).MatchString(h) { // others name no workload
			subject = h
		}
		o := brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
			Target: policy.Target{Name: "orders-mysql", Scopes: []string{"read"}}, Scopes: []string{"read"}, Subject: subject, Lifetime: time.Minute,
			Lease: brokers.Lease{ID: h, Family: h, Ancestors: []string{h}, Actors: []string{h}, Position: h},
		}).WithInput(map[string]string{h: h}).WithForm(h)
		c, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if l := loginOf(t, c); l.User != o.Name() {
			t.Errorf("%d: the account is called %q", i, l.User)
		}
		if r, err := b.Revoke(t.Context(), brokers.Handle{Lease: h, Name: o.Name(), Data: secret.New(h)}); err != nil || r.Gone {
			t.Errorf("%d: %+v, %v", i, r, err)
		}
		wrote = append(wrote, o.Name())
		// A name that no lease has is not touched, whoever asks for it.
		for _, name := range []string{h, o.Name() + h, h + o.Name()} {
			if r, err := b.Revoke(t.Context(), brokers.Handle{Name: name}); err == nil {
				t.Errorf("%q was revoked: %+v", name, r)
			}
		}
	}
	if len(wrote) != len(hostile) {
		t.Errorf("%d of %d were tried", len(wrote), len(hostile))
	}
	if after := everything(t); after != before {
		t.Errorf("accounts and rights were\n%s\nand are\n%s", before, after)
	}
	written := logs(t)[mark:]
	for _, h := range hostile {
		if len(h) > 12 && strings.Contains(written, h) {
			t.Errorf("%q reached the server", h)
		}
	}
}

// everything is who may do what at the server.
func everything(t *testing.T) string {
	t.Helper()
	rows, err := server.Root.Query("SELECT CONCAT_WS(' ', Host, User, Priv) FROM mysql.global_priv UNION ALL SELECT CONCAT_WS(' ', Host, User, Role, Admin_option) FROM mysql.roles_mapping ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all.WriteString(s + "\n")
	}
	return all.String()
}

// An account of a lease's name at a host that would end its quotes, and drop somebody else's: it is left alone and told,
// and does not keep others alive.
func TestAccountAtAHostileHostIsLeftAloneAndTold(t *testing.T) {
	server.Exec(t, "CREATE USER 'victim'@'%'")
	defer server.Exec(t, "DROP USER 'victim'@'%'")
	for _, host := range []string{"x'',''victim", `x\\`, `x\'"y`} { // as SQL strings
		b := newBroker(t)
		var hs []brokers.Handle
		for range 3 {
			o := order(t, "read")
			mint(t, b, o)
			hs = append(hs, brokertest.HandleOf(o, secret.Value{}))
		}
		evil := "'" + hs[1].Name + "'@'" + host + "'"
		server.Exec(t, "CREATE USER "+evil)
		results := b.RevokeAll(t.Context(), hs)
		var open int
		if err := server.Root.QueryRow(`SELECT COUNT(*) FROM mysql.global_priv WHERE User = 'victim' AND Priv NOT LIKE '%"account_locked":true%'`).Scan(&open); err != nil || open != 1 {
			t.Errorf("host %s: the victim was touched (%v)", host, err)
		}
		server.Exec(t, "DROP USER "+evil)
		for i, r := range results {
			if (r.Err == nil) != (i != 1) {
				t.Errorf("host %s: result %d: %+v", host, i, r)
			}
		}
	}
}

func TestErrorsHoldNoSecretAndNoStatement(t *testing.T) {
	const wrong = "wrong-8fQz"
	server.Exec(t, "CREATE USER 'poor'@'%' IDENTIFIED BY 'poor-8fQz' REQUIRE SSL")
	defer server.Exec(t, "DROP USER 'poor'@'%'")
	address := server.Address()
	for _, dsn := range []string{
		"sallyport:" + wrong + "@tcp(" + address + ")/?tls=true",
		"poor:poor-8fQz@tcp(" + address + ")/?tls=true",
		"sallyport:" + adminPassword + "@tcp(127.0.0.1:1)/?tls=true",
		"sallyport:" + adminPassword + "@tcp(" + address + ")/nosuch?tls=true",
		"sallyport:" + adminPassword + "@tcp(" + address + ")/?tls=false",
	} {
		b := build(t, dsn, settings(), scopes())
		_, err := b.Mint(t.Context(), order(t, "read"))
		if err == nil {
			t.Errorf("%s works", dsn)
			continue
		}
		for _, s := range []string{wrong, "8fQz", adminPassword, "CREATE", "SELECT", "sts_"} {
			if strings.Contains(err.Error(), s) {
				t.Errorf("%q holds %q", err, s)
			}
		}
	}
	// A server with a certificate of somebody else's.
	s := settings()
	s.CAFile = ""
	if _, err := build(t, dsn(address), s, scopes()).Mint(t.Context(), order(t, "read")); !errors.Is(err, brokers.ErrUnavailable) || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}
