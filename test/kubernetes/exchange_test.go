package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

const (
	ourAudience  = "https://sts.example/prod.example" // of subject tokens
	kubeAudience = "https://kubernetes.prod.example"  // of minted tokens, as the sample has it
	userPrefix   = "sallyport:"                       // chosen by the cluster's administrator
	checkoutAPI  = "spiffe://prod.example/cluster-1/ns/checkout/sa/api"
	webhook      = "spiffe://prod.example/cluster-1/ns/security/sa/webhook" // may ask whether a token for kube lives
)

// bothDoors is the configuration of the test: whom Sallyport believes, and what they may have.
func bothDoors(cluster *Cluster) files {
	return files{
		"trust/prod.yaml": fmt.Sprintf(`
trust_domain: prod.example
issuers:
  - name: cluster-1
    type: kubernetes
    issuer: %s
    audiences: [%s]
    algorithms: [RS256]
    keys: {discovery: true, network: {allow_private: true, ca_file: %s}}
    max_lifetime: 1h
`, cluster.Issuer, ourAudience, cluster.Authority.CAFile),
		"targets/kube.yaml": fmt.Sprintf(`
target: kube
broker: jwt
max_lifetime: 15m
resource_servers: ["%s"]
jwt: {audience: %s}
`, webhook, kubeAudience),
		"policy/kube.yaml": `
rules:
  - name: checkout-api-reads-kube
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: checkout, service_account: api}}
    targets: [kube]
    lifetime: 10m
  - name: kube-tokens-may-be-renewed
    workloads: {trust_domain: prod.example, issuer: cluster-1}
    exchange_from: [kube]
    targets: [kube]
  - name: webhook-asks-whether-tokens-live
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: security, service_account: webhook}}
    targets: [introspection]
`,
	}
}

