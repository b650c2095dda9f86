package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// Options are what a test may choose about its cluster. The zero value is a cluster that trusts nobody but
// itself.
type Options struct {
	// Audiences are the audiences of the API server's own tokens. Empty means the issuer URL alone, which is
	// Kubernetes' default.
	Audiences []string
	// AuthenticationConfiguration is the content of the --authentication-config file, see [AuthenticationConfiguration].
	// Empty means that no outside issuer is trusted.
	AuthenticationConfiguration []byte
}

// Cluster is a running API server with its own store. It has no nodes and no controllers.
type Cluster struct {
	Issuer    string // the API server's URL, and the exact iss of its service-account tokens
	Authority *Authority

	admin string // bearer of a member of system:masters
}

// Limits of a start. The server is ready after 3 s on two idle cores and after some 20 s on two busy ones.
const (
	etcdStart   = 30 * time.Second
	serverStart = 3 * time.Minute
	rbacDelay   = 15 * time.Second // authorization reads from a watch, so a new binding counts a moment later
)

// Start runs etcd and kube-apiserver until the test ends and returns when the server is ready and shows its
// discovery document and its keys to anonymous callers, as clusters on the big clouds do.
func Start(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), serverStart)
	defer cancel()
	etcdPath, err := Etcd(ctx, tb.Output())
	if err != nil {
		tb.Fatal(err)
	}
	// Not bound to ctx: a first build takes longer than a start may. TestMain normally built it already.
	serverPath, err := Binary(tb.Context(), tb.Output())
	if err != nil {
		tb.Fatal(err)
	}

	dir := tb.TempDir()
	c := &Cluster{Issuer: LoopbackURL(ports.Port()), Authority: NewAuthority(tb, dir), admin: rand.Text()}
	store := startEtcd(ctx, tb, dir, etcdPath)
	server := c.startServer(tb, dir, serverPath, store, o)
	admin := c.Admin()
	err = poll(ctx, 200*time.Millisecond, func() error {
		if err := server.Exited(); err != nil {
			return permanent{err}
		}
		return admin.Do(ctx, http.MethodGet, "/readyz", nil, nil)
	})
	if err != nil {
		tb.Fatalf("kube-apiserver did not get ready: %v", err)
	}
	c.publishDiscovery(ctx, tb)
	return c
}

// Admin returns a client that may do everything.
func (c *Cluster) Admin() *Client { return c.Client(c.admin) }

// Anonymous returns a client without credentials.
func (c *Cluster) Anonymous() *Client { return c.Client("") }

// Client returns a client with that bearer token.
func (c *Cluster) Client(bearer string) *Client {
	return newClient(c.Issuer, c.Authority.Pool, bearer)
}

// AuthenticationConfiguration returns deploy/kubernetes/authentication-config.yaml with the issuer and the CA of a test in
// place of the sample's: what an API server must be told to accept Sallyport's tokens, and Sallyport itself.
func AuthenticationConfiguration(tb testing.TB, issuer string, caPEM []byte) []byte {
	tb.Helper()
	text := readDeploy(tb, "authentication-config.yaml")
	for sample, real := range map[string]string{
		"https://sts.example":       issuer,
		"CERTIFICATE-AUTHORITY-PEM": strings.ReplaceAll(strings.TrimSpace(string(caPEM)), "\n", "\n        "),
	} {
		if strings.Count(text, sample) != 2 {
			tb.Fatalf("authentication-config.yaml has %s %d times, want once in each entry", sample, strings.Count(text, sample))
		}
		text = strings.ReplaceAll(text, sample, real)
	}
	return []byte(text)
}

