package databases

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
)

const postgresTarget = `target: db
broker: postgres
max_lifetime: 15m
scopes: {read: {roles: [orders_ro]}, write: {roles: [orders_rw]}}
postgres: {dsn: {file: secrets/dsn}, sslmode: verify-full, sslrootcert: %q}
`

// A login of PostgreSQL by -o env, over TLS that the client verifies, with the sample's rights for Sallyport.
func TestPostgreSQLLoginFromTokenToNothing(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t)
	s.Exec(t, postgrestest.Superuser, "CREATE DATABASE orders")
	s.Exec(t, "orders", "CREATE TABLE list (id int)", "INSERT INTO list VALUES (1), (2), (3)")
	grants := exec.Command("psql", "-X", "-q", "-d", s.DSN("orders"), "-v", "database=orders", "-v", "password="+adminPassword, "-f", filepath.Join("..", "..", "deploy", "postgres", "grants.sql"))
	if out, err := grants.CombinedOutput(); err != nil {
		t.Fatalf("grants.sql: %v\n%s", err, out)
	}
	root := s.Connect(t, s.DSN("orders"))
	quiet := []string{"-X", "-q", "-tA", "-v", "VERBOSITY=verbose"}
	u := upstream{
		target: fmt.Sprintf(postgresTarget, s.CAFile()),
		files: map[string]string{"secrets/dsn": fmt.Sprintf("host=%s port=%d user=sallyport password=%s dbname=orders sslmode=verify-full sslrootcert=%s",
			s.Host(), s.Port(), adminPassword, s.CAFile())},
		form: "env",
		client: func(file string) *exec.Cmd {
			return exec.Command("sh", append([]string{"-c", `. "$0" && exec psql "$@"`, file}, quiet...)...)
		},
		parts: func(l login) *exec.Cmd {
			cmd := exec.Command("psql", append(quiet, "-d", fmt.Sprintf("host=%s port=%d user=%s dbname=orders sslmode=verify-full sslrootcert=%s", l.Host, l.Port, l.User, s.CAFile()))...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=" + l.Password}
			return cmd
		},
		query:  "SELECT count(*) FROM list;",
		answer: "3",
		denied: map[string]string{
			"INSERT INTO list VALUES (4);":       "ERROR:  42501",
			"SELECT rolpassword FROM pg_authid;": "ERROR:  42501",
			"CREATE ROLE x;":                     "ERROR:  42501",
			"SET ROLE orders_rw;":                "ERROR:  42501",
		},
		locked: "password authentication failed",
		left: func(t *testing.T) []string {
			rows, err := root.Query(t.Context(), `SELECT 'role ' || rolname || ' ' FROM pg_roles WHERE rolname LIKE 'sts\_%'
				UNION SELECT 'session of ' || usename || ' ' FROM pg_stat_activity WHERE usename LIKE 'sts\_%'`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var out []string
			for rows.Next() {
				var what string
				if err := rows.Scan(&what); err != nil {
					t.Fatal(err)
				}
				out = append(out, what)
			}
			return out
		},
	}
	u.tell(t)
	// The same by a service file.
	u.form = "pgservice"
	u.client = func(file string) *exec.Cmd {
		cmd := exec.Command("psql", quiet...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGSERVICEFILE=" + file, "PGSERVICE=sallyport"}
		return cmd
	}
	u.tell(t)
}
