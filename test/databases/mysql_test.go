package databases

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/mysql/mariadbtest"
)

const mysqlTarget = `target: db
broker: mysql
max_lifetime: 15m
scopes: {read: {roles: [orders_ro]}, write: {roles: [orders_rw]}}
mysql: {dsn: {file: secrets/dsn}, host: %q, port: %d, database: orders, ca_file: %q, ssl_ca: %q}
`

// A login of MariaDB by -o mysql, over TLS that the client verifies, with the sample's rights for Sallyport.
func TestMariaDBLoginFromTokenToNothing(t *testing.T) {
	t.Parallel()
	s := mariadbtest.Start(t)
	sample, err := os.ReadFile(filepath.Join("..", "..", "deploy", "mysql", "mariadb.sql"))
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "CREATE DATABASE orders", "CREATE TABLE orders.list (id INT)", "INSERT INTO orders.list VALUES (1), (2), (3)")
	script := regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(strings.Replace(string(sample), "CHANGE-ME", adminPassword, 1), "")
	for statement := range strings.SplitSeq(strings.TrimSpace(script), ";") { // which stands in no string of it
		if statement = strings.TrimSpace(statement); statement != "" {
			s.Exec(t, statement)
		}
	}
	quiet := []string{"--batch", "--skip-column-names", "--unbuffered"}
	upstream{
		target: fmt.Sprintf(mysqlTarget, s.Host, s.Port, s.CAFile, s.CAFile),
		files:  map[string]string{"secrets/dsn": "sallyport:" + adminPassword + "@tcp(" + s.Address() + ")/?tls=true"},
		form:   "mysql",
		client: func(file string) *exec.Cmd {
			return exec.Command("mariadb", append([]string{"--defaults-extra-file=" + file}, quiet...)...)
		},
		parts: func(l login) *exec.Cmd {
			cmd := exec.Command("mariadb", append([]string{"--no-defaults", "--host=" + l.Host, fmt.Sprintf("--port=%d", l.Port), "--protocol=tcp", "--user=" + l.User, "--ssl-ca=" + s.CAFile, "--ssl-verify-server-cert"}, quiet...)...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MYSQL_PWD=" + l.Password}
			return cmd
		},
		noise:  "Warning: mariadb: unknown variable 'loose-ssl-mode", // MySQL's client knows it
		query:  "SELECT COUNT(*) FROM orders.list;",
		answer: "3",
		denied: map[string]string{
			"INSERT INTO orders.list VALUES (4);": "ERROR 1142",
			"SELECT User FROM mysql.user;":        "ERROR 1142",
			"CREATE USER x;":                      "ERROR 1227",
			"SET ROLE orders_rw;":                 "ERROR 1959",
		},
		locked: "ERROR 1045",
		left: func(t *testing.T) []string {
			var out []string
			rows, err := s.Root.QueryContext(t.Context(), `SELECT CONCAT('account ', User, ' ') FROM mysql.user WHERE User LIKE 'sts|_%' ESCAPE '|'
				UNION SELECT CONCAT('role ', Role, ' of ', User, ' ') FROM mysql.roles_mapping WHERE Role LIKE 'sts|_%' ESCAPE '|' OR User LIKE 'sts|_%' ESCAPE '|'
				UNION SELECT CONCAT('session of ', User, ' ') FROM information_schema.processlist WHERE User LIKE 'sts|_%' ESCAPE '|'`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var what string
				if err := rows.Scan(&what); err != nil {
					t.Fatal(err)
				}
				out = append(out, what)
			}
			return out
		},
	}.tell(t)
}
