package kubernetes

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// serviceAccountClaims are the claims of a token from the TokenRequest API that is bound to no pod.
type serviceAccountClaims struct {
	Issuer     string   `json:"iss"`
	Subject    string   `json:"sub"`
	Audience   []string `json:"aud"`
	Expires    int64    `json:"exp"`
	IssuedAt   int64    `json:"iat"`
	ID         string   `json:"jti"`
	Kubernetes struct {
		Namespace      string
		ServiceAccount struct{ Name, UID string }
	} `json:"kubernetes.io"`
}

// The harness is right if a stranger who knows nothing but the issuer URL and the CA can verify a
// service-account token.
func TestServiceAccountTokenIsVerifiableWithoutCredentials(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	const audience = "https://sts.example/prod.example"
	c := Start(t, Options{})
	admin, anonymous := c.Admin(), c.Anonymous()

	if err := admin.CreateNamespace(ctx, "checkout"); err != nil {
		t.Fatal(err)
	}
	uid, err := admin.CreateServiceAccount(ctx, "checkout", "api")
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.RequestToken(ctx, "checkout", "api", audience, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	var discovery struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := anonymous.Do(ctx, http.MethodGet, "/.well-known/openid-configuration", nil, &discovery); err != nil {
		t.Fatalf("reading the discovery document without credentials: %v", err)
	}
	if discovery.Issuer != c.Issuer {
		t.Errorf("issuer of the discovery document: got %q, want %q", discovery.Issuer, c.Issuer)
	}
	if !slices.Equal(discovery.Algorithms, []string{"RS256"}) {
		t.Errorf("algorithms of the discovery document: got %q, want RS256 alone", discovery.Algorithms)
	}
	path, local := strings.CutPrefix(discovery.JWKSURI, c.Issuer)
	if !local {
		t.Fatalf("jwks_uri: got %q, want a path below %s", discovery.JWKSURI, c.Issuer)
	}
	var keys jwks
	if err := anonymous.Do(ctx, http.MethodGet, path, nil, &keys); err != nil {
		t.Fatalf("reading the keys without credentials: %v", err)
	}

	claims, err := keys.verify(token)
	if err != nil {
		t.Fatalf("verifying the service-account token with the published keys: %v", err)
	}
	if claims.Issuer != c.Issuer || claims.Subject != "system:serviceaccount:checkout:api" || !slices.Equal(claims.Audience, []string{audience}) {
		t.Errorf("iss, sub, aud: got %q, %q, %q", claims.Issuer, claims.Subject, claims.Audience)
	}
	if life := claims.Expires - claims.IssuedAt; life != 600 {
		t.Errorf("lifetime: got %d s, want the 600 s that were asked for", life)
	}
	if k := claims.Kubernetes; k.Namespace != "checkout" || k.ServiceAccount.Name != "api" || k.ServiceAccount.UID != uid {
		t.Errorf("kubernetes.io: got %+v, want checkout/api with uid %s", k, uid)
	}

	t.Run("anonymous callers see nothing else", func(t *testing.T) {
		wantStatus(t, anonymous.Do(ctx, http.MethodGet, "/api/v1/namespaces", nil, nil), http.StatusForbidden)
	})
	t.Run("the token is no login for the API server", func(t *testing.T) {
		_, _, err := c.Client(token).WhoAmI(ctx)
		wantStatus(t, err, http.StatusUnauthorized) // wrong audience
	})
	t.Run("a token for the API server is one", func(t *testing.T) {
		token, err := admin.RequestToken(ctx, "checkout", "api", c.Issuer, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		user, groups, err := c.Client(token).WhoAmI(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if user != "system:serviceaccount:checkout:api" || !slices.Contains(groups, "system:serviceaccounts:checkout") {
			t.Errorf("user and groups: got %q, %q", user, groups)
		}
	})
	manifestIsTaken(ctx, t, admin)
}

// wantStatus fails unless err is the API server's answer with that code.
func wantStatus(t *testing.T, err error, code int) {
	t.Helper()
	var status *StatusError
	if !errors.As(err, &status) || status.Code != code {
		t.Errorf("answer of the API server: got %v, want status %d", err, code)
	}
}

// jwks is just enough of RFC 7517 and RFC 7515 for an RS256 token. It is written out here so that the check
// of the harness does not lean on the code that the harness is there to check.
type jwks struct {
	Keys []struct {
		Kty, Kid, Alg, N, E string
	}
}

func (s jwks) verify(token string) (serviceAccountClaims, error) {
	var claims serviceAccountClaims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims, fmt.Errorf("got %d segments, want 3", len(parts))
	}
	var header struct{ Alg, Kid string }
	if err := errors.Join(decodeSegment(parts[0], &header), decodeSegment(parts[1], &claims)); err != nil {
		return claims, err
	}
	if header.Alg != "RS256" {
		return claims, fmt.Errorf("alg: got %q, want RS256", header.Alg)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return claims, err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, k := range s.Keys {
		if k.Kid != header.Kid || k.Kty != "RSA" {
			continue
		}
		n, errN := base64.RawURLEncoding.DecodeString(k.N)
		e, errE := base64.RawURLEncoding.DecodeString(k.E)
		if err := errors.Join(errN, errE); err != nil {
			return claims, err
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		return claims, rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature)
	}
	return claims, fmt.Errorf("no RSA key %q among %d keys", header.Kid, len(s.Keys))
}

// decodeSegment decodes one part of a JWT without verifying anything.
func decodeSegment(segment string, into any) error {
	data, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
