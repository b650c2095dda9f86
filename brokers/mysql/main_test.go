package mysql_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/brokers/mysql/mariadbtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// adminPassword is that of the account which deploy/mysql/mariadb.sql makes.
const adminPassword = "admin-4kZ0pQ"

// server is the one MariaDB of this package. Tests that look at every account are not parallel.
var server *mariadbtest.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if server, err = mariadbtest.Run(); err == nil {
			defer server.Close()
			err = furnish()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// furnish makes what the scopes of the tests mean, and the admin as the deployment's sample does.
func furnish() error {
	sample, err := os.ReadFile("../../deploy/mysql/mariadb.sql")
	if err != nil {
		return err
	}
	statements := []string{
		"CREATE DATABASE orders", "CREATE TABLE orders.list (id INT)", "INSERT INTO orders.list VALUES (1), (2), (3)",
		"CREATE DATABASE stock", "CREATE TABLE stock.list (id INT)", "INSERT INTO stock.list VALUES (1)",
	}
	statements = append(statements, sqlOf(strings.Replace(string(sample), "CHANGE-ME", adminPassword, 1))...)
	statements = append(statements, "CREATE ROLE stock_ro", "GRANT SELECT ON stock.* TO stock_ro", "GRANT stock_ro TO 'sallyport'@'%' WITH ADMIN OPTION")
	for _, s := range statements {
		if _, err := server.Root.Exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// sqlOf splits a script at its semicolons, which stand in no string of it.
func sqlOf(script string) []string {
	var out []string
	script = regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(script, "")
	for s := range strings.SplitSeq(script, ";") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

var target = policy.Target{Name: "orders-mysql", Scopes: []string{"read", "write"}}

func scopes() map[string]any {
	return map[string]any{"read": &mysql.Scope{Roles: []string{"orders_ro"}}, "write": &mysql.Scope{Roles: []string{"orders_rw"}}}
}

func dsn(address string) string {
	return "sallyport:" + adminPassword + "@tcp(" + address + ")/?tls=true"
}

func settings() *mysql.Settings {
	return &mysql.Settings{DSN: secret.Ref{Env: "DSN"}, Host: server.Host, Port: server.Port, Database: "orders", CAFile: server.CAFile, SSLCA: server.CAFile}
}

// targetOf is the target with a DSN.
func targetOf(dsn string) brokers.Target {
	return brokers.Target{
		Name: target.Name, Scopes: target.Scopes, MaxLifetime: 15 * time.Minute,
		Secret: func(secret.Ref) (secret.Value, error) { return secret.New(dsn), nil },
		Path:   func(p string) string { return p },
	}
}

func build(t testing.TB, dsn string, s *mysql.Settings, scopes map[string]any) *mysql.Broker {
	t.Helper()
	if problems := mysql.Kind().Check(targetOf(dsn), s, scopes); len(problems) > 0 {
		t.Fatalf("the settings do not load: %v", problems)
	}
	b, err := mysql.Kind().Build(targetOf(dsn), s, scopes, brokers.Deps{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	out := b.(*mysql.Broker)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// newBroker is the broker of most tests.
func newBroker(t testing.TB) *mysql.Broker {
	return build(t, dsn(server.Address()), settings(), scopes())
}

func order(t testing.TB, scopes ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
		Target: target, Scopes: scopes, Lifetime: 10 * time.Minute, Lease: brokers.Lease{ID: brokertest.NewID()},
	})
}

// mint mints, and revokes when the test ends.
func mint(t testing.TB, b *mysql.Broker, o brokers.Order) login {
	t.Helper()
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatalf("minting: %v", err)
	}
	t.Cleanup(func() {
		if _, err := b.Revoke(context.Background(), brokertest.HandleOf(o, secret.Value{})); err != nil {
			t.Errorf("revoking: %v", err)
		}
	})
	return loginOf(t, c)
}

// login is the credential as a workload reads it.
type login struct {
	Type       string    `json:"type"`
	Version    int       `json:"version"`
	Host       string    `json:"host"`
	Port       int       `json:"port"`
	Database   string    `json:"database"`
	User       string    `json:"user"`
	Password   string    `json:"password"`
	SSLMode    string    `json:"ssl_mode"`
	SSLCA      string    `json:"ssl_ca"`
	Expiration time.Time `json:"expiration"`
}

func loginOf(t testing.TB, c brokers.Credential) login {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(c.Value.Reveal()))
	d.DisallowUnknownFields()
	var l login
	if err := d.Decode(&l); err != nil {
		t.Fatalf("the credential is not what its schema says: %v", err)
	}
	return l
}

// client runs statements with the vendor's client.
func (l login) client(t testing.TB, statement string, more ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "my.cnf")
	text := fmt.Sprintf("[client]\nuser=%s\npassword=%s\nhost=%s\nport=%d\nprotocol=tcp\n", l.User, l.Password, l.Host, l.Port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if more == nil {
		more = []string{"--ssl-ca=" + server.CAFile, "--ssl-verify-server-cert"}
	}
	cmd := exec.CommandContext(t.Context(), "mariadb", append(append([]string{"--defaults-file=" + file, "--batch", "--skip-column-names"}, more...), "-e", statement)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// refused reports whether the server let somebody in at all.
func refused(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "ERROR 1045") || strings.Contains(err.Error(), "ERROR 4151"))
}

// open opens a pool of one session, as a Go workload does.
func (l login) open(t testing.TB) *sql.DB {
	t.Helper()
	pem, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = l.User, l.Password, "tcp", net.JoinHostPort(l.Host, fmt.Sprint(l.Port)), l.Database
	c.TLS = &tls.Config{RootCAs: roots, ServerName: l.Host}
	c.Logger = &driver.NopLogger{}
	connector, err := driver.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// ours counts the accounts, roles and sessions of leases.
func ours(t testing.TB) int {
	t.Helper()
	var n int
	err := server.Root.QueryRow(`SELECT (SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'sts|_%' ESCAPE '|')
		+ (SELECT COUNT(*) FROM mysql.roles_mapping WHERE Role LIKE 'sts|_%' ESCAPE '|' OR User LIKE 'sts|_%' ESCAPE '|')
		+ (SELECT COUNT(*) FROM information_schema.processlist WHERE User LIKE 'sts|_%' ESCAPE '|')`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// accounts counts the accounts of leases.
func accounts(t testing.TB) int {
	t.Helper()
	var n int
	if err := server.Root.QueryRow("SELECT COUNT(*) FROM mysql.user WHERE User LIKE 'sts|_%' ESCAPE '|' AND is_role = 'N'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for what another process does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s", what)
		}
	}
}
