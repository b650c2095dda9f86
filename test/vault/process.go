package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// Server is a running Vault.
type Server struct {
	Address string // http://127.0.0.1:PORT
	Root    *api.Client
}

// StartVault runs the server until the test ends.
func StartVault(tb testing.TB) *Server {
	tb.Helper()
	path, err := Binary(tb.Context(), tb.Output())
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(path, ports.Address())
	cmd.Stderr = tb.Output()
	in, err := cmd.StdinPipe() // it ends when this closes, also when we die
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		stop(tb, "vault", cmd)
	})
	var said struct{ Address, Token string }
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		tb.Fatalf("Vault did not get ready: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return &Server{said.Address, newClient(tb, said.Address, said.Token)}
}

// stop waits for a process that was asked to end, and kills it after some seconds.
func stop(tb testing.TB, name string, cmd *exec.Cmd) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		tb.Errorf("%s was still running 20 s after it was asked to end", name)
		_ = cmd.Process.Kill()
		<-done
	}
}

// newClient is the vendor's client with a token.
func newClient(tb testing.TB, address, token string) *api.Client {
	tb.Helper()
	c, err := api.NewClient(&api.Config{Address: address, Timeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	c.SetToken(token)
	return c
}

// Postgres is a running PostgreSQL with the database orders, the table orders and the group roles orders_ro and orders_rw.
type Postgres struct {
	Host, Port string
	Password   string // of the superuser postgres
}

// StartPostgres runs a server until the test ends.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		tb.Fatal("PostgreSQL is missing; run: apt-get install -y --no-install-recommends postgresql")
	}
	slices.Sort(found)
	bin := found[len(found)-1]
	dir, err := os.MkdirTemp("", "sallyport-postgres-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			tb.Fatal(err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			tb.Fatal(err)
		}
	}
	p := &Postgres{Password: "superuser"}
	p.Host, p.Port, _ = strings.Cut(ports.Address(), ":")
	data, password := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(p.Password), 0o644); err != nil {
		tb.Fatal(err)
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", password, "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", p.Port, "-c", "listen_addresses="+p.Host, "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "log_statement=all", "-c", "max_connections=200")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	server.Dir, server.SysProcAttr, server.Stdout, server.Stderr = dir, as, log, log
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the parent-death signal comes when the thread ends that started the child (golang.org/issue/27505)
		started <- server.Start()
		select {}
	}()
	if err := <-started; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		stop(tb, "postgres", server)
	})
	p.prepare(tb)
	return p
}

const schema = `CREATE DATABASE orders;
\c orders
CREATE ROLE orders_ro; CREATE ROLE orders_rw;
CREATE TABLE orders (id int PRIMARY KEY);
INSERT INTO orders VALUES (1);
GRANT SELECT ON orders TO orders_ro; GRANT SELECT, INSERT ON orders TO orders_rw;
`

func (p *Postgres) prepare(tb testing.TB) {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := p.psql("postgres", p.Password, "postgres", "SELECT 1")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			tb.Fatalf("PostgreSQL did not get ready: %v", err)
		}
	}
	if out, err := p.psql("postgres", p.Password, "postgres", schema); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
}

// psql runs the vendor's client.
func (p *Postgres) psql(user, password, database, input string) (string, error) {
	cmd := exec.Command("psql", "-X", "-q", "-tA", "-v", "ON_ERROR_STOP=1", "-h", p.Host, "-p", p.Port, "-U", user, "-d", database)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=10")
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), errors.Join(fmt.Errorf("psql as %s: %w", user, err), errors.New(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
