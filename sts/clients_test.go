package sts_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google/externalaccount"
)

// zitadel's client, as it comes: discovery, then RFC 8693. It sends every optional parameter, empty.
func TestZitadelClientExchanges(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/sts"} {
		d := deploy(t, func(w *world) { w.path = path })
		found, err := client.Discover(t.Context(), d.issuer, d.client)
		if err != nil || found.Issuer != d.issuer || found.TokenEndpoint != d.issuer+"/token" {
			t.Fatalf("discovery: %+v, %v", found, err)
		}
		te, err := tokenexchange.NewTokenExchanger(t.Context(), d.issuer, tokenexchange.WithHTTPClient(d.client))
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			resource, audience, scopes []string
			requested                  oidc.TokenType
			scope                      string
		}{
			{audience: []string{"orders"}, scope: "read write"},
			{audience: []string{"orders"}, scopes: []string{"read"}, requested: oidc.AccessTokenType, scope: "read"},
			{resource: []string{"https://orders.example/api"}, scopes: []string{"read", "write"}, requested: oidc.JWTTokenType, scope: "read write"},
		} {
			out, err := tokenexchange.ExchangeToken(t.Context(), te, d.checkout(), oidc.JWTTokenType, "", "", tc.resource, tc.audience, tc.scopes, tc.requested)
			if err != nil {
				t.Fatal(err)
			}
			d.keepSecret(out.AccessToken)
			if out.TokenType != "Bearer" || out.ExpiresIn != 600 || out.Scopes.String() != tc.scope || tc.requested != "" && out.IssuedTokenType != tc.requested {
				t.Errorf("got %s %s for %d s with %s", out.TokenType, out.IssuedTokenType, out.ExpiresIn, out.Scopes)
			}
			onward, err := tokenexchange.ExchangeToken(t.Context(), te, out.AccessToken, oidc.AccessTokenType, "", "", nil, []string{"billing"}, []string{"read"}, "")
			if err != nil {
				t.Fatalf("onward: %v", err)
			}
			d.keepSecret(onward.AccessToken)
		}
		_, err = tokenexchange.ExchangeToken(t.Context(), te, d.checkout(), oidc.JWTTokenType, "", "", nil, []string{"ledger"}, nil, "")
		if err == nil {
			t.Error("a refusal is no error to the client")
		}
	}
}

// supplier is the only code of ours in Google's client.
type supplier func() string

func (s supplier) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return s(), nil
}

// Google's external account client, as it comes, pointed at our token endpoint. It sends options we do not know.
func TestGoogleExternalAccountClientExchanges(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	source, err := externalaccount.NewTokenSource(context.WithValue(t.Context(), oauth2.HTTPClient, d.client), externalaccount.Config{
		Audience: "orders", SubjectTokenType: jwtType, TokenURL: d.issuer + "/token", Scopes: []string{"read"},
		SubjectTokenSupplier: supplier(func() string { return d.checkout() }),
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	d.keepSecret(token.AccessToken)
	if !token.Valid() || token.Type() != "Bearer" || token.RefreshToken != "" || time.Until(token.Expiry) > 10*time.Minute {
		t.Errorf("token of type %s until %s", token.Type(), token.Expiry)
	}
	verifyOffline(t, d, token.AccessToken, "https://orders.example/api")
}

// verifyOffline verifies a minted token as a resource server does that knows nothing but our issuer: metadata, key
// set, RFC 9068 section 4. go-jose is the verifier. // standards 2.11, 2.12, 2.16
func verifyOffline(t *testing.T, d *deployment, token, audience string) {
	t.Helper()
	meta := d.metadata(d.server.URL + oauthServer + d.path)
	req, _ := http.NewRequest(http.MethodGet, meta["jwks_uri"].(string), nil)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(d.do(req).body), &keys); err != nil {
		t.Fatal(err)
	}
	parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if typ := parsed.Headers[0].ExtraHeaders[jose.HeaderType]; typ != "at+jwt" {
		t.Errorf("typ %v, want at+jwt", typ)
	}
	var claims josejwt.Claims
	all := map[string]any{}
	if err := parsed.Claims(keys, &claims, &all); err != nil {
		t.Fatalf("the published keys do not verify the token: %v", err)
	}
	err = claims.ValidateWithLeeway(josejwt.Expected{Issuer: meta["issuer"].(string), AnyAudience: josejwt.Audience{audience}, Time: d.clock.now()}, time.Second)
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		if s := fmt.Sprint(all[name]); all[name] == nil || s == "" || s == "0" {
			t.Errorf("claim %s is missing", name)
		}
	}
	if other, err := josejwt.ParseSigned(token[:len(token)-8]+"AAAAAAAA", []jose.SignatureAlgorithm{jose.ES256}); err == nil && other.Claims(keys, &claims) == nil {
		t.Error("another signature verifies too: the test shows nothing")
	}
}

// A resource server that has only our issuer verifies what we mint, wherever the issuer's path is.
func TestMintedTokenVerifiesOffline(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/p"} {
		d := deploy(t, func(w *world) { w.path = path })
		root := d.mint(d.checkout(), "orders")
		verifyOffline(t, d, root.token, "https://orders.example/api")
		verifyOffline(t, d, d.mint(root.token, "billing").token, "billing")
	}
}
