// Package redistest runs a real redis-server for tests: with a password, on a Unix socket in a directory of its own, so
// that no port can be taken by somebody else.
package redistest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a redis-server may take for what should be quick, on a busy machine.
const patience = 20 * time.Second

// Server is a redis-server process. Methods are not for concurrent use.
type Server struct {
	URL      string // with the password
	Address  string // HOST:PORT of a node, see [StartNode]
	Password string
	CAFile   string        // of who signs its certificate; "" without TLS
	Client   *redis.Client // of the test
	dir      string
	cmd      *exec.Cmd
	ended    chan struct{}
}

// Start runs a server that keeps what it is told (appendonly) or, when durable is false, nothing. It uses no directory but its own.
func Start(durable bool) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is missing; install it with: apt-get install -y redis-server")
	}
	dir, err := os.MkdirTemp("", "redis-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, Password: rand.Text()}
	socket := filepath.Join(dir, "s")
	conf := fmt.Sprintf("port 0\nunixsocket %s\nunixsocketperm 700\ndir %s\nsave \"\"\nrequirepass %s\ndaemonize no\n", socket, dir, s.Password)
	if durable {
		conf += "appendonly yes\nappendfsync always\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "redis.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	s.URL = "unix://:" + s.Password + "@" + socket + "?db=0"
	s.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Password: s.Password, Protocol: 2, DisableIdentity: true})
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Run starts the process and waits until it answers.
func (s *Server) Run() error {
	s.cmd = exec.Command("redis-server", filepath.Join(s.dir, "redis.conf"))
	ended := make(chan struct{})
	s.ended = ended
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func(c *exec.Cmd) {
		_ = c.Wait()
		close(ended)
	}(s.cmd)
	for deadline := time.Now().Add(patience); ; {
		err := s.Client.Ping(context.Background()).Err()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("redis-server ended at once")
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("redis-server does not answer: %w", err)
		}
	}
}

// Kill is kill -9. It returns when the process is gone.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Stop makes the process stand still, as a machine does that hangs; Continue lets it go on.
func (s *Server) Stop() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue ends what Stop began.
func (s *Server) Continue() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Empty removes what the process kept on disk.
func (s *Server) Empty() error {
	return errors.Join(os.RemoveAll(filepath.Join(s.dir, "appendonlydir")), os.RemoveAll(filepath.Join(s.dir, "dump.rdb")))
}

// Close ends the process and removes its directory.
func (s *Server) Close() error {
	s.Kill()
	return errors.Join(s.Client.Close(), os.RemoveAll(s.dir))
}
