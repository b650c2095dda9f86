package brokertest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Assertions signs assertions, as [brokers.Deps] wants it, with a key of its own, and verifies them for fakes.
type Assertions struct {
	algorithm jose.SignatureAlgorithm
	key       crypto.Signer
}

// NewAssertions makes a key for ES256 or RS256.
func NewAssertions(t testing.TB, algorithm jose.SignatureAlgorithm) *Assertions {
	t.Helper()
	var key crypto.Signer
	var err error
	if algorithm == jose.RS256 {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Assertions{algorithm, key}
}

// Sign implements [brokers.Signer].
func (a *Assertions) Sign(_ context.Context, h brokers.Header, claims any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a.algorithm, Key: jose.JSONWebKey{Key: a.key, KeyID: "assertions-1"}}, (&jose.SignerOptions{}).WithType(jose.ContentType(h.Type)))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// Verify checks a signature, and returns what was signed.
func (a *Assertions) Verify(j *jose.JSONWebSignature) ([]byte, error) {
	return j.Verify(a.key.Public())
}

// Fake is what fakes of HTTP APIs have in common: they remember what they were asked, and a test can answer in their place or change
// what they answer.
type Fake struct {
	URL         string
	Certificate *x509.Certificate // of a fake that was started by StartTLS

	mu     sync.Mutex
	asked  []Request
	before func(w http.ResponseWriter, r *http.Request) bool
	change func(answer string) string
}

// Request is one that a fake was sent.
type Request struct {
	Path string
	Form url.Values // nil for a body that is none
	Body string
}

// Start serves until the test ends.
func (f *Fake) Start(t testing.TB, answer http.HandlerFunc) {
	t.Helper()
	server := httptest.NewServer(f.handler(answer))
	t.Cleanup(server.Close)
	f.URL = server.URL
}

// StartTLS is Start over https, with a certificate that signs itself.
func (f *Fake) StartTLS(t testing.TB, answer http.HandlerFunc) {
	t.Helper()
	server := httptest.NewTLSServer(f.handler(answer))
	t.Cleanup(server.Close)
	f.URL, f.Certificate = server.URL, server.Certificate()
}

func (f *Fake) handler(answer http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "the body", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		asked := Request{Path: r.URL.Path, Body: string(body)}
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			asked.Form, _ = url.ParseQuery(asked.Body)
		}
		f.mu.Lock()
		f.asked = append(f.asked, asked)
		before, change := f.before, f.change
		f.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		said := httptest.NewRecorder()
		answer(said, r)
		text := said.Body.String()
		if change != nil && said.Code == http.StatusOK {
			text = change(text)
		}
		for k, v := range said.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(said.Code)
		_, _ = w.Write([]byte(text))
	})
}

// Before lets a test answer in the fake's place: true, it has answered.
func (f *Fake) Before(g func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = g
}

// Change lets a test change what is answered with the status 200.
func (f *Fake) Change(g func(string) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change = g
}

// Asked returns what the fake was asked, oldest first.
func (f *Fake) Asked() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Request(nil), f.asked...)
}
