package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The world all four servers are configured for.
const (
	subjectIssuer   = "https://ci.example"
	subjectAudience = "https://sts.example"
	subjectKeyID    = "bench-1"
	targetName      = "orders"
	scopeName       = "read"
	repositoryID    = "90210"
	repositoryRef   = "refs/heads/main"

	tokenLifetime = time.Hour // of a subject token
	rsaBits       = 2048

	grantType = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693 section 2.1
	jwtType   = "urn:ietf:params:oauth:token-type:jwt"            // RFC 8693 section 3
)

// subjects are the tokens of one run and the key that signed them.
type subjects struct {
	tokens  []string
	forged  string // the first token with a corrupted signature
	keyJSON []byte // the public key, as a JWK set
}

// newSubjects makes one RSA key and signs n tokens with it.
func newSubjects(n int, now time.Time) (*subjects, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), KeyID: subjectKeyID, Algorithm: string(jose.RS256), Use: "sig"},
	}}
	s := &subjects{tokens: make([]string, n)}
	if s.keyJSON, err = json.Marshal(set); err != nil {
		return nil, err
	}
	if err := s.sign(key, now); err != nil {
		return nil, err
	}
	s.forged, err = corruptSignature(s.tokens[0])
	return s, err
}

// sign fills tokens on all processors: an RSA signature costs more than a millisecond.
func (s *subjects) sign(key *rsa.PrivateKey, now time.Time) error {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: subjectKeyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	parts := runtime.GOMAXPROCS(0)
	failed := make([]error, parts)
	for p := range parts {
		wg.Go(func() {
			for i := p; i < len(s.tokens) && failed[p] == nil; i += parts {
				s.tokens[i], failed[p] = signClaims(signer, subjectClaims(i, now))
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return fmt.Errorf("signing subject tokens: %w", err)
		}
	}
	return nil
}

func signClaims(signer jose.Signer, claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// subjectClaims are the claims of token number i: what GitHub Actions puts into an ID token, about 900 bytes
// of JSON.
func subjectClaims(i int, now time.Time) map[string]any {
	run := fmt.Sprint(7_000_000_000 + i)
	return map[string]any{
		"iss":                   subjectIssuer,
		"aud":                   subjectAudience,
		"sub":                   "repo:octo-org/octo-repo:ref:" + repositoryRef,
		"jti":                   fmt.Sprintf("6f9a2c1e-4b7d-4e0f-9c3a-%012d", i),
		"iat":                   now.Unix(),
		"nbf":                   now.Unix(),
		"exp":                   now.Add(tokenLifetime).Unix(),
		"ref":                   repositoryRef,
		"ref_type":              "branch",
		"sha":                   "3f1a9b7c5d2e8f604a1b3c5d7e9f0a2b4c6d8e0f",
		"repository":            "octo-org/octo-repo",
		"repository_id":         repositoryID,
		"repository_owner":      "octo-org",
		"repository_owner_id":   "65",
		"repository_visibility": "private",
		"run_id":                run,
		"run_number":            "10",
		"run_attempt":           "2",
		"actor":                 "octocat",
		"actor_id":              "12",
		"workflow":              "deploy",
		"workflow_ref":          "octo-org/octo-repo/.github/workflows/deploy.yml@" + repositoryRef,
		"workflow_sha":          "3f1a9b7c5d2e8f604a1b3c5d7e9f0a2b4c6d8e0f",
		"event_name":            "workflow_dispatch",
		"runner_environment":    "github-hosted",
		"job_workflow_ref":      "octo-org/octo-repo/.github/workflows/deploy.yml@" + repositoryRef,
		"environment":           "production",
		"base_ref":              "",
		"head_ref":              "",
	}
}

// corruptSignature flips one bit in the middle of a compact JWS's signature and keeps the encoding valid,
// so that only the cryptographic check can tell.
func corruptSignature(token string) (string, error) {
	dot := strings.LastIndexByte(token, '.')
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || dot < 0 || len(signature) == 0 {
		return "", fmt.Errorf("corrupting a signature: not a compact JWS (%v)", err)
	}
	signature[len(signature)/2] ^= 1
	return token[:dot+1] + base64.RawURLEncoding.EncodeToString(signature), nil
}

// renderRequest returns the bytes of one POST /token to the server at addr.
func renderRequest(addr, subjectToken string) []byte {
	body := url.Values{
		"grant_type":         {grantType},
		"subject_token":      {subjectToken},
		"subject_token_type": {jwtType},
		"audience":           {targetName},
		"scope":              {scopeName},
	}.Encode()
	return fmt.Appendf(nil, "POST /token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Content-Length: %d\r\n\r\n%s", addr, len(body), body)
}

// renderAll renders one request for each token.
func renderAll(addr string, tokens []string) [][]byte {
	out := make([][]byte, len(tokens))
	for i, token := range tokens {
		out[i] = renderRequest(addr, token)
	}
	return out
}
