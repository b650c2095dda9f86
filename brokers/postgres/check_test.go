package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const hidden = "h1dden-pa55word"

func problems(t testing.TB, dsn string, s postgres.Settings, scopes map[string]any) []brokers.Problem {
	t.Helper()
	if s.DSN.IsZero() {
		s.DSN = secret.Ref{File: "dsn"}
	}
	return postgres.Kind().Check(brokers.Target{Name: "orders-db", Secret: func(secret.Ref) (secret.Value, error) {
		if dsn == "" {
			return secret.Value{}, errors.New("no such file")
		}
		return secret.New(dsn), nil
	}}, &s, scopes)
}

func TestDSNIsVerifiedTLSOrNearby(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		dsn   string
		plain bool // allow_plaintext
		loads bool
	}{
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full", false, true},
		{"host=db.example user=a password=" + hidden + " dbname=orders sslmode=verify-full", false, true},
		{"postgres://a:" + hidden + "@10.0.0.1,10.0.0.2/orders?sslmode=verify-full", false, true},
		{"postgres://a:" + hidden + "@127.0.0.1/orders?sslmode=disable", false, true},
		{"postgres://a:" + hidden + "@[::1]/orders?sslmode=disable", false, true},
		{"postgres://a:" + hidden + "@localhost/orders?sslmode=disable", false, true},
		{"host=/run/postgresql user=a dbname=orders", false, true},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=disable", true, true},

		{"postgres://a:" + hidden + "@db.example/orders?sslmode=disable", false, false},
		{"postgres://a:" + hidden + "@127.0.0.1.example/orders?sslmode=disable", false, false},
		{"postgres://a:" + hidden + "@127.0.0.1,db.example/orders?sslmode=disable", false, false},
		{"postgres://a:" + hidden + "@db.example/orders", false, false},
		{"postgres://a:" + hidden + "@db.example/orders", true, false},
		{"postgres://a:" + hidden + "@127.0.0.1/orders", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=prefer", true, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=allow", true, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=require", true, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-ca", false, false},
		{"postgres://a:" + hidden + "@127.0.0.1/orders?sslmode=require", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=" + hidden, false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&sslmode=disable", false, false},

		{"postgres://a:" + hidden + "@db.example?sslmode=verify-full", false, false}, // no database
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&options=-csearch_path%3Dx", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&service=x", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&passfile=/etc/passwd", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&target_session_attrs=standby", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&default_query_exec_mode=simple_protocol", false, false},
		{"postgres://a:" + hidden + "@db.example/orders?sslmode=verify-full&sslrootcert=/nowhere", false, false},
		{"postgres://a:" + hidden + ":" + hidden + "/orders@db.example?sslmode=verify-full", false, false},
		{hidden, false, false},
		{"", false, false},
	} {
		got := problems(t, tc.dsn, postgres.Settings{AllowPlaintext: tc.plain, Host: "db.example", Port: 5432}, scopes)
		if (len(got) == 0) != tc.loads || len(got) > 1 || len(got) == 1 && got[0].Path != "dsn" {
			t.Errorf("%q with allow_plaintext %v: %v, want it to load: %v", tc.dsn, tc.plain, got, tc.loads)
		}
		for _, p := range got {
			if strings.Contains(p.Message, hidden) || strings.Contains(p.Message, "db.example") {
				t.Errorf("the message repeats the dsn: %s", p.Message)
			}
		}
	}
}

