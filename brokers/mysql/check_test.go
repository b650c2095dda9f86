package mysql_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
)

func TestUnsafeSettingsAreRefused(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(garbage, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	const password = "p4ss-word"
	remote := "sallyport:" + password + "@tcp(db.example:3306)/?tls=true"
	for _, tc := range []struct {
		name   string
		dsn    string
		change func(*mysql.Settings)
		scopes map[string]any
		path   string // "" for accepted
		text   string
	}{
		{name: "verified TLS", dsn: remote},
		{name: "loopback", dsn: "sallyport:" + password + "@tcp(127.0.0.1:3306)/"},
		{name: "loopback, IPv6", dsn: "sallyport:" + password + "@tcp([::1]:3306)/?tls=false"},
		{name: "socket", dsn: "sallyport:" + password + "@unix(/run/mysqld/mysqld.sock)/"},
		{name: "socket without password", dsn: "sallyport@unix(/run/mysqld/mysqld.sock)/"},
		{name: "a password with everything in it", dsn: "sallyport:p/4?ss@:w&ord=1@tcp(db.example:3306)/?tls=true"},
		{name: "cleartext plugin over TLS", dsn: remote + "&allowCleartextPasswords=true"},
		{name: "plain, by their word", dsn: "sallyport:" + password + "@tcp(db.example:3306)/", change: func(s *mysql.Settings) { s.AllowPlaintext = true }},
		{name: "plain", dsn: "sallyport:" + password + "@tcp(db.example:3306)/", path: "dsn", text: "allow_plaintext"},
		{name: "plain by tls=false", dsn: "sallyport:" + password + "@tcp(10.0.0.7:3306)/?tls=false", path: "dsn", text: "allow_plaintext"},
		{name: "any certificate", dsn: "sallyport:" + password + "@tcp(db.example:3306)/?tls=skip-verify", path: "dsn", text: "believes any server"},
		{name: "TLS if they like", dsn: "sallyport:" + password + "@tcp(db.example:3306)/?tls=preferred", path: "dsn", text: "believes any server"},
		{name: "any certificate, on loopback too", dsn: "sallyport:" + password + "@tcp(127.0.0.1:3306)/?tls=skip-verify", path: "dsn", text: "believes any server"},
		{name: "a TLS configuration by name", dsn: "sallyport:" + password + "@tcp(db.example:3306)/?tls=own", path: "dsn", text: "believes any server"},
		{name: "password in the clear", dsn: "sallyport:" + password + "@tcp(127.0.0.1:3306)/?allowCleartextPasswords=true", path: "dsn", text: "without TLS"},
		{name: "several statements", dsn: remote + "&multiStatements=true", path: "dsn", text: "parameter"},
		{name: "a session variable", dsn: remote + "&sql_mode=ANSI_QUOTES", path: "dsn", text: "parameter"},
		{name: "fallback", dsn: remote + "&allowFallbackToPlaintext=true", path: "dsn", text: "parameter"},
		{name: "files", dsn: remote + "&allowAllFiles=true", path: "dsn", text: "parameter"},
		{name: "no user", dsn: "tcp(db.example:3306)/?tls=true", path: "dsn", text: "USER:PASSWORD"},
		{name: "another network", dsn: "sallyport:" + password + "@own(db.example:3306)/", path: "dsn", text: "USER:PASSWORD"},
		{name: "a URL", dsn: "mysql://sallyport:" + password + "@db.example/", path: "dsn", text: "USER:PASSWORD"},
		{name: "nothing", dsn: "", path: "dsn"},
		{name: "no authority", dsn: remote, change: func(s *mysql.Settings) { s.CAFile = "/nowhere/ca.pem" }, path: "ca_file", text: "no such file"},
		{name: "garbage for an authority", dsn: remote, change: func(s *mysql.Settings) { s.CAFile = garbage }, path: "ca_file", text: "no PEM"},
		{name: "host with port", dsn: remote, change: func(s *mysql.Settings) { s.Host = "db.example:3306/x" }, path: "host", text: "db.example:3306/x"},
		{name: "host with a quote", dsn: remote, change: func(s *mysql.Settings) { s.Host = "db'" }, path: "host"},
		{name: "port", dsn: remote, change: func(s *mysql.Settings) { s.Port = 70000 }, path: "port", text: "70000"},
		{name: "database", dsn: remote, change: func(s *mysql.Settings) { s.Database = "a;b" }, path: "database"},
		{name: "authority at the workload", dsn: remote, change: func(s *mysql.Settings) { s.SSLCA = "/etc/ssl/orders.pem" }},
		{name: "authority with a line break", dsn: remote, change: func(s *mysql.Settings) { s.SSLCA = "/etc/ssl/orders.pem\npassword=x" }, path: "ssl_ca"},
		{name: "from with a quote", dsn: remote, change: func(s *mysql.Settings) { s.From = "%'" }, path: "from"},
		{name: "from with a backslash", dsn: remote, change: func(s *mysql.Settings) { s.From = `%\` }, path: "from"},
		{name: "connections", dsn: remote, change: func(s *mysql.Settings) { s.MaxConnections = 100000 }, path: "max_connections"},
		{name: "tls word", dsn: remote, change: func(s *mysql.Settings) { s.TLS = "off" }, path: "tls", text: "off"},
		{name: "workloads in the clear", dsn: remote, change: func(s *mysql.Settings) { s.TLS = "optional" }, path: "tls", text: "in the clear"},
		{name: "workloads in the clear, on this machine", dsn: remote, change: func(s *mysql.Settings) { s.TLS, s.Host = "optional", "localhost" }},
		{name: "workloads in the clear, by their word", dsn: remote, change: func(s *mysql.Settings) { s.TLS, s.AllowPlaintext = "optional", true }},
		{name: "no scopes", dsn: remote, scopes: map[string]any{}, path: "scopes.", text: "no scopes"},
		{name: "no roles", dsn: remote, scopes: map[string]any{"read": &mysql.Scope{}}, path: "scopes.read.roles"},
	} {
		s := &mysql.Settings{Host: "db.example"}
		if tc.change != nil {
			tc.change(s)
		}
		if tc.scopes == nil {
			tc.scopes = scopes()
		}
		problems := mysql.Kind().Check(targetOf(tc.dsn), s, tc.scopes)
		switch {
		case tc.path == "" && len(problems) > 0:
			t.Errorf("%s: refused: %v", tc.name, problems)
		case tc.path != "" && (len(problems) != 1 || problems[0].Path != tc.path || !strings.Contains(problems[0].Message, tc.text)):
			t.Errorf("%s: got %v, want one problem at %s with %q", tc.name, problems, tc.path, tc.text)
		}
		for _, p := range problems {
			if strings.Contains(p.Message, password) {
				t.Errorf("%s: the message repeats the password: %s", tc.name, p.Message)
			}
		}
	}
}

func TestRolesThatCouldBeSomethingElseAreRefused(t *testing.T) {
	t.Parallel()
	for _, role := range append([]string{
		"", "a b", "a`b", "a'b", "a@b", "a.b", "1a", "_a", "a;b", "NONE", "none", "All", "DEFAULT", "public", "CURRENT_USER", "current_role",
		strings.Repeat("a", 33), "sts_tlpxaw_abcdefghijklmnop", "rôle", "a\n",
	}, hostile...) {
		if plain := map[string]bool{"root": true, "sallyport": true, "name": true}[role]; plain {
			continue // an account is no role, and the server says so
		}
		s := map[string]any{"read": &mysql.Scope{Roles: []string{role}}}
		if problems := mysql.Kind().Check(targetOf(dsn(server.Address())), settings(), s); len(problems) != 1 || problems[0].Path != "scopes.read.roles" {
			t.Errorf("role %q: got %v, want one problem", role, problems)
		}
		if b, err := mysql.Kind().Build(targetOf(dsn(server.Address())), settings(), s, brokers.Deps{Now: time.Now}); err == nil {
			t.Errorf("role %q: built %v", role, b)
		}
	}
}
