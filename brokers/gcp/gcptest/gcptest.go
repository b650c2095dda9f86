// Package gcptest is a FAKE of three calls of Google Cloud: the Security Token Service's token (v1), and generateAccessToken and
// generateIdToken of the IAM Service Account Credentials API (v1). It is no Google: it holds requests to what the published
// documentation says, answers in its JSON, and refuses with its errors.
package gcptest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
)

// What the fake knows.
const (
	Provider       = "projects/739000000001/locations/global/workloadIdentityPools/platform/providers/sallyport"
	ServiceAccount = "108000000000000000001"
)

const (
	accessToken = "urn:ietf:params:oauth:token-type:access_token"
	boundable   = "//storage.googleapis.com/"
)

// Server is the fake of both APIs, at one URL.
type Server struct {
	brokertest.Fake
	Issuer  string // that the provider trusts
	Subject string // that the provider's attribute condition admits, and that may be the service account

	verify func(*jose.JSONWebSignature) ([]byte, error)
	mu     sync.Mutex
	tokens map[string]string // access tokens, and what each is: federated, impersonated or narrowed
}

// New runs a server until the test ends. verify checks the signature of an assertion by the issuer's keys.
func New(t testing.TB, issuer, subject string, verify func(*jose.JSONWebSignature) ([]byte, error)) *Server {
	t.Helper()
	s := &Server{Issuer: issuer, Subject: subject, verify: verify, tokens: map[string]string{}}
	s.Start(t, s.serve)
	return s
}

// Kind returns what an access token is; "" for none of the fake's.
func (s *Server) Kind(token string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token]
}

func (s *Server) make(kind string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := "ya29.d." + rand.Text() + rand.Text()
	s.tokens[token] = kind
	return token
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if r.Method != http.MethodPost {
		refuse(w, 404, "invalid_request", "no such call")
		return
	}
	if r.URL.Path == "/v1/token" {
		s.token(w, r)
		return
	}
	s.credentials(w, r)
}

