package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/mysql/mariadbtest"
)

// The vendor's client logs in with what -o mysql writes, over TLS that it verifies, at an account that takes no other.
func TestMySQLFileOpensALogin(t *testing.T) {
	t.Parallel()
	server := mariadbtest.Start(t)
	server.Exec(t, "CREATE USER 'sts_x'@'%' IDENTIFIED BY 'pass\"w\\\\ord#' REQUIRE SSL")
	for name, tc := range map[string]struct {
		members map[string]any
		want    string
	}{
		"verified":             {map[string]any{"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": server.CAFile}, "TLS"},
		"another authority":    {map[string]any{"ssl_mode": "VERIFY_IDENTITY"}, "ERROR 2026"},
		"nothing to verify":    {map[string]any{"ssl_mode": "PREFERRED"}, "TLS"},
		"not what it verifies": {map[string]any{"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": "/nowhere/ca.pem"}, "ERROR 2026"},
	} {
		members := map[string]any{"host": server.Host, "port": server.Port, "user": "sts_x", "password": `pass"w\ord#`}
		for k, v := range tc.members {
			members[k] = v
		}
		file := filepath.Join(t.TempDir(), "my.cnf")
		if err := os.WriteFile(file, []byte(printed(t, "mysql", answerOf(t, "mysql", members))), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("mariadb", "--defaults-file="+file, "--batch", "-e", "SHOW STATUS LIKE 'Ssl_version'")
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: the client says %q, want %q in it", name, out, tc.want)
		}
	}
}
