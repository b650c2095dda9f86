// Package stage runs real sallyport processes for tests and stories that span packages: a platform that signs identity
// tokens, nodes that can be started, killed and asked, all on loopback and in a directory that the caller made.
package stage

import (
	"context"
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

	"github.com/sallyport-sts/sallyport/test/ports"
)

// Patience is how long something is waited for that should happen soon, on a busy machine.
const Patience = 60 * time.Second

// Build builds the binary into dir.
func Build(dir string) (string, error) {
	bin := filepath.Join(dir, "sallyport")
	if said, err := exec.Command("go", "build", "-o", bin, "github.com/sallyport-sts/sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, said)
	}
	return bin, nil
}

// Platform signs identity tokens, as a Kubernetes cluster or a CI system does.
type Platform struct {
	signer jose.Signer
	JWKS   string // its public keys
}

// PlatformIssuer is the iss of a platform's tokens.
const PlatformIssuer = "https://platform.example"

// NewPlatform draws a key.
func NewPlatform() (*Platform, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "c", Algorithm: "ES256", Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil)
	if err != nil {
		return nil, err
	}
	public, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	return &Platform{signer, string(public)}, err
}

// Token is what the platform gives to a workload, for an audience, good for ten minutes.
func (p *Platform) Token(sub, audience string) string {
	now := time.Now()
	payload, _ := json.Marshal(map[string]any{"iss": PlatformIssuer, "aud": audience, "sub": sub, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
	jws, err := p.signer.Sign(payload)
	if err != nil {
		return ""
	}
	token, _ := jws.CompactSerialize()
	return token
}

// Trust is the trust file of a service that believes the platform as prod.example/c, naming workloads by their sub.
func (p *Platform) Trust(audience string) string {
	return "trust_domain: prod.example\nissuers:\n  - {name: c, type: oidc, issuer: " + PlatformIssuer + ", audiences: [" + audience + "], algorithms: [ES256], keys: {jwks_file: c.jwks.json}, oidc: {path: [sub], attributes: {sub: {claim: sub}}}}\n"
}

// KEK draws a key-encryption key, as signing.seal_with refers to it.
func KEK() string {
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand since Go 1.24)
	return base64.StdEncoding.EncodeToString(kek)
}

// Write writes a file for its owner alone, and the directories that it is in.
func Write(path, text string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
}

// Node is one sallyport process.
type Node struct {
	Name     string
	Dir      string // its configuration; its log is the file log in it
	Workload string // HOST:PORT
	Ops      string // HOST:PORT
	Admin    string // path of the admin socket

	cmd   *exec.Cmd
	ended chan struct{}
}

// Start runs the binary until its listeners are open. server is the rest of sallyport.yaml, without listen and tls;
// WORKLOAD in it stands for the address that workloads use, for an issuer that clients find. A port that another process
// takes in between ends the node, and others are tried. A node that has addresses keeps them.
func (n *Node) Start(bin, server string) error {
	var last error
	for range 10 {
		if n.Workload == "" {
			n.Workload, n.Ops = ports.Address(), ports.Address()
		}
		n.Admin = filepath.Join(n.Dir, "admin.sock")
		text := fmt.Sprintf("listen: {workload: %q, ops: %q, admin: %q}\ntls: off\n%s", n.Workload, n.Ops, "unix:"+n.Admin, strings.ReplaceAll(server, "WORKLOAD", n.Workload))
		if last = Write(filepath.Join(n.Dir, "sallyport.yaml"), text); last != nil {
			return last
		}
		log, err := os.Create(filepath.Join(n.Dir, "log"))
		if err != nil {
			return err
		}
		n.cmd = exec.Command(bin, "serve", n.Dir)
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
		n.Kill()
		if !strings.Contains(last.Error(), "address already in use") {
			return last
		}
		n.Workload = ""
	}
	return last
}

// serving waits for the log line that is written when all listeners are open: whoever answers at a port may be
// somebody else.
func (n *Node) serving() error {
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		ended := false
		select {
		case <-n.ended:
			ended = true
		default:
		}
		said, err := os.ReadFile(filepath.Join(n.Dir, "log"))
		if err != nil {
			return err
		}
		if strings.Contains(string(said), `"message":"serving"`) {
			return nil
		}
		if ended || time.Now().After(deadline) {
			return fmt.Errorf("node %s does not serve: %s", n.Name, said)
		}
	}
}

