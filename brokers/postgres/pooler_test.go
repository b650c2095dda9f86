package postgres_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
)

// startPooler runs PgBouncer in front of the server, as docs/brokers/postgres.md says: it asks the server for verifiers.
// It returns its port.
func startPooler(t testing.TB) int {
	t.Helper()
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer" // not on everybody's PATH
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatal("pgbouncer is missing; install it with: apt-get install -y --no-install-recommends pgbouncer")
	}
	server.Exec(t, database, "CREATE ROLE pooler LOGIN PASSWORD 'pooler'", "GRANT CONNECT ON DATABASE orders TO pooler",
		`CREATE FUNCTION lookup(who text) RETURNS TABLE (name text, verifier text) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
		 'SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = who AND rolcanlogin AND NOT rolsuper'`)
	t.Cleanup(func() { server.Exec(t, database, "DROP FUNCTION lookup", "DROP OWNED BY pooler", "DROP ROLE pooler") })
	dir, err := os.MkdirTemp("", "pooler-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	for name, text := range map[string]string{
		"users": `"pooler" "pooler"`,
		"pgbouncer.ini": fmt.Sprintf("[databases]\n* = host=%s port=%d auth_user=pooler\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
			"auth_type = scram-sha-256\nauth_file = %s/users\nauth_query = SELECT name, verifier FROM lookup($1)\npool_mode = transaction\nserver_login_retry = 1\nquery_wait_timeout = 5\n", server.Host(), server.Port(), port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, filepath.Join(dir, "pgbouncer.ini"))
	if os.Getuid() == 0 { // which it refuses
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	eventually(t, "pgbouncer does not listen", func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return port
}

// A pooler between workloads and the server knows a role as soon as the server does, and lets nobody in for one that is
// gone, also over a connection that it kept. Roles are not made through it.
func TestWorkloadsMayUseAPooler(t *testing.T) {
	port := startPooler(t)
	b := newBroker(t, options{settings: postgres.Settings{Host: "127.0.0.1", Port: port}})
	l, h := mint(t, b, "read")
	if out, err := psql(l.dsn(), "SELECT current_user, id FROM items"); err != nil || out != "orders_ro|1" {
		t.Fatalf("through the pooler: %s (%v)", out, err)
	}
	session := open(t, l)
	if err := works(session); err != nil {
		t.Fatal(err)
	}
	revoke(t, b, h)
	if works(session) == nil {
		t.Error("a session through the pooler serves")
	}
	if out, err := psql(l.dsn(), "SELECT id FROM items"); err == nil {
		t.Errorf("through the pooler, after: %s", out)
	}
	through := newBroker(t, options{dsn: func() string { return dsnAt(t, fmt.Sprintf("127.0.0.1:%d", port)) }})
	if _, err := through.Mint(t.Context(), newOrder(t, "read")); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "pooler") {
		t.Errorf("minting through the pooler: %v, want ErrMisconfigured and why", err)
	}
}
