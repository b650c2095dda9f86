// Package mariadbtest runs a real MariaDB server for tests: on a loopback port and a Unix socket in a directory of its
// own, with TLS, and with every statement in a log.
package mariadbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
)

// Install is how to get what the tests run.
const Install = "apt-get install -y --no-install-recommends mariadb-server mariadb-client"

// patience is how long the server may take for what should be quick, on a busy machine.
const patience = 60 * time.Second

// Server is a mariadbd process. Methods are not for concurrent use.
type Server struct {
	Host       string
	Port       int
	Socket     string
	RootDSN    string // of root over the socket: everything is allowed
	GeneralLog string // path: every statement that the server got
	ErrorLog   string // path
	CAFile     string // path: PEM of the authority that signed the server's certificate, for Host and localhost
	Root       *sql.DB

	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Run()
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

// Run starts a server, for a TestMain; Close ends it.
func Run() (*Server, error) {
	for _, tool := range []string{program(), "mariadb-install-db", "mariadb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is missing; install it with: %s", tool, Install)
		}
	}
	dir, err := os.MkdirTemp("", "mariadb-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	s := &Server{
		Host: "127.0.0.1", Socket: filepath.Join(dir, "s"), GeneralLog: filepath.Join(dir, "general.log"),
		ErrorLog: filepath.Join(dir, "error.log"), CAFile: filepath.Join(dir, "ca.pem"), dir: dir,
	}
	if err := errors.Join(s.install(), brokertest.WriteCertificates(dir, s.Host), s.port()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Continue(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, s.settle()
}

// program is the server, which stands where PATH of mere users does not lead.
func program() string {
	if path, err := exec.LookPath("mariadbd"); err == nil {
		return path
	}
	return "/usr/sbin/mariadbd"
}

// install makes the data directory.
func (s *Server) install() error {
	args := append(s.user(), "--no-defaults", "--datadir="+s.data(), "--auth-root-authentication-method=normal", "--skip-test-db")
	out, err := exec.Command("mariadb-install-db", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// user lets root run the server as itself, which it refuses by default.
func (s *Server) user() []string {
	if os.Geteuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// port finds a free one.
func (s *Server) port() error {
	l, err := net.Listen("tcp", s.Host+":0")
	if err != nil {
		return err
	}
	s.Port = l.Addr().(*net.TCPAddr).Port
	return l.Close()
}

// Address is HOST:PORT.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// settle sets root's password and drops anonymous accounts, which would win over x@'%' for local connections.
func (s *Server) settle() error {
	password := rand.Text()
	for _, statement := range []string{"DROP USER IF EXISTS ''@'localhost'", "DROP USER IF EXISTS ''@'" + hostname() + "'", "ALTER USER root@localhost IDENTIFIED BY '" + password + "'"} {
		if _, err := s.Root.Exec(statement); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	_ = s.Root.Close()
	return s.open(password)
}

func hostname() string {
	h, _ := os.Hostname()
	return h
}

func (s *Server) open(password string) error {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = "root", password, "unix", s.Socket
	c.Logger = &mysql.NopLogger{}
	s.RootDSN = c.FormatDSN()
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return err
	}
	s.Root = sql.OpenDB(connector)
	return nil
}

// Continue starts the process, or lets it go on after Stop, and waits until it answers.
func (s *Server) Continue() error {
	if s.cmd != nil {
		return s.cmd.Process.Signal(syscall.SIGCONT)
	}
	if s.Root == nil {
		if err := s.open(""); err != nil {
			return err
		}
	}
	cmd := exec.Command(program(), append([]string{"--no-defaults"}, append(s.user(),
		"--datadir="+s.data(), "--socket="+s.Socket, "--bind-address="+s.Host, "--port="+strconv.Itoa(s.Port),
		"--pid-file="+filepath.Join(s.dir, "pid"), "--log-error="+s.ErrorLog, "--general-log=ON", "--general-log-file="+s.GeneralLog,
		"--ssl-ca="+s.CAFile, "--ssl-cert="+filepath.Join(s.dir, "server.pem"), "--ssl-key="+filepath.Join(s.dir, "server.key"),
		"--log-bin="+filepath.Join(s.dir, "binlog"), "--server-id=1",
		"--skip-name-resolve", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0", "--max-connections=300")...)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return s.answers()
}

func (s *Server) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := s.Root.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			log, _ := os.ReadFile(s.ErrorLog)
			return fmt.Errorf("mariadbd ended at once:\n%s", log)
		case <-ctx.Done():
			return fmt.Errorf("mariadbd does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop makes the process stand still, as a machine does that hangs; Continue lets it go on.
func (s *Server) Stop() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Kill is kill -9. It returns when the process is gone; Continue starts another one on what it left.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// Close ends the process and removes its directory.
func (s *Server) Close() error {
	var err error
	if s.Root != nil {
		err = s.Root.Close()
	}
	s.Kill()
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Exec runs statements as root.
func (s *Server) Exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := s.Root.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
