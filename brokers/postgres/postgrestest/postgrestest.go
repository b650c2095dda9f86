// Package postgrestest runs a real PostgreSQL for tests: on a free loopback port and a Unix socket in a directory of its
// own, with TLS, passwords by SCRAM alone, and everything that it logs in a file. It listens for nobody but this machine
// and ends with the test.
package postgrestest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/test/ports"
)

const (
	// Superuser is the name of the role that owns the cluster.
	Superuser = "postgres"

	patience = time.Minute // for what should be quick, on a busy machine
	install  = "PostgreSQL is missing; install it with: apt-get install -y --no-install-recommends postgresql postgresql-client"
)

// Server is a PostgreSQL cluster. Start and Stop are not for concurrent use.
type Server struct {
	dir      string
	bin      string
	port     int
	password string
	settings []string
	cred     *syscall.Credential
	cmd      *exec.Cmd
	ended    chan struct{}
}

// Start runs a server that ends with t. Settings are lines of postgresql.conf, such as "log_statement=all"; what is
// written to disk is not synced unless they say fsync=on.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := New(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// New is Start for a server that several tests share. Whoever calls it calls [Server.Close].
func New(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	cred, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin, password: rand.Text(), cred: cred, settings: settings}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// binaries returns the directory of the newest PostgreSQL here. Debian keeps it off the PATH.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New(install)
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// unprivileged is who runs the server: PostgreSQL refuses to run as root. Nil means who runs the test.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is nobody else: %w", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uidErr, gidErr)
}

func (s *Server) init() error {
	if err := s.certificate(); err != nil {
		return err
	}
	pwfile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pwfile, []byte(s.password), 0o600); err != nil {
		return err
	}
	if s.cred != nil {
		for _, name := range []string{"", "password", "server.crt", "server.key"} {
			if err := os.Chown(filepath.Join(s.dir, name), int(s.cred.Uid), int(s.cred.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := s.command("initdb", "--pgdata", s.data(), "--username", Superuser, "--pwfile", pwfile, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command runs as who may, and knows nothing of the environment's own PostgreSQL.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	return cmd
}

// Start brings the server up, on the port that it had when it ran before, and returns when it answers.
func (s *Server) Start() error {
	if s.cmd != nil {
		return errors.New("the server runs already")
	}
	for {
		err := s.run()
		if err == nil || s.port != 0 {
			return err
		}
		if !strings.Contains(s.tail(), "Address already in use") {
			return err
		}
	}
}

func (s *Server) run() error {
	port := s.port
	if port == 0 {
		port = ports.Port()
	}
	args := []string{"-D", s.data()}
	for _, setting := range append([]string{
		"port=" + strconv.Itoa(port), "listen_addresses=127.0.0.1", "unix_socket_directories=" + s.dir, "ssl=on",
		"ssl_cert_file=" + filepath.Join(s.dir, "server.crt"), "ssl_key_file=" + filepath.Join(s.dir, "server.key"),
		"fsync=off", "max_connections=60", "shared_buffers=32MB", "log_line_prefix=%m [%p] %q%u@%d ",
	}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	s.cmd, s.ended = cmd, ended
	if err := s.ready(port); err != nil {
		s.halt(syscall.SIGQUIT)
		return fmt.Errorf("%w\n%s", err, s.tail())
	}
	s.port = port
	return nil
}

// ready waits until the server answers.
func (s *Server) ready(port int) error {
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		c, err := pgx.Connect(ctx, s.dsn(s.dir, port, Superuser, s.password, Superuser))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("postgres ended at once")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

// Stop ends the server and every session at once, as when its machine dies. What it was told is there again after
// [Server.Start].
func (s *Server) Stop() { s.halt(syscall.SIGQUIT) }

// halt sends a signal and waits for the end; whoever does not obey is killed.
func (s *Server) halt(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	s.cmd = nil
}

// Close ends the server and removes its directory.
func (s *Server) Close() error {
	s.halt(syscall.SIGINT)
	return os.RemoveAll(s.dir)
}

// Host returns the address that the server listens on.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port that the server listens on.
func (s *Server) Port() int { return s.port }

// Addr returns HOST:PORT.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host(), strconv.Itoa(s.port)) }

// Socket returns the directory of the server's Unix socket: a host in the words of libpq.
func (s *Server) Socket() string { return s.dir }

// CAFile returns the path of the certificate that the server's own is to be verified with; it is for 127.0.0.1.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "server.crt") }

// LogFile returns the path of what the server logs.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "log") }

// tail is the end of the log.
func (s *Server) tail() string {
	b, _ := os.ReadFile(s.LogFile())
	return string(b[max(0, len(b)-4000):])
}

// DSN returns a connection string of the superuser for a database, through TCP without TLS.
func (s *Server) DSN(database string) string {
	return s.dsn(s.Host(), s.port, Superuser, s.password, database)
}

// UserDSN returns a connection string of somebody else.
func (s *Server) UserDSN(name, password, database string) string {
	return s.dsn(s.Host(), s.port, name, password, database)
}

func (s *Server) dsn(host string, port int, name, password, database string) string {
	q := url.Values{"host": {host}, "port": {strconv.Itoa(port)}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Path: "/" + database, RawQuery: q.Encode()}
	return u.String()
}

// Exec runs statements, as the superuser, in a database. Like the others it also works while t cleans up.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	if err := s.exec(database, statements...); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) exec(database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, statement := range statements {
		if _, err := c.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Connect opens a session that ends with t.
func (s *Server) Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

// Database creates a database that is dropped, with the sessions in it, when t ends.
func (s *Server) Database(t testing.TB, name string) {
	t.Helper()
	quoted := pgx.Identifier{name}.Sanitize()
	s.Exec(t, Superuser, "CREATE DATABASE "+quoted)
	t.Cleanup(func() {
		if err := s.exec(Superuser, "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
}
