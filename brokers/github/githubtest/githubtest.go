// Package githubtest is a FAKE of the part of GitHub's REST API that makes and revokes installation tokens of a GitHub App. It is
// no GitHub: it holds requests to what the published documentation says (REST version 2022-11-28), answers in its shapes, and
// refuses with its codes.
package githubtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What the fake's App is.
const (
	App          = "Iv1.0123456789abcdef"
	Installation = 42
)

// Server is the fake. Its installation has the repositories 1 to 1000 and the permissions contents and packages, up to write, and
// metadata.
type Server struct {
	URL string
	PEM string // the App's private key

	public *rsa.PublicKey // of the App
	mu     sync.Mutex
	tokens map[string][]int64 // repositories of each that is alive
	made   int
	before func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	change func(map[string]any)                              // of what is answered to a mint
}

// Knows makes another key that of the App.
func (s *Server) Knows(public *rsa.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.public = public
}

func (s *Server) key() *rsa.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.public
}

// New runs a server until the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{public: &key.PublicKey, tokens: map[string][]int64{}}
	s.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /app/installations/{id}/access_tokens", s.create)
	mux.HandleFunc("DELETE /installation/token", s.revoke)
	mux.HandleFunc("GET /installation/repositories", s.repositories)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.before
		s.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		if r.Header.Get("User-Agent") == "" {
			refuse(w, http.StatusForbidden, "Request forbidden by administrative rules")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Before lets a test answer in the server's place.
func (s *Server) Before(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Change lets a test change what is answered to a mint.
func (s *Server) Change(f func(map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = f
}

// Alive returns how many tokens are.
func (s *Server) Alive() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

// Made returns how many tokens were made.
func (s *Server) Made() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message, "documentation_url": "https://docs.github.com/rest", "status": fmt.Sprint(status)})
}

// app verifies the App's JWT: RS256, its issuer, no longer than ten minutes, not issued in the future.
func (s *Server) app(r *http.Request) string {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if !ok || err != nil {
		return "A JSON web token could not be decoded"
	}
	payload, err := jws.Verify(s.key())
	var c struct {
		Iss      string
		Iat, Exp int64
	}
	now := time.Now().Unix()
	switch {
	case err != nil || json.Unmarshal(payload, &c) != nil || c.Iss != App:
		return "A JSON web token could not be decoded"
	case c.Iat > now:
		return "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	case c.Exp <= now || c.Exp > now+600:
		return "'Expiration time' claim ('exp') is too far in the future"
	}
	return ""
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	if why := s.app(r); why != "" {
		refuse(w, http.StatusUnauthorized, why)
		return
	}
	if r.PathValue("id") != fmt.Sprint(Installation) {
		refuse(w, http.StatusNotFound, "Not Found")
		return
	}
	var in struct {
		Repositories []int64           `json:"repository_ids"`
		Permissions  map[string]string `json:"permissions"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	}
	if len(in.Repositories) > 500 {
		refuse(w, http.StatusUnprocessableEntity, "There are too many repositories")
		return
	}
	out := map[string]any{"expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "repository_selection": "selected"}
	if len(in.Repositories) == 0 { // as documented: all of them
		out["repository_selection"] = "all"
	}
	var list []map[string]any
	for _, id := range in.Repositories {
		if id < 1 || id > 1000 {
			refuse(w, http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.")
			return
		}
		list = append(list, map[string]any{"id": id, "name": fmt.Sprint("r", id), "full_name": fmt.Sprint("acme/r", id)})
	}
	out["repositories"] = list
	given := map[string]string{"metadata": "read"}
	if len(in.Permissions) == 0 { // as documented: all of the App's
		given = map[string]string{"metadata": "read", "contents": "write", "packages": "write"}
	}
	for name, level := range in.Permissions {
		if name != "contents" && name != "packages" || level != "read" && level != "write" {
			refuse(w, http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation.")
			return
		}
		given[name] = level
	}
	out["permissions"] = given
	token := "ghs_" + rand.Text() + "." + rand.Text() + "." + strings.Repeat("x", 480) // the form of 2026: long, with dots
	s.mu.Lock()
	s.tokens[token] = in.Repositories
	s.made++
	change := s.change
	s.mu.Unlock()
	out["token"] = token
	if change != nil {
		change(out)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(out)
}

// holder returns the token that a request shows, if it is alive.
func (s *Server) holder(r *http.Request) (string, bool) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.tokens[token]
	return token, ok
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	token, ok := s.holder(r)
	if !ok {
		refuse(w, http.StatusUnauthorized, "Bad credentials")
		return
	}
	s.mu.Lock()
	delete(s.tokens, token)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) repositories(w http.ResponseWriter, r *http.Request) {
	token, ok := s.holder(r)
	if !ok {
		refuse(w, http.StatusUnauthorized, "Bad credentials")
		return
	}
	s.mu.Lock()
	ids := slices.Clone(s.tokens[token])
	s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"total_count": len(ids), "repositories": ids})
}

// Works asks for the repositories of a token, as any client does.
func (s *Server) Works(token string) error {
	req, err := http.NewRequest(http.MethodGet, s.URL+"/installation/repositories", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answers %d", res.StatusCode)
	}
	return nil
}
