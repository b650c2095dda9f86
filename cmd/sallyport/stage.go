package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/go-jose/go-jose/v4"
)

//go:embed demo/*.yaml
var demoFiles embed.FS

// stage is where the demo plays: a directory, a stand-in for a cluster's token issuer, a real server process.
type stage struct {
	dir          string
	issuer       string
	signer       jose.Signer
	server       *exec.Cmd
	ended        chan error
	stopping     sync.Once
	stopErr      error
	lastDecision string
}

// portTries is how often the demo chooses other ports when somebody took those it had found free.
const portTries = 5

func newStage(ctx context.Context, dir string) (*stage, error) {
	for tries := 1; ; tries++ {
		st, err := tryStage(ctx, dir)
		if !errors.Is(err, errPortTaken) || tries == portTries {
			return st, err
		}
		if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
			return nil, err
		}
	}
}

func tryStage(ctx context.Context, dir string) (*stage, error) {
	workload, ops, err := freeAddresses()
	if err != nil {
		return nil, err
	}
	st := &stage{dir: dir, issuer: "http://" + workload, ended: make(chan error, 1)}
	if err := st.writeConfiguration(workload, ops); err != nil {
		return nil, err
	}
	if err := st.start(ctx, ops); err != nil {
		return nil, err
	}
	return st, nil
}

// errPortTaken is when another process took a port between our looking and the server's listening.
var errPortTaken = errors.New("a port was taken by another process")

// freeAddresses asks the kernel for two loopback ports that are free now. Both are held until both are known: they differ.
func freeAddresses() (workload, ops string, err error) {
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer one.Close()
	two, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer two.Close()
	return one.Addr().String(), two.Addr().String(), nil
}

func (st *stage) writeConfiguration(workload, ops string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "cluster-1", Algorithm: string(jose.ES256), Use: "sig"}
	if st.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil); err != nil {
		return err
	}
	public, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	if err != nil {
		return err
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand since Go 1.24)
	files := map[string][]byte{
		"cluster-1.jwks.json": public,
		"secrets/kek":         []byte(base64.StdEncoding.EncodeToString(kek) + "\n"),
	}
	for name, template := range map[string]string{
		"sallyport.yaml": "sallyport.yaml", "trust/prod.yaml": "trust.yaml", "targets/gateway.yaml": "gateway.yaml",
		"targets/orders.yaml": "orders.yaml", "policy/shop.yaml": "policy.yaml",
	} {
		if files[name], err = render(template, map[string]string{"Issuer": st.issuer, "Workload": workload, "Ops": ops}); err != nil {
			return err
		}
	}
	for name, content := range files {
		path := filepath.Join(st.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func render(name string, values map[string]string) ([]byte, error) {
	t, err := template.ParseFS(demoFiles, "demo/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, values)
	return b.Bytes(), err
}

// start runs this very binary as the server and waits until it is ready.
func (st *stage) start(ctx context.Context, ops string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(st.dir, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	st.server = exec.Command(self, "serve", st.dir)
	st.server.Stderr = log
	if err := st.server.Start(); err != nil {
		return err
	}
	go func() { st.ended <- st.server.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// By its own word first: an answer from the port alone could be another process's.
		if said, err := os.ReadFile(log.Name()); err == nil && bytes.Contains(said, []byte(`"message":"serving"`)) {
			if resp, err := http.Get("http://" + ops + "/readyz"); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		select {
		case err := <-st.ended:
			said, _ := os.ReadFile(log.Name())
			if bytes.Contains(said, []byte("address already in use")) {
				return fmt.Errorf("%w: %s", errPortTaken, said)
			}
			return fmt.Errorf("the server ended before it was ready (%v): %s", err, said)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), st.stop())
		case <-tick.C:
		}
	}
}

// stop ends the server by its process id and waits for it.
func (st *stage) stop() error {
	st.stopping.Do(func() {
		if err := st.server.Process.Signal(syscall.SIGTERM); err != nil {
			st.stopErr = err
			return
		}
		select {
		case st.stopErr = <-st.ended:
		case <-time.After(30 * time.Second):
			_ = st.server.Process.Kill()
			st.stopErr = errors.New("it did not end within 30 seconds")
		}
	})
	return st.stopErr
}

// token signs what a Kubernetes cluster would have projected into the pod of a service account in shop.
func (st *stage) token(account string) string {
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"iss": "https://kubernetes.prod.example",
		"aud": []string{st.issuer},
		"sub": "system:serviceaccount:shop:" + account,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		"jti": newID(),
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"serviceaccount": map[string]string{"name": account, "uid": "0a1b2c3d-0000-4000-8000-00000000beef"},
			"pod":            map[string]string{"name": account + "-6f9c", "uid": "0a1b2c3d-0000-4000-8000-00000000cafe"},
		},
	})
	if err != nil {
		return ""
	}
	jws, err := st.signer.Sign(payload)
	if err != nil {
		return ""
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		return ""
	}
	return token
}

func (st *stage) post(ctx context.Context, path, bearer string, form url.Values) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, st.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	st.lastDecision = resp.Header.Get("Sallyport-Decision")
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || len(body) == 0 {
		return resp.StatusCode, nil, err
	}
	var answer map[string]any
	return resp.StatusCode, answer, json.Unmarshal(body, &answer)
}

// claimsOf shows a token's payload, unverified, for reading.
func claimsOf(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	var b bytes.Buffer
	if err != nil || json.Indent(&b, raw, "", "  ") != nil {
		return "(no JWT)"
	}
	return b.String()
}

// shortened shows an answer with any token in it cut: a demo's output ends up in tickets too.
func shortened(answer map[string]any) string {
	if t, ok := answer["access_token"].(string); ok && len(t) > 24 {
		answer = maps.Clone(answer)
		answer["access_token"] = t[:20] + "..."
	}
	b, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		return "(unprintable)"
	}
	return string(b)
}
