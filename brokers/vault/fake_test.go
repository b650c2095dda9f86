package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// contract is a server that answers as the published API of Vault says, for what the real one in test/vault cannot be made
// to say: answers that are wrong. It keeps tokens, leases and wrapping tokens, and no policies.
type contract struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	calls   []seen
	tokens  map[string]*fakeToken // by token
	wrapped map[string]string     // wrapping token -> accessor
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey

	// bend changes an answer before it is sent: path, then the answer. It may return another status.
	bend func(path string, a map[string]any) int
	// sign changes what the pki engine certifies.
	sign func(*x509.Certificate)
}

// seen is a request.
type seen struct {
	method, path, query, token, wrap, namespace string
	body                                        map[string]any
	header                                      http.Header
}

type fakeToken struct{ accessor, parent, kind string }

func newContract(t testing.TB) *contract {
	t.Helper()
	c := &contract{t: t, tokens: map[string]*fakeToken{}, wrapped: map[string]string{}}
	c.caKey, c.ca = authority(t)
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

func authority(t testing.TB) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func (c *contract) requests() []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]seen{}, c.calls...)
}

func (c *contract) paths() string {
	var out []string
	for _, s := range c.requests() {
		out = append(out, s.path)
	}
	return strings.Join(out, " ")
}

// living returns how many tokens of ours live.
func (c *contract) living() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tokens)
}

func (c *contract) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := seen{
		method: r.Method, path: strings.TrimPrefix(r.URL.Path, "/v1/"), query: r.URL.RawQuery, header: r.Header.Clone(),
		token: r.Header.Get("X-Vault-Token"), wrap: r.Header.Get("X-Vault-Wrap-TTL"), namespace: r.Header.Get("X-Vault-Namespace"),
	}
	_ = json.NewDecoder(r.Body).Decode(&s.body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, s)
	status, a := c.answer(s)
	if status < 300 && s.wrap != "" && a != nil {
		a = c.wrap(s, a)
	}
	if c.bend != nil {
		if a == nil {
			a = map[string]any{}
		}
		if other := c.bend(s.path, a); other != 0 {
			status = other
		}
	}
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if to, ok := a["location"].(string); ok {
		w.Header().Set("Location", to)
	}
	w.WriteHeader(status)
	if raw, ok := a["raw"].(string); ok {
		_, _ = w.Write([]byte(raw))
		return
	}
	_ = json.NewEncoder(w).Encode(a)
}

func refuse(status int, text string) (int, map[string]any) {
	return status, map[string]any{"errors": []string{text}}
}

func (c *contract) answer(s seen) (int, map[string]any) {
	if strings.HasSuffix(s.path, "/login") {
		if role, _ := s.body["role"].(string); role == "batch" || role == "revoker" {
			return 200, c.issue("", "batch", 300)
		}
		return 200, c.issue("", "service", 960)
	}
	t, ok := c.tokens[s.token]
	if !ok {
		return refuse(403, "permission denied")
	}
	switch {
	case s.path == "auth/token/create":
		life, err := time.ParseDuration(fmt.Sprint(s.body["explicit_max_ttl"]))
		if err != nil {
			return refuse(400, "\"explicit_max_ttl\" value could not be parsed")
		}
		a := c.issue(s.token, "service", int(life/time.Second))
		a["auth"].(map[string]any)["renewable"] = s.body["renewable"]
		a["auth"].(map[string]any)["policies"] = s.body["policies"]
		a["auth"].(map[string]any)["token_policies"] = s.body["policies"]
		return 200, a
	case s.path == "auth/token/revoke-self":
		c.drop(s.token)
		return 204, nil
	case s.path == "auth/token/revoke-accessor" || s.path == "auth/token/lookup-accessor":
		for value, t := range c.tokens {
			if t.accessor != "" && t.accessor == s.body["accessor"] {
				if s.path == "auth/token/revoke-accessor" {
					c.drop(value)
					return 204, nil
				}
				return 200, map[string]any{"data": map[string]any{"accessor": t.accessor}}
			}
		}
		for value, accessor := range c.wrapped {
			if accessor == s.body["accessor"] {
				delete(c.wrapped, value)
				return 204, nil
			}
		}
		if s.path == "auth/token/revoke-accessor" { // as Vault 1.14 does
			return 200, map[string]any{"warnings": []string{"No token found with this accessor"}}
		}
		return refuse(403, "invalid accessor")
	case strings.HasPrefix(s.path, "sys/leases/revoke/"):
		return 204, nil
	case strings.HasPrefix(s.path, "pki/sign/"):
		return c.certify(s)
	case strings.HasPrefix(s.path, "kv/"):
		return 200, map[string]any{"lease_id": "", "lease_duration": 2764800, "data": map[string]any{"password": secretText}}
	case s.method == http.MethodGet:
		_ = t
		return 200, map[string]any{"lease_id": s.path + "/" + rand.Text(), "lease_duration": 120, "renewable": true,
			"data": map[string]any{"username": "v-user", "password": secretText}}
	}
	return refuse(404, "no handler for route")
}