// refuse answers as the STS does.
func refuse(w http.ResponseWriter, status int, code, description string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil || r.Header.Get("Authorization") != "" {
		refuse(w, 400, "invalid_request", "the call is a form, and has no Authorization")
		return
	}
	f := r.PostForm
	for _, v := range f {
		if len(v) != 1 {
			refuse(w, 400, "invalid_request", "a parameter stands twice")
			return
		}
	}
	switch {
	case f.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
		refuse(w, 400, "unsupported_grant_type", "grant_type")
	case f.Get("requested_token_type") != accessToken:
		refuse(w, 400, "invalid_request", "requested_token_type")
	case f.Get("subject_token_type") == accessToken:
		s.narrow(w, f)
	case f.Get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt":
		refuse(w, 400, "invalid_request", "subject_token_type")
	case f.Get("audience") != "//iam.googleapis.com/"+Provider:
		refuse(w, 400, "invalid_target", "The target service indicated by the \"audience\" parameters is invalid.")
	case f.Get("scope") == "":
		refuse(w, 400, "invalid_scope", "scope")
	default:
		if code, description := s.identity(f.Get("subject_token")); code != "" {
			refuse(w, 400, code, description)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": s.make("federated"), "issued_token_type": accessToken, "token_type": "Bearer", "expires_in": 3600})
	}
}

// narrow checks a credential access boundary.
func (s *Server) narrow(w http.ResponseWriter, f url.Values) {
	var o struct {
		Boundary struct {
			Rules []struct {
				Resource    string   `json:"availableResource"`
				Permissions []string `json:"availablePermissions"`
			} `json:"accessBoundaryRules"`
		} `json:"accessBoundary"`
	}
	if s.Kind(f.Get("subject_token")) == "" {
		refuse(w, 400, "invalid_grant", "Invalid subject token")
		return
	}
	if json.Unmarshal([]byte(f.Get("options")), &o) != nil || len(o.Boundary.Rules) == 0 || len(o.Boundary.Rules) > 10 || f.Has("audience") || f.Has("scope") {
		refuse(w, 400, "invalid_request", "options")
		return
	}
	for _, rule := range o.Boundary.Rules {
		if !strings.HasPrefix(rule.Resource, boundable) || len(rule.Permissions) == 0 || !strings.HasPrefix(rule.Permissions[0], "inRole:roles/") {
			refuse(w, 400, "invalid_request", "a rule of the boundary")
			return
		}
	}
	answer := map[string]any{"access_token": s.make("narrowed"), "issued_token_type": accessToken, "token_type": "Bearer"}
	if s.Kind(f.Get("subject_token")) == "federated" { // otherwise it is not said
		answer["expires_in"] = 3600
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// identity verifies an assertion as the provider does.
func (s *Server) identity(raw string) (code, description string) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil || jws.Signatures[0].Header.KeyID == "" {
		return "invalid_grant", "The ID Token cannot be parsed, or has no kid"
	}
	payload, err := s.verify(jws)
	if err != nil {
		return "invalid_grant", "Invalid signature"
	}
	var c struct {
		Iss, Sub string
		Aud      any
		Exp, Iat int64
	}
	now := time.Now().Unix()
	switch {
	case json.Unmarshal(payload, &c) != nil || c.Iss != s.Issuer:
		return "invalid_grant", "The issuer does not match"
	case c.Aud != "https://iam.googleapis.com/"+Provider && c.Aud != "//iam.googleapis.com/"+Provider:
		return "invalid_grant", "The audience in ID Token does not match the expected audience."
	case c.Iat > now || c.Exp <= now || c.Exp > c.Iat+24*3600:
		return "invalid_grant", "iat or exp"
	case len(c.Sub) > 127:
		return "invalid_grant", "google.subject is longer than 127 bytes"
	case c.Sub != s.Subject:
		return "unauthorized_client", "The given credential is rejected by the attribute condition."
	}
	return "", ""
}

// deny answers as Google's APIs do (google.rpc.Status).
func deny(w http.ResponseWriter, status int, word, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": status, "message": message, "status": word}})
}

func (s *Server) credentials(w http.ResponseWriter, r *http.Request) {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	method, ok := strings.CutPrefix(r.URL.Path, "/v1/projects/-/serviceAccounts/"+ServiceAccount+":")
	var in struct {
		Scope        []string
		Lifetime     string
		Delegates    []string
		Audience     string
		IncludeEmail bool
	}
	life, err := time.ParseDuration("3600s")
	bad := json.NewDecoder(r.Body).Decode(&in) != nil
	if in.Lifetime != "" {
		life, err = time.ParseDuration(in.Lifetime)
	}
	switch {
	case s.Kind(bearer) != "federated":
		deny(w, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
	case !ok:
		deny(w, 403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
	case method == "generateAccessToken" && (bad || len(in.Scope) == 0 || err != nil || life <= 0 || life > time.Hour || !strings.HasSuffix(in.Lifetime, "s")):
		deny(w, 400, "INVALID_ARGUMENT", "scope or lifetime")
	case method == "generateAccessToken":
		_ = json.NewEncoder(w).Encode(map[string]string{"accessToken": s.make("impersonated"), "expireTime": time.Now().Add(life).UTC().Format(time.RFC3339)})
	case method == "generateIdToken" && (bad || in.Audience == ""):
		deny(w, 400, "INVALID_ARGUMENT", "audience")
	case method == "generateIdToken":
		part := base64.RawURLEncoding.EncodeToString
		_ = json.NewEncoder(w).Encode(map[string]string{"token": part([]byte(`{"alg":"RS256"}`)) + "." + part(fmt.Appendf(nil, `{"aud":%q,"exp":%d}`, in.Audience, time.Now().Add(time.Hour).Unix())) + "." + part([]byte("signature"))})
	default:
		deny(w, 404, "NOT_FOUND", "no such method")
	}
}
