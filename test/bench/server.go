package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second     // from exec to the first good exchange
	stopLimit  = 10 * time.Second     // from SIGTERM to the end; then SIGKILL
	pollEvery  = 2 * time.Millisecond // between two looks at /readyz, so the resolution of a start time
	pollWait   = 5 * time.Second      // for one answer during start
	logShown   = 2 << 10              // bytes of a failed server's log that an error quotes
)

// server is one process under measurement and what is known about it.
type server struct {
	key, name string // "A", "floor-raw"
	argv      []string
	dir       string   // folder of its files and its working directory
	addr      string   // host:port of POST /token
	ready     string   // host:port of GET /readyz
	requests  [][]byte // one for each subject token
	forged    []byte   // a request that must be refused
	cursor    atomic.Int64

	revocations int // that it has when it is started for the second time

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has been waited for

	first, restart time.Duration // from exec to the first good exchange: with an empty state folder, and again
	issued         string        // algorithm of the tokens it issues
	idle           int64         // resident bytes after the first exchange of the second start
}

// next returns the request whose turn it is: each comes again only after all the others, over all windows.
func (s *server) next() []byte {
	return s.requests[int(s.cursor.Add(1)-1)%len(s.requests)]
}

// writeFiles creates files below dir, by slash-separated path, readable by the owner alone.
func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start runs the process and waits until it has done one exchange. It returns the time that took. Call it from the
// main goroutine only (childAttr).
func (s *server) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, log, log, childAttr()
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting %s: %w", s.name, err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		cmd.Wait() // how it ended is in ProcessState
		close(ended)
	}()
	if err := s.awaitExchange(ctx, begin.Add(startLimit)); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", s.name, err, s.logTail())
	}
	return time.Since(begin), nil
}

// awaitExchange polls /readyz and then does the first exchange.
func (s *server) awaitExchange(ctx context.Context, deadline time.Time) error {
	probe := fmt.Appendf(nil, "GET /readyz HTTP/1.1\r\nHost: %s\r\n\r\n", s.ready)
	for {
		answer, err := s.once(ctx, s.ready, probe)
		if err == nil && answer.status == 200 {
			break
		}
		if err == nil {
			err = fmt.Errorf("/readyz answers %d", answer.status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return fmt.Errorf("ended before it was ready: %v", s.cmd.ProcessState)
		case <-time.After(pollEvery):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", startLimit, err)
		}
	}
	answer, err := s.once(ctx, s.addr, s.requests[0])
	if err != nil {
		return fmt.Errorf("first exchange: %w", err)
	}
	token := accessToken(answer.body)
	if answer.status != 200 || token == nil {
		return fmt.Errorf("first exchange: status %d, body %.*s", answer.status, bodyShown, answer.body)
	}
	s.issued, err = tokenAlgorithm(string(token))
	return err
}

// mustRefuseForged fails unless the server turns down a subject token whose signature was corrupted: a server that
// checks nothing is fast.
func (s *server) mustRefuseForged(ctx context.Context) error {
	answer, err := s.once(ctx, s.addr, s.forged)
	if err != nil {
		return fmt.Errorf("%s: token with a corrupted signature: %w", s.name, err)
	}
	if answer.status < 400 || answer.status > 499 || accessToken(answer.body) != nil {
		return fmt.Errorf("%s did not refuse a token with a corrupted signature: status %d", s.name, answer.status)
	}
	return nil
}

// once sends one request on its own connection.
func (s *server) once(ctx context.Context, addr string, request []byte) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, pollWait)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	answer := new(response)
	return answer, answer.read(bufio.NewReader(conn))
}

// stop ends the process and waits for it. It does nothing when none runs.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM) // fails only when the process has ended
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		s.cmd.Process.Kill()
		<-s.ended
	}
	s.cmd = nil
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) logPath() string { return filepath.Join(s.dir, "server.log") }

// logTail returns the end of the server's output.
func (s *server) logTail() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logShown):]))
}

// tokenAlgorithm returns the alg of a compact JWS's header. It verifies nothing.
func tokenAlgorithm(token string) (string, error) {
	if strings.Count(token, ".") != 2 {
		return "", errors.New("the issued token is not a compact JWS")
	}
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return "", fmt.Errorf("header of the issued token: %w", err)
	}
	var h struct {
		Algorithm string `json:"alg"`
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return "", fmt.Errorf("header of the issued token: %w", err)
	}
	return h.Algorithm, nil
}