// readDeploy reads a sample that users copy.
func readDeploy(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// startEtcd returns the URL of a store that answers.
func startEtcd(ctx context.Context, tb testing.TB, dir, path string) string {
	tb.Helper()
	client := "http://127.0.0.1:" + strconv.Itoa(ports.Port())
	peer := "http://127.0.0.1:" + strconv.Itoa(ports.Port())
	var env []string
	if runtime.GOARCH != "amd64" {
		env = []string{"ETCD_UNSUPPORTED_ARCH=" + runtime.GOARCH} // without it etcd 3.4 refuses to start there
	}
	p := Run(tb, dir, Program{
		Name: "etcd",
		Path: path,
		Args: []string{
			"--data-dir=" + filepath.Join(dir, "etcd"),
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
			"--logger=zap", "--log-level=warn",
		},
		Env: env,
	})
	ctx, cancel := context.WithTimeout(ctx, etcdStart)
	defer cancel()
	health := newClient(client, nil, "")
	err := poll(ctx, 50*time.Millisecond, func() error {
		if err := p.Exited(); err != nil {
			return permanent{err}
		}
		return health.Do(ctx, http.MethodGet, "/health", nil, nil)
	})
	if err != nil {
		tb.Fatalf("etcd did not get ready: %v", err)
	}
	return client
}

func (c *Cluster) startServer(tb testing.TB, dir, path, store string, o Options) *Process {
	tb.Helper()
	cert, key := filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key")
	c.Authority.Issue(tb, cert, key)
	signer := filepath.Join(dir, "service-account.key")
	WriteFile(tb, signer, newServiceAccountKey(tb), 0o600)
	tokens := filepath.Join(dir, "tokens.csv")
	WriteFile(tb, tokens, []byte(c.admin+",admin,admin,system:masters\n"), 0o600)
	audiences := o.Audiences
	if len(audiences) == 0 {
		audiences = []string{c.Issuer}
	}

	_, port, _ := strings.Cut(strings.TrimPrefix(c.Issuer, "https://"), ":")
	args := []string{
		"--etcd-servers=" + store,
		"--bind-address=127.0.0.1",
		"--secure-port=" + port,
		"--tls-cert-file=" + cert, "--tls-private-key-file=" + key,
		"--cert-dir=" + dir,
		"--service-account-issuer=" + c.Issuer,
		// By default the document points at the address of the node, which no caller on the loopback address
		// can verify.
		"--service-account-jwks-uri=" + c.Issuer + "/openid/v1/jwks",
		"--service-account-key-file=" + signer, "--service-account-signing-key-file=" + signer,
		"--api-audiences=" + strings.Join(audiences, ","),
		"--authorization-mode=RBAC",
		"--token-auth-file=" + tokens,
		"--service-cluster-ip-range=10.96.0.0/16",
		// Nothing here creates the service account that this plugin wants every pod to have.
		"--disable-admission-plugins=ServiceAccount",
	}
	if len(o.AuthenticationConfiguration) > 0 {
		config := filepath.Join(dir, "authentication.yaml")
		WriteFile(tb, config, o.AuthenticationConfiguration, 0o600)
		args = append(args, "--authentication-config="+config)
	}
	return Run(tb, dir, Program{Name: "kube-apiserver", Path: path, Args: args})
}

// publishDiscovery lets anonymous callers read the discovery document and the keys, which Kubernetes keeps to
// authenticated ones unless an administrator binds the role.
func (c *Cluster) publishDiscovery(ctx context.Context, tb testing.TB) {
	tb.Helper()
	const bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	if err := c.Admin().Apply(ctx, bindings, readDeploy(tb, "issuer-discovery.yaml")); err != nil {
		tb.Fatalf("creating what deploy/kubernetes/issuer-discovery.yaml says: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, rbacDelay)
	defer cancel()
	err := poll(ctx, 50*time.Millisecond, func() error {
		return c.Anonymous().Do(ctx, http.MethodGet, "/.well-known/openid-configuration", nil, nil)
	})
	if err != nil {
		tb.Fatalf("reading the discovery document without credentials: %v", err)
	}
}

// newServiceAccountKey returns a PEM RSA key, so that service-account tokens are RS256 as on nearly every
// cluster.
func newServiceAccountKey(tb testing.TB) []byte {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatalf("generating the service-account key: %v", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encoding the service-account key: %v", err)
	}
	return encode("PRIVATE KEY", der)
}

// permanent marks an error that waiting will not cure.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// poll calls try until it returns nil, a permanent error, or ctx ends; then it returns the last error of try
// that was more than the end of ctx.
func poll(ctx context.Context, every time.Duration, try func() error) error {
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if stop, ok := err.(permanent); ok {
			return stop.error
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up (%w); last answer: %w", context.Cause(ctx), last)
		case <-time.After(every):
		}
	}
}
