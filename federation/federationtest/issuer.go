// Package federationtest is a real issuer of identity tokens for tests, and a badly behaved one. Tokens are
// signed with real keys and verified for real: nothing in here fakes a verified token.
package federationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// Key is one signing key of an issuer.
type Key struct {
	ID        string
	Algorithm jose.SignatureAlgorithm
	Signer    crypto.Signer
}

// Public returns the key as it is published.
func (k Key) Public() jose.JSONWebKey {
	alg := string(k.Algorithm)
	return jose.JSONWebKey{Key: k.Signer.Public(), KeyID: k.ID, Algorithm: alg, Use: "sig"}
}

// NewKey makes a key for alg. RSA keys have 2048 bits and take some tenths of a second.
func NewKey(t testing.TB, id string, alg jose.SignatureAlgorithm) Key {
	t.Helper()
	var signer crypto.Signer
	var err error
	switch alg {
	case jose.ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA, federation.Ed25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatalf("making a %s key: %v", alg, err)
	}
	return Key{ID: id, Algorithm: alg, Signer: signer}
}

// Issuer is an OpenID issuer with discovery and a key set. It is safe for concurrent use.
type Issuer struct {
	url    string
	caFile string
	server *httptest.Server

	discoveries, fetches atomic.Int64

	mu        sync.Mutex
	keys      []Key // the last one signs
	published []jose.JSONWebKey
	maxAge    time.Duration
	down      bool
	made      int
	t         testing.TB
}

// New starts an issuer over plain http on loopback, with one ES256 key. It stops with the test. Clients
// need [Issuer.Network].
func New(t testing.TB) *Issuer { return start(t, jose.ES256, false, nil) }

// NewTLS is New over https with a certificate authority of its own, see [Issuer.CAFile].
func NewTLS(t testing.TB) *Issuer { return start(t, jose.ES256, true, nil) }

// NewAlgorithm is New with a first key for alg.
func NewAlgorithm(t testing.TB, alg jose.SignatureAlgorithm) *Issuer {
	return start(t, alg, false, nil)
}

// NewNamed returns an issuer that calls itself url and serves nothing: its keys are had by
// [Issuer.KeySet] or [Issuer.JWKS].
func NewNamed(t testing.TB, url string, alg jose.SignatureAlgorithm) *Issuer {
	t.Helper()
	iss := &Issuer{t: t, url: url}
	iss.Rotate(alg)
	return iss
}

func start(t testing.TB, alg jose.SignatureAlgorithm, tls bool, wrap func(*Issuer, http.Handler) http.Handler) *Issuer {
	t.Helper()
	iss := &Issuer{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+oidc.DiscoveryEndpoint, iss.discovery)
	mux.HandleFunc("GET /keys", iss.serveKeys)
	var handler http.Handler = mux
	if wrap != nil {
		handler = wrap(iss, mux)
	}
	iss.server = httptest.NewUnstartedServer(handler)
	if tls {
		iss.server.StartTLS()
		iss.caFile = filepath.Join(t.TempDir(), "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: iss.server.Certificate().Raw})
		if err := os.WriteFile(iss.caFile, block, 0o600); err != nil {
			t.Fatalf("writing the issuer's certificate: %v", err)
		}
	} else {
		iss.server.Start()
	}
	iss.url = iss.server.URL
	t.Cleanup(func() {
		iss.server.CloseClientConnections()
		iss.server.Close()
	})
	iss.Rotate(alg)
	return iss
}

// URL returns the issuer identifier.
func (i *Issuer) URL() string { return i.url }

// JWKSURL returns where the key set is served.
func (i *Issuer) JWKSURL() string { return i.url + "/keys" }

// CAFile returns a PEM file with the certificate authority of an issuer made by NewTLS, else "".
func (i *Issuer) CAFile() string { return i.caFile }

// Network returns what a client must be allowed to reach the issuer.
func (i *Issuer) Network() fetch.Network {
	return fetch.Network{AllowPrivate: true, AllowHTTP: i.caFile == "", CAFile: i.caFile}
}

// Algorithms returns the algorithms of the keys, without repetition.
func (i *Issuer) Algorithms() []jose.SignatureAlgorithm {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []jose.SignatureAlgorithm
	for _, k := range i.keys {
		if !slices.Contains(out, k.Algorithm) {
			out = append(out, k.Algorithm)
		}
	}
	return out
}

// KeySpec returns a spec that discovers the issuer's keys.
func (i *Issuer) KeySpec() federation.KeySpec {
	return federation.KeySpec{Issuer: i.url, Discovery: true, Algorithms: i.Algorithms(), Network: i.Network()}
}

// KeySet returns the keys published now, as a key set that never changes.
func (i *Issuer) KeySet() oidc.KeySet {
	i.t.Helper()
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	source, err := cache.Source(federation.KeySpec{Issuer: i.url, Inline: i.JWKS(), Algorithms: i.Algorithms()})
	if err != nil {
		i.t.Fatalf("key set of %s: %v", i.url, err)
	}
	return source
}

// JWKS returns the key set as it is served.
func (i *Issuer) JWKS() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: i.published})
	if err != nil {
		i.t.Fatalf("marshalling a key set: %v", err)
	}
	return b
}

// WriteJWKS writes the key set to a file in a temporary directory and returns its path.
func (i *Issuer) WriteJWKS() string {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, i.JWKS(), 0o600); err != nil {
		i.t.Fatalf("writing a key set: %v", err)
	}
	return path
}

// Rotate makes a new key for alg, publishes it beside the others, and signs with it from now on.
func (i *Issuer) Rotate(alg jose.SignatureAlgorithm) Key {
	i.t.Helper()
	i.mu.Lock()
	i.made++
	id := fmt.Sprintf("key-%d", i.made)
	i.mu.Unlock()
	k := NewKey(i.t, id, alg)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, k)
	i.published = append(i.published, k.Public())
	return k
}

// Withdraw stops publishing the keys with these ids. The issuer can still sign with them.
func (i *Issuer) Withdraw(ids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.DeleteFunc(slices.Clone(i.published), func(k jose.JSONWebKey) bool { return slices.Contains(ids, k.KeyID) })
}

// Publish replaces what is served, signing keys untouched.
func (i *Issuer) Publish(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = keys
}

// Key returns the key that signs now.
func (i *Issuer) Key() Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// SetMaxAge sets max-age of the key set's Cache-Control, 0 for none.
func (i *Issuer) SetMaxAge(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.maxAge = d
}

// SetDown makes every request answer 503, with a body that must not be repeated anywhere.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Fetches returns how often the key set was asked for, failures included.
func (i *Issuer) Fetches() int { return int(i.fetches.Load()) }

// Discoveries returns how often the metadata was asked for.
func (i *Issuer) Discoveries() int { return int(i.discoveries.Load()) }

// SecretBody stands in the error answers of issuers. A test that finds it in an error or a log has found a
// leak.
const SecretBody = "internal-answer-that-must-not-leak"

func (i *Issuer) unavailable(w http.ResponseWriter) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.down {
		http.Error(w, SecretBody, http.StatusServiceUnavailable)
	}
	return i.down
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	i.discoveries.Add(1)
	if i.unavailable(w) {
		return
	}
	i.answer(w, map[string]any{"issuer": i.url, "jwks_uri": i.JWKSURL()})
}

func (i *Issuer) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may have hung up
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	i.fetches.Add(1)
	if i.unavailable(w) {
		return
	}
	i.mu.Lock()
	if i.maxAge > 0 {
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(i.maxAge.Seconds())))
	}
	i.mu.Unlock()
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, _ = w.Write(i.JWKS())
}