func TestSettingsThatAreUnsafeDoNotLoad(t *testing.T) {
	t.Parallel()
	const remote, nearby = "postgres://a:x@db.example/orders?sslmode=verify-full", "postgres://a:x@127.0.0.1/orders?sslmode=disable"
	long := strings.Repeat("r", 64)
	for _, tc := range []struct {
		path   string // where the problem is, "" for none
		says   string
		dsn    string
		s      postgres.Settings
		scopes map[string]any
	}{
		{"", "", remote, postgres.Settings{}, nil},
		{"", "", nearby, postgres.Settings{SSLMode: "disable"}, nil},
		{"", "", remote, postgres.Settings{SSLMode: "disable", Host: "/run/postgresql"}, nil},
		{"", "", remote, postgres.Settings{SSLMode: "verify-full", Host: "db", Port: 6432, Database: "o", SSLRootCert: "system", Owner: "orders_rw", ConnectionLimit: 1000, MaxConnections: 32}, nil},
		{"", "", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{`odd "role"; --`, strings.Repeat("é", 31), "pg_read_all_data"}}}},

		{"sslmode", "clear", remote, postgres.Settings{SSLMode: "disable"}, nil},
		{"sslmode", "clear", nearby, postgres.Settings{SSLMode: "disable", Host: "db.example"}, nil},
		{"sslmode", "neither", remote, postgres.Settings{SSLMode: "prefer"}, nil},
		{"sslmode", "neither", nearby, postgres.Settings{SSLMode: "require"}, nil},
		{"host", "several", "postgres://a:x@one,two/orders?sslmode=verify-full", postgres.Settings{}, nil},
		{"host", "no host", remote, postgres.Settings{Host: "a\nb"}, nil},
		{"host", "no host", remote, postgres.Settings{Host: "a,b"}, nil},
		{"sslrootcert", "no path", remote, postgres.Settings{SSLRootCert: "a\x00b"}, nil},
		{"database", "64 bytes", remote, postgres.Settings{Database: long}, nil},
		{"database", "NUL", remote, postgres.Settings{Database: "a\x00b"}, nil},
		{"database", "connection string", remote, postgres.Settings{Database: "host=elsewhere"}, nil},
		{"database", "connection string", remote, postgres.Settings{Database: "postgres://elsewhere"}, nil},
		{"port", "1 to 65535", remote, postgres.Settings{Port: 65536}, nil},
		{"port", "1 to 65535", remote, postgres.Settings{Port: -1}, nil},
		{"connection_limit", "1 to 1000", remote, postgres.Settings{ConnectionLimit: -1}, nil},
		{"max_connections", "1 to 32", remote, postgres.Settings{MaxConnections: 33}, nil},
		{"owner", "no role of any scope", remote, postgres.Settings{Owner: "orders_owner"}, nil},
		{"scopes.", "no scopes", remote, postgres.Settings{}, map[string]any{}},
		{"scopes.read", "no roles", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{}}},
		{"scopes.read", "empty", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{""}}}},
		{"scopes.read", "twice", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"a", "b", "a"}}}},
		{"scopes.read", "64 bytes", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{long}}}},
		{"scopes.read", "64 bytes", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{strings.Repeat("é", 32)}}}},
		{"scopes.read", "NUL", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"a\x00b"}}}},
		{"scopes.read", "UTF-8", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"a\xffb"}}}},
		{"scopes.read", "keeps for itself", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"public"}}}},
		{"scopes.read", "keeps for itself", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"none"}}}},
		{"scopes.read", "as the server", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"pg_execute_server_program"}}}},
		{"scopes.read", "form of a role", remote, postgres.Settings{}, map[string]any{"read": &postgres.Scope{Roles: []string{"sts_tlpxaw_abcdefghijklmnop"}}}},
	} {
		if tc.scopes == nil {
			tc.scopes = scopes
		}
		got := problems(t, tc.dsn, tc.s, tc.scopes)
		if tc.path == "" {
			if len(got) > 0 {
				t.Errorf("%+v %v: %v, want it to load", tc.s, tc.scopes, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Path != tc.path || !strings.Contains(got[0].Message, tc.says) {
			t.Errorf("%+v: %v, want one problem at %s that says %q", tc.s, got, tc.path, tc.says)
		}
	}
	if got := postgres.Kind().Check(brokers.Target{}, &postgres.Settings{}, scopes); len(got) != 1 || got[0].Path != "dsn" {
		t.Errorf("no dsn: %v", got)
	}
}