// A workload proves who it is with the token that Kubernetes gave it, and comes back to the same API server
// as a user that exists nowhere but in a rule. Both ends are the real API server, which fetches Sallyport's
// discovery document and keys itself.
func TestKubernetesWorkloadTokenBecomesKubernetesUser(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()

	// Each side is configured with the URL of the other, so Sallyport's port and authority exist before
	// anything runs.
	port := ports.Port()
	authority := NewAuthority(t, t.TempDir())
	trust := AuthenticationConfiguration(t, LoopbackURL(port), authority.CAPEM)
	cluster := Start(t, Options{AuthenticationConfiguration: trust})
	sts := startSallyport(ctx, t, port, authority, bothDoors(cluster))

	admin := cluster.Admin()
	request := func(t *testing.T, namespace, account, audience string) string {
		t.Helper()
		token, err := admin.RequestToken(ctx, namespace, account, audience, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for namespace, accounts := range map[string][]string{"checkout": {"api", "worker"}, "payments": {"api"}, "security": {"webhook"}} {
		if err := admin.CreateNamespace(ctx, namespace); err != nil {
			t.Fatal(err)
		}
		for _, account := range accounts {
			if _, err := admin.CreateServiceAccount(ctx, namespace, account); err != nil {
				t.Fatal(err)
			}
		}
	}
	grant := Rule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}
	if err := admin.GrantRole(ctx, "checkout", "lists-configmaps", Subject{Kind: "User", Name: userPrefix + checkoutAPI}, grant); err != nil {
		t.Fatal(err)
	}

	subject := request(t, "checkout", "api", ourAudience)
	issued := sts.exchange(ctx, t, subject, "kube")
	if issued.Code != http.StatusOK || issued.AccessToken == "" {
		t.Fatalf("exchange: got %s, want a token", issued)
	}
	if want := "urn:ietf:params:oauth:token-type:access_token"; issued.IssuedTokenType != want {
		t.Errorf("issued_token_type: got %q, want %q", issued.IssuedTokenType, want)
	}
	if !strings.EqualFold(issued.TokenType, "Bearer") {
		t.Errorf("token_type: got %q, want Bearer", issued.TokenType)
	}
	user := cluster.Client(issued.AccessToken)

	t.Run("the API server names the workload", func(t *testing.T) {
		// The API server looked for Sallyport when it started, found nothing, and looks again every 10 s.
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var name string
		err := poll(ctx, 250*time.Millisecond, func() (err error) {
			name, _, err = user.WhoAmI(ctx)
			return err
		})
		if err != nil {
			t.Fatalf("asking the API server who the minted token is: %v", err)
		}
		if name != userPrefix+checkoutAPI {
			t.Errorf("user: got %q, want %q", name, userPrefix+checkoutAPI)
		}
	})
	t.Run("the token opens what RBAC grants that user and no more", func(t *testing.T) {
		delay, cancel := context.WithTimeout(ctx, rbacDelay)
		defer cancel()
		err := poll(delay, 50*time.Millisecond, func() error {
			return user.Do(delay, http.MethodGet, "/api/v1/namespaces/checkout/configmaps", nil, nil)
		})
		if err != nil {
			t.Errorf("listing the config maps of checkout: %v", err)
		}
		wantStatus(t, user.Do(ctx, http.MethodGet, "/api/v1/namespaces/checkout/secrets", nil, nil), http.StatusForbidden)
		wantStatus(t, user.Do(ctx, http.MethodGet, "/api/v1/namespaces/payments/configmaps", nil, nil), http.StatusForbidden)
	})
	t.Run("the token lives no longer than the one it was exchanged for", func(t *testing.T) {
		var before, after struct {
			Expires  int64  `json:"exp"`
			Issuer   string `json:"iss"`
			Subject  string `json:"sub"`
			IssuedAt int64  `json:"iat"`
		}
		if err := errors.Join(decodeClaims(subject, &before), decodeClaims(issued.AccessToken, &after)); err != nil {
			t.Fatal(err)
		}
		if after.Expires > before.Expires {
			t.Errorf("exp: got %d, %d s after that of the subject token", after.Expires, after.Expires-before.Expires)
		}
		if after.Issuer != LoopbackURL(port) || after.Subject != checkoutAPI {
			t.Errorf("iss, sub: got %q, %q, want %q, %q", after.Issuer, after.Subject, LoopbackURL(port), checkoutAPI)
		}
		if issued.ExpiresIn <= 0 || issued.ExpiresIn > 600 {
			t.Errorf("expires_in: got %d, want 1 to 600", issued.ExpiresIn)
		}
	})

	refusals := []struct {
		name, token, target string
		want                string
	}{
		{"a token that is meant for the API server", request(t, "checkout", "api", cluster.Issuer), "kube", "invalid_request"},
		{"a token for another service", request(t, "checkout", "api", ourAudience+"/"), "kube", "invalid_request"},
		{"a token with a changed signature", forge(subject), "kube", "invalid_request"},
		{"another namespace", request(t, "payments", "api", ourAudience), "kube", "invalid_target"},
		{"another service account", request(t, "checkout", "worker", ourAudience), "kube", "invalid_target"},
		{"an unknown target", subject, "vault", "invalid_target"},
	}
	for _, c := range refusals {
		t.Run("refused: "+c.name, func(t *testing.T) {
			got := sts.exchange(ctx, t, c.token, c.target)
			if got.Code != http.StatusBadRequest || got.Error != c.want || got.AccessToken != "" {
				t.Errorf("exchange: got %s, want 400 %s", got, c.want)
			}
		})
	}

	t.Run("a token for another target is no login for the API server", func(t *testing.T) {
		other := sts.exchange(ctx, t, request(t, "security", "webhook", ourAudience), "introspection")
		if other.AccessToken == "" {
			t.Fatalf("exchange: got %s, want a token", other)
		}
		_, _, err := cluster.Client(other.AccessToken).WhoAmI(ctx)
		wantStatus(t, err, http.StatusUnauthorized)
	})
	t.Run("a revoked token is dead, and so is what came of it", func(t *testing.T) {
		introspector := sts.exchange(ctx, t, request(t, "security", "webhook", ourAudience), "introspection")
		child := sts.exchange(ctx, t, issued.AccessToken, "kube")
		if introspector.AccessToken == "" || child.AccessToken == "" {
			t.Fatalf("exchanges before the revocation: got %s and %s, want two tokens", introspector, child)
		}
		alive := func(token string) bool {
			t.Helper()
			got := sts.post(ctx, t, "/introspect", introspector.AccessToken, url.Values{"token": {token}})
			if got.Code != http.StatusOK || got.Active == nil {
				t.Fatalf("introspection: got %s, want 200 and active", got)
			}
			return *got.Active
		}
		if !alive(issued.AccessToken) || !alive(child.AccessToken) {
			t.Fatal("introspection before the revocation: got inactive, want active for both tokens")
		}

		if got := sts.post(ctx, t, "/revoke", "", url.Values{"token": {issued.AccessToken}}); got.Code != http.StatusOK {
			t.Fatalf("revocation: got %s, want 200", got)
		}
		for name, token := range map[string]string{"the revoked token": issued.AccessToken, "its child": child.AccessToken} {
			if alive(token) {
				t.Errorf("introspection of %s: got active, want inactive", name)
			}
			if got := sts.exchange(ctx, t, token, "kube"); got.Code != http.StatusBadRequest || got.Error != "invalid_request" {
				t.Errorf("exchange of %s: got %s, want 400 invalid_request", name, got)
			}
		}
		// Revocation by the holder never reaches the token that it all began with (RFC 7009 section 2.1 is
		// about the token presented).
		if got := sts.exchange(ctx, t, subject, "kube"); got.AccessToken == "" {
			t.Errorf("exchange of the service-account token after the revocation: got %s, want a token", got)
		}
	})
}

// decodeClaims decodes the claims of a JWT without verifying anything.
func decodeClaims(token string, into any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("got %d segments, want 3", len(parts))
	}
	return decodeSegment(parts[1], into)
}

// forge returns the token with the first character of its signature replaced. (Some bits of the last one are
// padding.)
func forge(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	other := "A"
	if token[i] == 'A' {
		other = "B"
	}
	return token[:i] + other + token[i+1:]
}
