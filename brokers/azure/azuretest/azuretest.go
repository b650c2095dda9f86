// Package azuretest is a FAKE of one call of Microsoft Entra: a token by client credentials with a federated credential (Microsoft
// identity platform v2.0). It is no Entra: it holds requests to what the published documentation says, answers in its JSON, and refuses
// with its errors. It serves the discovery document as well, which Microsoft's libraries read first.
package azuretest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
)

// What the fake knows.
const (
	Tenant   = "11111111-2222-3333-4444-555555555555"
	Client   = "66666666-7777-8888-9999-000000000000"
	Resource = "https://vault.azure.net"
	Life     = 75 * time.Minute // which the directory chooses
)

// Server is the fake.
type Server struct {
	brokertest.Fake
	Issuer, Subject string // of the application's federated credential

	verify func(*jose.JSONWebSignature) ([]byte, error)
}

// New runs a server, over https, until the test ends. verify checks the signature of an assertion by the issuer's keys.
func New(t testing.TB, issuer, subject string, verify func(*jose.JSONWebSignature) ([]byte, error)) *Server {
	t.Helper()
	s := &Server{Issuer: issuer, Subject: subject, verify: verify}
	s.StartTLS(t, s.serve)
	return s
}

// refuse answers as Entra does.
func refuse(w http.ResponseWriter, status int, word string, code int, text string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"error": word, "error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: 0f Correlation ID: 0f", code, text), "error_codes": []int{code},
		"timestamp": time.Now().UTC().Format("2006-01-02 15:04:05Z"), "trace_id": "0f", "correlation_id": "0f",
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	base := "/" + Tenant
	switch r.URL.Path {
	case base + "/v2.0/.well-known/openid-configuration":
		at := s.URL + base
		_ = json.NewEncoder(w).Encode(map[string]string{"token_endpoint": at + "/oauth2/v2.0/token", "issuer": at + "/v2.0", "authorization_endpoint": at + "/oauth2/v2.0/authorize"})
	case base + "/oauth2/v2.0/token":
		s.token(w, r)
	default:
		refuse(w, 400, "invalid_request", 90002, "Tenant not found.")
	}
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ParseForm() != nil || r.Header.Get("Authorization") != "" {
		refuse(w, 400, "invalid_request", 900144, "The request body must be a form.")
		return
	}
	f := r.PostForm
	var scopes []string // without those of OpenID Connect, which Microsoft's libraries always add and Entra passes over
	for _, s := range strings.Fields(f.Get("scope")) {
		if !slices.Contains([]string{"openid", "profile", "offline_access"}, s) {
			scopes = append(scopes, s)
		}
	}
	switch {
	case f.Get("grant_type") != "client_credentials":
		refuse(w, 400, "unsupported_grant_type", 70003, "The grant type is not supported.")
	case f.Get("client_id") != Client:
		refuse(w, 400, "unauthorized_client", 700016, "Application was not found in the directory.")
	case f.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		refuse(w, 401, "invalid_client", 7000218, "client_assertion is missing.")
	case len(scopes) != 1 || !strings.HasSuffix(scopes[0], "/.default"):
		refuse(w, 400, "invalid_scope", 1002012, "The provided value for scope is not valid: client credentials need a resource and /.default.")
	case scopes[0] != Resource+"/.default":
		refuse(w, 400, "invalid_resource", 500011, "The resource principal was not found.")
	default:
		if code, text := s.identity(f.Get("client_assertion")); code != 0 {
			refuse(w, 401, "invalid_client", code, text)
			return
		}
		seconds := int(Life / time.Second)
		_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": "eyJ0eXAiOiJKV1QifQ." + rand.Text() + "." + rand.Text()})
	}
}

// identity verifies an assertion as the federated credential has it.
func (s *Server) identity(raw string) (code int, text string) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || jws.Signatures[0].Header.KeyID == "" {
		return 5002723, "The assertion is no JWT that is signed with RS256 and names its key."
	}
	payload, err := s.verify(jws)
	if err != nil {
		return 5002738, "The signature of the assertion does not verify."
	}
	var c struct {
		Iss, Sub      string
		Aud           any
		Exp, Iat, Nbf int64
	}
	now := time.Now().Unix()
	switch {
	case json.Unmarshal(payload, &c) != nil || c.Iss != s.Issuer || len(c.Iss) > 600:
		return 700211, "No matching federated identity record found for presented assertion issuer."
	case c.Aud != "api://AzureADTokenExchange":
		return 700212, "No matching federated identity record found for presented assertion audience."
	case c.Sub != s.Subject || len(c.Sub) > 600:
		return 700213, "No matching federated identity record found for presented assertion subject."
	case c.Exp <= now || c.Nbf > now || c.Iat > now:
		return 700024, "Client assertion is not within its valid time range."
	}
	return 0, ""
}
