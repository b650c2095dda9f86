package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// stage is two replicas, what they share, and the platform that both trust.
type stage struct {
	dir, bin string
	redis    *redistest.Server
	signer   jose.Signer
	nodes    []*node
}

// node is one replica.
type node struct {
	name, dir, workload, ops string
	cmd                      *exec.Cmd
	ended                    chan struct{}
}

// issuer is the same for both: a load balancer would stand there.
const issuer = "http://127.0.0.1:1"

func newStage(dir, bin string) (_ *stage, err error) {
	s := &stage{dir: dir, bin: bin}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.redis, err = redistest.Start(false); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "c", Algorithm: "ES256", Use: "sig"}
	if s.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil); err != nil {
		return nil, err
	}
	public, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	if err != nil {
		return nil, err
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand since Go 1.24)
	for _, name := range []string{"A", "B"} {
		n := &node{name: name, dir: filepath.Join(dir, name)}
		s.nodes = append(s.nodes, n)
		files := map[string]string{
			"secrets/kek": base64.StdEncoding.EncodeToString(kek), "secrets/redis": s.redis.URL, "c.jwks.json": string(public),
			"trust/prod.yaml":     "trust_domain: prod.example\nissuers:\n  - {name: c, type: oidc, issuer: https://platform.example, audiences: [" + issuer + "], algorithms: [ES256], keys: {jwks_file: c.jwks.json}, oidc: {path: [sub], attributes: {sub: {claim: sub}}}}\n",
			"targets/orders.yaml": "target: orders\nbroker: jwt\nscopes: {read: {}}\nresource_servers: [\"spiffe://prod.example/c/gateway\"]\n",
			"policy/policy.yaml":  "rules:\n  - {name: orders, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [orders], scopes: [read]}\n  - {name: introspect, workloads: {trust_domain: prod.example, issuer: c, where: {sub: gateway}}, targets: [introspection]}\n",
		}
		for name, text := range files {
			if err := write(filepath.Join(n.dir, name), text); err != nil {
				return nil, err
			}
		}
		if err := s.start(n); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func write(path, text string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
}

// start runs a replica until both its listeners are open. A port that another process takes in between ends the
// replica, and others are tried.
func (s *stage) start(n *node) error {
	var last error
	for range 10 {
		if n.workload, last = freeAddress(); last != nil {
			return last
		}
		if n.ops, last = freeAddress(); last != nil {
			return last
		}
		server := fmt.Sprintf("issuer: %s\nlisten: {workload: %q, ops: %q}\ntls: off\nsigning: {seal_with: {file: secrets/kek}}\nstore: {redis: {url: {file: secrets/redis}}}\nrevocation: {max_staleness: 3s}\n", issuer, n.workload, n.ops)
		if last = write(filepath.Join(n.dir, "sallyport.yaml"), server); last != nil {
			return last
		}
		log, err := os.Create(filepath.Join(n.dir, "log"))
		if err != nil {
			return err
		}
		n.cmd = exec.Command(s.bin, "serve", n.dir)
		n.cmd.Stderr = log
		ended := make(chan struct{})
		n.ended = ended
		if err := errors.Join(n.cmd.Start(), log.Close()); err != nil {
			return err
		}
		go func(c *exec.Cmd) {
			_ = c.Wait()
			close(ended)
		}(n.cmd)
		if last = n.serving(); last == nil {
			return nil
		}
		n.kill()
		if !strings.Contains(last.Error(), "address already in use") {
			return last
		}
	}
	return last
}

// serving waits for the log line that is written when all listeners are open: whoever answers at a port may be
// somebody else.
func (n *node) serving() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ended := false
		select {
		case <-n.ended:
			ended = true
		default:
		}
		said, err := os.ReadFile(filepath.Join(n.dir, "log"))
		if err != nil {
			return err
		}
		if strings.Contains(string(said), `"message":"serving"`) {
			return nil
		}
		if ended || time.Now().After(deadline) {
			return fmt.Errorf("replica %s does not serve: %s", n.name, said)
		}
	}
}

// kill is kill -9. It returns when the process is gone.
func (n *node) kill() {
	if n.cmd != nil && n.cmd.Process != nil {
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
}

func (s *stage) close() {
	for _, n := range s.nodes {
		n.kill()
	}
	if s.redis != nil {
		_ = s.redis.Close()
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// token is what the platform gives to a workload.
func (s *stage) token(sub string) string {
	now := time.Now()
	payload, _ := json.Marshal(map[string]any{"iss": "https://platform.example", "aud": issuer, "sub": sub, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return ""
	}
	token, _ := jws.CompactSerialize()
	return token
}

func form(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

func exchangeForm(subject, target string) url.Values {
	return form("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token", subject,
		"subject_token_type", "urn:ietf:params:oauth:token-type:jwt", "audience", target)
}

// client waits for longer than a replica waits for Redis.
var client = &http.Client{Timeout: 30 * time.Second}

func (s *stage) post(n *node, path string, f url.Values, bearer string) (int, map[string]any, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+n.workload+path, strings.NewReader(f.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		return 0, nil, errors.New("503 without Retry-After")
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || len(raw) == 0 {
		return resp.StatusCode, nil, err
	}
	var body map[string]any
	return resp.StatusCode, body, json.Unmarshal(raw, &body)
}

func (s *stage) want(n *node, path string, f url.Values, bearer string, want int) error {
	status, body, err := s.post(n, path, f, bearer)
	if err == nil && status != want {
		err = fmt.Errorf("%s of %s answers %d %v, want %d", path, n.name, status, body, want)
	}
	return err
}

// reason is what /readyz says of the store.
func (s *stage) reason(n *node) string {
	resp, err := http.Get("http://" + n.ops + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var r struct {
		Checks []struct{ Name, Reason string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return err.Error()
	}
	for _, c := range r.Checks {
		if c.Name == "store" {
			return fmt.Sprint(resp.StatusCode, " ", c.Reason)
		}
	}
	return resp.Status
}
