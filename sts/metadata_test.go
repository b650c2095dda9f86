package sts_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

const (
	openID      = "/.well-known/openid-configuration"
	oauthServer = "/.well-known/oauth-authorization-server"
)

// metadata fetches one document from an absolute URL.
func (d *deployment) metadata(url string) map[string]any {
	d.t.Helper()
	req, _ := http.NewRequest(http.MethodGet, url, nil)
	a := d.do(req)
	var doc map[string]any
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		d.t.Fatalf("%s: %d %s: %v", url, a.status, a.header.Get("Content-Type"), err)
	}
	return doc
}

// The OpenID document is appended to the issuer, the RFC 8414 one inserted before its path; both say the issuer
// byte for byte, agree with each other, and name endpoints that answer. // standards 2.44, 2.45, 2.46
func TestMetadataStandsWhereTheIssuerSaysAndAgrees(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/p", "/tenant/sts"} {
		d := deploy(t, func(w *world) { w.path = path })
		openid := d.metadata(d.server.URL + path + openID)
		server := d.metadata(d.server.URL + oauthServer + path)
		for _, doc := range []map[string]any{openid, server} {
			if doc["issuer"] != d.issuer {
				t.Errorf("issuer %v, want %s", doc["issuer"], d.issuer)
			}
		}
		for name, value := range server {
			if a, b := mustJSON(value), mustJSON(openid[name]); a != b {
				t.Errorf("%s is %s in one document and %s in the other", name, a, b)
			}
		}
		if u, err := url.Parse(d.issuer); err != nil || u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("issuer %s is not an https URL without query and fragment", d.issuer)
		}
		if m := d.mint(d.checkout(), "orders"); m.claims["iss"] != openid["issuer"] {
			t.Errorf("iss %v is not the issuer of the metadata", m.claims["iss"])
		}
		for _, endpoint := range []string{"token_endpoint", "introspection_endpoint", "revocation_endpoint"} {
			at, ok := strings.CutPrefix(openid[endpoint].(string), d.issuer)
			if !ok {
				t.Errorf("%s %v is not below the issuer", endpoint, openid[endpoint])
				continue
			}
			if a := d.send(http.MethodGet, at, ""); a.status != http.StatusMethodNotAllowed {
				t.Errorf("%s: GET answers %d, want 405", endpoint, a.status)
			}
		}
		if a := d.send(http.MethodGet, strings.TrimPrefix(openid["jwks_uri"].(string), d.issuer), ""); a.status != 200 {
			t.Errorf("jwks_uri answers %d", a.status)
		}
		if path != "" {
			for _, wrong := range []string{openID, oauthServer, path + oauthServer, "/token", "/jwks"} {
				req, _ := http.NewRequest(http.MethodGet, d.server.URL+wrong, nil)
				if a := d.do(req); a.status != 404 {
					t.Errorf("issuer with path %s: %s answers %d, want 404", path, wrong, a.status)
				}
			}
		}
	}
}

func mustJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// What would be wrong by default is said: grant types and client authentication. What is not there is not
// announced. // standards 2.47, 2.48, 2.49
func TestMetadataSaysWhatDefaultsWouldGetWrong(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	openid, server := d.metadata(d.issuer+openID), d.metadata(d.issuer+oauthServer)
	for _, doc := range []map[string]any{openid, server} {
		if got := mustJSON(doc["grant_types_supported"]); got != `["`+grantType+`"]` {
			t.Errorf("grant_types_supported %s", got)
		}
		if got := mustJSON(doc["token_endpoint_auth_methods_supported"]); got != `["none"]` {
			t.Errorf("token_endpoint_auth_methods_supported %s", got)
		}
		for name, value := range doc {
			if list, ok := value.([]any); ok && len(list) == 0 {
				t.Errorf("%s is an empty array", name)
			}
		}
		for _, feature := range []string{
			"authorization_endpoint", "registration_endpoint", "userinfo_endpoint", "dpop_signing_alg_values_supported", "scopes_supported",
			"tls_client_certificate_bound_access_tokens", "mtls_endpoint_aliases", "authorization_details_types_supported",
			"introspection_signing_alg_values_supported", "protected_resources", "status_list_aggregation_endpoint",
			"token_endpoint_auth_signing_alg_values_supported", "identity_chaining_requested_token_types_supported",
		} {
			if _, ok := doc[feature]; ok {
				t.Errorf("%s is announced, and there is no such thing", feature)
			}
		}
	}
	if _, ok := server["response_types_supported"]; ok {
		t.Error("response_types_supported is in the RFC 8414 document: there is no authorization endpoint")
	}
	if got := mustJSON(openid["response_types_supported"]) + mustJSON(openid["subject_types_supported"]) + mustJSON(openid["id_token_signing_alg_values_supported"]); got != `["id_token"]["public"]["ES256"]` {
		t.Errorf("what verifiers of federation insist on is %s", got)
	}
}

