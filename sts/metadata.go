package sts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// document is a public answer: metadata or keys. It depends on configuration and keys alone, never on Host or
// forwarding headers.
type document struct {
	maxAge      string
	contentType string
	body        []byte
	etag        string
}

func newDocument(contentType string, maxAge time.Duration, v any) (*document, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &document{strconv.Itoa(int(maxAge / time.Second)), contentType, body, `"` + hex.EncodeToString(sum[:8]) + `"`}, nil
}

// ServeHTTP answers GET and HEAD, whole, with an ETag and a time to cache it.
func (d *document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		noStore(h)
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Cache-Control", "public, max-age="+d.maxAge)
	h.Set("ETag", d.etag)
	if d.has(r.Header.Values("If-None-Match")) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", d.contentType)
	_, _ = w.Write(d.body)
}

// has reports whether the caller has d already, by the weak comparison of RFC 9110 section 13.1.2.
func (d *document) has(lists []string) bool {
	for _, list := range lists {
		for tag := range strings.SplitSeq(list, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == d.etag {
				return true
			}
		}
	}
	return false
}

// openIDConfiguration is what verifiers of cloud and cluster federation read. The members that OpenID
// Connect demands of a login server are filled as those verifiers expect (docs/divergences.md).
func openIDConfiguration(issuer string, signing []jose.SignatureAlgorithm) oidc.DiscoveryConfiguration {
	algorithms := make([]string, len(signing))
	for i, a := range signing {
		algorithms[i] = string(a)
	}
	c := oidc.DiscoveryConfiguration{
		ResponseTypesSupported:           []string{"id_token"},
		SubjectTypesSupported:            []string{"public"},
		IDTokenSigningAlgValuesSupported: algorithms,
		ClaimsSupported:                  []string{"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"},
		GrantTypesSupported:              []oidc.GrantType{oidc.GrantTypeTokenExchange},
	}
	c.Issuer, c.JwksURI = issuer, issuer+"/jwks"
	c.TokenEndpoint, c.IntrospectionEndpoint, c.RevocationEndpoint = issuer+"/token", issuer+"/introspect", issuer+"/revoke"
	c.TokenEndpointAuthMethodsSupported = []oidc.AuthMethod{oidc.AuthMethodNone}
	c.RevocationEndpointAuthMethodsSupported = []oidc.AuthMethod{oidc.AuthMethodNone}
	return c
}

// serverMetadata is RFC 8414 section 2: what a token service without an authorization endpoint has.
type serverMetadata struct {
	Issuer                                 string            `json:"issuer"`
	TokenEndpoint                          string            `json:"token_endpoint"`
	JWKSURI                                string            `json:"jwks_uri"`
	IntrospectionEndpoint                  string            `json:"introspection_endpoint"`
	RevocationEndpoint                     string            `json:"revocation_endpoint"`
	GrantTypesSupported                    []oidc.GrantType  `json:"grant_types_supported"`
	TokenEndpointAuthMethodsSupported      []oidc.AuthMethod `json:"token_endpoint_auth_methods_supported"`
	RevocationEndpointAuthMethodsSupported []oidc.AuthMethod `json:"revocation_endpoint_auth_methods_supported"`
}

func authorizationServer(issuer string) serverMetadata {
	c := openIDConfiguration(issuer, nil)
	return serverMetadata{
		Issuer:                                 c.Issuer,
		TokenEndpoint:                          c.TokenEndpoint,
		JWKSURI:                                c.JwksURI,
		IntrospectionEndpoint:                  c.IntrospectionEndpoint,
		RevocationEndpoint:                     c.RevocationEndpoint,
		GrantTypesSupported:                    c.GrantTypesSupported,
		TokenEndpointAuthMethodsSupported:      c.TokenEndpointAuthMethodsSupported,
		RevocationEndpointAuthMethodsSupported: c.RevocationEndpointAuthMethodsSupported,
	}
}
