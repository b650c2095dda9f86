package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// sallyport is a running server, used over its public endpoints and nothing else.
type sallyport struct {
	url    string
	admin  string // path of the admin socket
	client *http.Client
}

// files are a configuration directory: path below it -> content.
type files map[string]string

// startSallyport writes the configuration directory, runs the real binary on it until the test ends, and
// returns when /readyz agrees. The caller's files know the port already, and authority has signed what
// Sallyport presents.
func startSallyport(ctx context.Context, t *testing.T, port int, authority *Authority, config files) *sallyport {
	t.Helper()
	dir := t.TempDir()
	ops := ports.Port()
	sockets, err := os.MkdirTemp("", "sp") // short: a socket's path has room for 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	admin := filepath.Join(sockets, "admin")
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails: crypto/rand ends the program instead

	authority.Issue(t, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	WriteFile(t, filepath.Join(dir, "secrets", "kek"), []byte(base64.StdEncoding.EncodeToString(kek)), 0o600)
	WriteFile(t, filepath.Join(dir, "sallyport.yaml"), fmt.Appendf(nil, `
issuer: %s
listen: {workload: 127.0.0.1:%d, ops: 127.0.0.1:%d, admin: "unix:%s"}
tls: {cert_file: tls.crt, key_file: tls.key}
data_dir: data
signing: {seal_with: {file: secrets/kek}}
audit: {dir: data/audit, durability: process}
`, LoopbackURL(port), port, ops, admin), 0o600)
	for name, content := range config {
		WriteFile(t, filepath.Join(dir, name), []byte(content), 0o600)
	}

	p := Run(t, t.TempDir(), Program{Name: "sallyport", Path: sallyportBinary(ctx, t), Args: []string{"serve", dir}})
	t.Cleanup(func() { // runs before the one of Run, so that a clean shutdown is part of every test
		if err := p.Exited(); err != nil {
			t.Error(err)
			return
		}
		if err := p.Stop(10 * time.Second); err != nil {
			t.Errorf("stopping sallyport with SIGTERM: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	operations := newClient("http://127.0.0.1:"+strconv.Itoa(ops), nil, "")
	err = poll(ctx, 50*time.Millisecond, func() error {
		if err := p.Exited(); err != nil {
			return permanent{err}
		}
		return operations.Do(ctx, http.MethodGet, "/readyz", nil, nil)
	})
	if err != nil {
		t.Fatalf("sallyport did not get ready: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &sallyport{url: LoopbackURL(port), admin: admin, client: &http.Client{Transport: transport, Timeout: 15 * time.Second}}
}

// sallyportBinary returns SALLYPORT_BIN, or builds the binary of this working tree.
func sallyportBinary(ctx context.Context, t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SALLYPORT_BIN"); path != "" {
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return absolute
	}
	path := filepath.Join(t.TempDir(), "sallyport")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/sallyport")
	build.Dir = filepath.Join("..", "..") // the product is another module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building sallyport: %v\n%s", err, out)
	}
	return path
}

// answer is what an endpoint said. The fields of all endpoints share it.
type answer struct {
	Code int
	Body string

	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Error           string `json:"error"`
	Active          *bool  `json:"active"`
}

func (a answer) String() string {
	if a.AccessToken != "" {
		return fmt.Sprintf("%d with a token", a.Code) // a log never shows one
	}
	return fmt.Sprintf("%d %s", a.Code, a.Body)
}

// post sends a form as an OAuth client does; bearer may be empty.
func (s *sallyport) post(ctx context.Context, t *testing.T, path, bearer string, form url.Values) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("POST %s: %v", path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		t.Fatalf("POST %s: reading the answer: %v", path, err)
	}
	got := answer{Code: resp.StatusCode, Body: string(data)}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("POST %s: %d with a body that is not JSON: %s", path, resp.StatusCode, data)
		}
	}
	return got
}

// exchange asks for a token for target (RFC 8693 section 2.1).
func (s *sallyport) exchange(ctx context.Context, t *testing.T, subjectToken, target string) answer {
	t.Helper()
	return s.post(ctx, t, "/token", "", url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {subjectToken},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {target},
	})
}