// Kill is kill -9. It returns when the process is gone.
func (n *Node) Kill() {
	if n.cmd != nil && n.cmd.Process != nil {
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
}

// Form makes a form of pairs.
func Form(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

// ExchangeForm asks for a target with a subject token.
func ExchangeForm(subject, target string) url.Values {
	return Form("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token", subject,
		"subject_token_type", "urn:ietf:params:oauth:token-type:jwt", "audience", target)
}

// client waits for longer than any answer may take.
var client = &http.Client{Timeout: 30 * time.Second}

// Post sends a form and reads the JSON of the answer.
func (n *Node) Post(path string, f url.Values, bearer string) (int, map[string]any, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+n.Workload+path, strings.NewReader(f.Encode()))
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

// Want posts and returns an error unless the answer has the status.
func (n *Node) Want(path string, f url.Values, bearer string, want int) error {
	status, body, err := n.Post(path, f, bearer)
	if err == nil && status != want {
		err = fmt.Errorf("%s of %s answers %d %v, want %d", path, n.Name, status, body, want)
	}
	return err
}

// Exchange returns what access_token says.
func (n *Node) Exchange(subject, target string) (string, error) {
	status, body, err := n.Post("/token", ExchangeForm(subject, target), "")
	if err != nil {
		return "", err
	}
	token, _ := body["access_token"].(string)
	if status != http.StatusOK || token == "" {
		return "", fmt.Errorf("exchange for %s answers %d %v", target, status, body)
	}
	return token, nil
}

// Lease is what the admin listener says of a lease, as far as tests ask.
type Lease struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	State string `json:"state"`
	Fault string `json:"fault"`
}

// operator is a client of the admin listener.
func (n *Node) operator() *http.Client {
	return &http.Client{Timeout: client.Timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.Admin)
		},
	}}
}

// RevokeLease kills by the id of a lease, as `sallyport revoke lease=ID` does.
func (n *Node) RevokeLease(id string) error {
	_, err := n.Revoke(fmt.Sprintf(`{"selector":["lease=%s"]}`, id))
	return err
}

// Revoked is what the admin listener says of a revocation, as far as tests ask.
type Revoked struct {
	ID      string `json:"id"`
	Applied []struct {
		Replica string  `json:"replica"`
		Applied bool    `json:"applied"`
		Millis  float64 `json:"ms"`
	} `json:"applied"`
	Counts map[string]int `json:"counts"`
}

// Revoke posts a revocation to the admin listener. An error means that it was not acknowledged.
func (n *Node) Revoke(body string) (Revoked, error) {
	var out Revoked
	resp, err := n.operator().Post("http://admin/admin/v1/revocations", "application/json", strings.NewReader(body))
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body)
		return out, fmt.Errorf("revoking %s is answered with %d %s", body, resp.StatusCode, said)
	}
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

// Leases asks the admin listener for all leases of a target, "" for those of all.
func (n *Node) Leases(target string) ([]Lease, error) {
	hc := n.operator()
	var all []Lease
	query := url.Values{"limit": {"1000"}}
	if target != "" {
		query.Set("target", target)
	}
	for {
		resp, err := hc.Get("http://admin/admin/v1/leases?" + query.Encode())
		if err != nil {
			return nil, err
		}
		var page struct {
			Leases []Lease `json:"leases"`
			Next   string  `json:"next"`
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("leases are answered with %d (%v)", resp.StatusCode, err)
		}
		if all = append(all, page.Leases...); page.Next == "" {
			return all, nil
		}
		query.Set("after", page.Next)
	}
}