// Documents may be cached for minutes, are validated by ETag, and come whole or not at all. // standards 2.50
func TestMetadataIsCacheable(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, path := range []string{openID, oauthServer, "/jwks"} {
		full := d.send(http.MethodGet, path, "")
		etag := full.header.Get("ETag")
		for tag, want := range map[string]int{
			etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304, `"other"`: 200, etag[1 : len(etag)-1]: 200, etag + "x": 200,
		} {
			if a := d.send(http.MethodGet, path, "", "If-None-Match", tag); a.status != want || a.header.Get("ETag") != etag {
				t.Errorf("%s with If-None-Match %s: %d, want %d", path, tag, a.status, want)
			}
		}
		head := d.send(http.MethodHead, path, "")
		if head.status != 200 || head.body != "" || head.header.Get("ETag") != etag || head.header.Get("Content-Length") != full.header.Get("Content-Length") {
			t.Errorf("HEAD %s: %d %v, want the headers of GET", path, head.status, head.header)
		}
		if a := d.send(http.MethodGet, path, "", "Range", "bytes=0-3"); a.body != full.body {
			t.Errorf("%s with a range: %d, want the whole", path, a.status)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "BREW"} {
			a := d.send(method, path, "")
			if a.status != 405 || a.header.Get("Allow") != "GET, HEAD" || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %v, want 405 with Allow", method, path, a.status, a.header)
			}
		}
	}
}

// The key set has public members alone, and each kid is the key's thumbprint. // standards 2.51, 2.52
func TestKeySetIsPublicAndNamedByThumbprint(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	a := d.send(http.MethodGet, "/jwks", "")
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(a.body), &set); err != nil || len(set.Keys) == 0 || a.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("key set %s (%s): %v", a.body, a.header.Get("Content-Type"), err)
	}
	for _, raw := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, ok := raw[private]; ok {
				t.Errorf("key %v has private member %s", raw["kid"], private)
			}
		}
		if raw["use"] != "sig" || raw["alg"] != "ES256" || raw["kty"] != "EC" {
			t.Errorf("key %v is %v/%v/%v, want sig/ES256/EC", raw["kid"], raw["use"], raw["alg"], raw["kty"])
		}
		var k jose.JSONWebKey
		if err := json.Unmarshal([]byte(mustJSON(raw)), &k); err != nil || !k.IsPublic() || !k.Valid() {
			t.Fatalf("key %v: %v", raw["kid"], err)
		}
		sum, err := k.Thumbprint(crypto.SHA256)
		if kid := base64.RawURLEncoding.EncodeToString(sum); err != nil || raw["kid"] != kid {
			t.Errorf("kid %v, want the thumbprint %s", raw["kid"], kid)
		}
	}
	var header map[string]any
	decodePart(d, d.mint(d.checkout(), "orders").token, 0, &header)
	if !slices.ContainsFunc(set.Keys, func(k map[string]any) bool { return k["kid"] == header["kid"] }) {
		t.Errorf("a token names key %v, which is not published", header["kid"])
	}
}

// RFC 7638 section 3.1, the key and its thumbprint. // standards 2.52
func TestThumbprintIsThatOfTheRFC(t *testing.T) {
	t.Parallel()
	var k jose.JSONWebKey
	err := json.Unmarshal([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`), &k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Thumbprint(k); err != nil || got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("thumbprint %s (%v), want NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", got, err)
	}
}