const secretText = "s3cr3t-of-the-engine"

func (c *contract) issue(parent, kind string, life int) map[string]any {
	value, accessor := "hvs."+rand.Text(), rand.Text()
	if kind == "batch" {
		value, accessor = "hvb."+rand.Text(), ""
	}
	c.tokens[value] = &fakeToken{accessor, parent, kind}
	return map[string]any{"lease_id": "", "lease_duration": 0, "data": nil, "auth": map[string]any{
		"client_token": value, "accessor": accessor, "token_type": kind, "lease_duration": life, "renewable": kind == "service",
		"policies": []string{"p"}, "token_policies": []string{"p"}, "orphan": parent == "", "entity_id": "e",
	}}
}

func (c *contract) drop(token string) {
	delete(c.tokens, token)
	for value, t := range maps.Clone(c.tokens) {
		if t.parent == token {
			c.drop(value)
		}
	}
}

func (c *contract) wrap(s seen, a map[string]any) map[string]any {
	ttl, err := time.ParseDuration(s.wrap)
	if err != nil {
		c.t.Errorf("the wrap ttl is %q", s.wrap)
	}
	value, accessor := "hvs."+rand.Text(), rand.Text()
	c.wrapped[value] = accessor
	info := map[string]any{"token": value, "accessor": accessor, "ttl": int(ttl / time.Second), "creation_time": time.Now().Format(time.RFC3339Nano), "creation_path": s.path}
	if auth, ok := a["auth"].(map[string]any); ok {
		info["wrapped_accessor"] = auth["accessor"]
	}
	return map[string]any{"lease_id": "", "lease_duration": 0, "data": nil, "auth": nil, "wrap_info": info}
}

// certify signs as a pki role does that is set as Trust prints it: names of the call, none of the request. That a real one
// does, test/vault shows.
func (c *contract) certify(s seen) (int, map[string]any) {
	text, _ := s.body["csr"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return refuse(400, "certificate request could not be parsed")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return refuse(400, "certificate request could not be parsed")
	}
	ttl, err := time.ParseDuration(fmt.Sprint(s.body["ttl"]))
	if err != nil {
		return refuse(400, "bad ttl")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-30 * time.Second), NotAfter: time.Now().Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, PublicKey: csr.PublicKey,
	}
	if cn, ok := s.body["common_name"].(string); ok {
		template.Subject.CommonName = cn
	}
	uris, _ := s.body["uri_sans"].([]any)
	for _, u := range uris {
		parsed, err := url.Parse(u.(string))
		if err != nil {
			return refuse(400, "the requested URI is not allowed")
		}
		template.URIs = append(template.URIs, parsed)
	}
	if c.sign != nil {
		c.sign(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.ca, template.PublicKey, c.caKey)
	if err != nil {
		return refuse(500, err.Error())
	}
	return 200, map[string]any{"lease_id": "", "data": map[string]any{
		"certificate": pemOf(der), "issuing_ca": pemOf(c.ca.Raw), "ca_chain": []string{pemOf(c.ca.Raw)}, "serial_number": "aa:bb", "expiration": template.NotAfter.Unix(),
	}}
}

func pemOf(der []byte) string {
	return string(bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// csr returns a request as a workload sends it.
func csr(t testing.TB, template *x509.CertificateRequest, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}
