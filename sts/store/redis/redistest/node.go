package redistest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// StartNode runs a server on a loopback port, for tests in which somebody stands between it and its client, or its users
// matter: it has an aclfile, and keeps nothing but that. config is added to its configuration, line by line; "port 0"
// leaves the plain port out.
func StartNode(config ...string) (*Server, error) { return startNode(nil, config...) }

func startNode(tls *authority, config ...string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is missing; install it with: apt-get install -y redis-server")
	}
	dir, err := os.MkdirTemp("", "redis-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, Password: rand.Text(), Address: fmt.Sprintf("127.0.0.1:%d", ports.Port())}
	port := portOf(s.Address)
	if tls != nil {
		config = append(tls.lines(port), config...)
		if slices.ContainsFunc(config, func(l string) bool { return l == "cluster-enabled yes" }) {
			config = append(config, "tls-cluster yes")
		}
	}
	socket := filepath.Join(dir, "s")
	conf := fmt.Sprintf("bind 127.0.0.1\nport %s\nunixsocket %s\nunixsocketperm 700\ndir %s\nsave \"\"\naclfile %s\nlogfile %s\ndaemonize no\n", port, socket, dir, s.ACLFile(), s.LogFile())
	for _, line := range config {
		conf += line + "\n"
	}
	users := "user default on >" + s.Password + " ~* &* +@all\n" // the file must be there before the server is
	if err := errors.Join(os.WriteFile(s.ACLFile(), []byte(users), 0o600), os.WriteFile(filepath.Join(dir, "redis.conf"), []byte(conf), 0o600)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.URL = "redis://:" + s.Password + "@" + s.Address
	s.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Password: s.Password, Protocol: 2, DisableIdentity: true})
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ACLFile is where the users of a node are saved.
func (s *Server) ACLFile() string { return filepath.Join(s.dir, "users.acl") }

// LogFile is the log of a node.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "redis.log") }
