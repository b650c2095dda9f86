package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// assertions signs as the second issuer does.
type assertions struct{ key *ecdsa.PrivateKey }

func (s assertions) Sign(_ context.Context, h brokers.Header, claims any) (string, error) {
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, new(jose.SignerOptions).WithType(jose.ContentType(h.Type)))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := j.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

var target = policy.Target{Name: "orders", Scopes: []string{"read", "write"}}

var tokens = map[string]vault.Scope{
	"read":  {Role: "orders", Policies: []string{"orders-read"}},
	"write": {Role: "orders", Policies: []string{"orders-write"}},
}

func settings(address string) vault.Settings {
	return vault.Settings{Address: address, Audience: "https://vault.example", RevokeRole: "revoker", Timeout: 5 * time.Second}
}

// newBroker checks and builds.
func newBroker(t testing.TB, s vault.Settings, scopes map[string]vault.Scope) *vault.Broker {
	t.Helper()
	b, problems := tryBroker(t, s, scopes)
	if len(problems) > 0 {
		t.Fatalf("the settings do not load: %v", problems)
	}
	return b
}

func tryBroker(t testing.TB, s vault.Settings, scopes map[string]vault.Scope) (*vault.Broker, []brokers.Problem) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := brokers.Target{Name: target.Name, MaxLifetime: 15 * time.Minute, Path: func(p string) string { return p }}
	meaning := map[string]any{}
	for name, scope := range scopes {
		meaning[name] = &scope
	}
	if problems := vault.Kind().Check(of, &s, meaning); len(problems) > 0 {
		return nil, problems
	}
	b, err := vault.Kind().Build(of, &s, meaning, brokers.Deps{Issuer: "https://sts.example", Assertions: assertions{key}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.(*vault.Broker).Close() })
	return b.(*vault.Broker), nil
}

func order(t testing.TB, lifetime time.Duration, scopes ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
		Target: target, Scopes: scopes, Lifetime: lifetime, Subject: "ns/shop/sa/checkout", Lease: brokers.Lease{ID: brokertest.NewID(), Family: "family"},
	})
}

const workload = "spiffe://prod.example/platform/ns/shop/sa/checkout"

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, target, newBroker(t, settings(newContract(t).server.URL), tokens))
}

// The suite against the contract; test/vault runs it against Vault.
func TestBrokerAgainstTheContractWhateverGoesWrong(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	brokertest.RunRevoker(t, brokertest.Upstream{
		Target: target, Address: strings.TrimPrefix(c.server.URL, "http://"), Lost: true,
		Build: func(t testing.TB, address string) brokers.Revoker {
			return newBroker(t, settings("http://"+address), tokens)
		},
		Works: func(got brokers.Credential) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.tokens[got.Value.Reveal()] == nil {
				return errors.New("permission denied")
			}
			return nil
		},
		Count: func(testing.TB) int {
			c.mu.Lock()
			defer c.mu.Unlock()
			n := 0
			for _, token := range c.tokens {
				if token.parent != "" {
					n++
				}
			}
			return n
		},
	})
}

func TestLoginShowsAnAssertionForThisCallAlone(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	s := settings(c.server.URL)
	s.Namespace, s.Mount = "team/orders", "jwt/sallyport"
	o := order(t, 5*time.Minute, "read")
	if _, err := newBroker(t, s, tokens).Mint(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	login := c.requests()[0]
	if login.path != "auth/jwt/sallyport/login" || login.namespace != "team/orders" || login.token != "" || login.body["role"] != "orders" {
		t.Errorf("the login is %+v", login)
	}
	jws, err := jose.ParseSignedCompact(login.body["jwt"].(string), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &got); err != nil {
		t.Fatal(err)
	}
	issued, expires := int64(got["iat"].(float64)), int64(got["exp"].(float64))
	if d := time.Since(time.Unix(issued, 0)); d < 0 || d > 10*time.Second || expires-issued > 60 || expires <= issued {
		t.Errorf("it is of %d and ends at %d", issued, expires)
	}
	delete(got, "iat")
	delete(got, "exp")
	want := map[string]any{
		"iss": "https://sts.example/assertions", "sub": "sallyport:orders", "aud": "https://vault.example", "jti": o.Lease().ID,
		"sallyport": map[string]any{"lease": o.Lease().ID, "family": "family", "workload": workload},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("claims are %v\nwant %v", got, want)
	}
}

func TestAccessorIsNotedBeforeTheTokenIsUsed(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, settings(c.server.URL), tokens)
	var noted secret.Value
	o := order(t, 5*time.Minute, "read").WithNote(func(_ context.Context, v secret.Value) error {
		noted = v
		if got := c.paths(); got != "auth/jwt/login" {
			t.Errorf("before the note there were %s", got)
		}
		return nil
	})
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if noted.IsZero() || strings.Contains(noted.Reveal(), cred.Value.Reveal()) || strings.Contains(cred.Data.Reveal(), cred.Value.Reveal()) {
		t.Errorf("the note is %q", noted.Reveal())
	}
	// The note alone kills all that came after it.
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, noted)); err != nil || r.State != brokers.Dead || c.living() != 1 { // the revoker's own
		t.Errorf("the receipt is %+v (%v); %d tokens live", r, err, c.living())
	}

	// Without a note there is no credential, and nothing stays.
	o = order(t, 5*time.Minute, "read").WithNote(func(context.Context, secret.Value) error { return errors.New("disk full") })
	if _, err := b.Mint(t.Context(), o); err == nil || c.living() != 1 {
		t.Errorf("a mint without a note: %v; %d tokens live", err, c.living())
	}
}

func TestChildEndsWithTheGrantAndCannotBeStretched(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	o := order(t, 5*time.Minute, "read", "write")
	cred, err := newBroker(t, settings(c.server.URL), tokens).Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := c.requests()[1]
	for _, key := range []string{"ttl", "explicit_max_ttl"} {
		life, err := time.ParseDuration(got.body[key].(string))
		if err != nil || life > 5*time.Minute || life < 4*time.Minute {
			t.Errorf("%s is %v", key, got.body[key])
		}
		delete(got.body, key)
	}
	want := map[string]any{
		"policies": []any{"orders-read", "orders-write"}, "renewable": false, "no_default_policy": true, "type": "service", "display_name": o.Name(),
		"meta": map[string]any{"lease": o.Lease().ID, "family": "family", "target": "orders", "workload": workload},
	}
	if got.path != "auth/token/create" || !reflect.DeepEqual(got.body, want) {
		t.Errorf("%s is asked for %v\nwant %v", got.path, got.body, want)
	}
	if cred.Type != vault.TokenType || cred.TokenType != "Bearer" || cred.Audience != "orders" {
		t.Errorf("the credential is %+v", cred)
	}
}

// What is wrong with an answer makes it no answer: no credential, and the login's token is dropped
// (an answer with both an error and a token issued one: CVE-2026-46405).
func TestAnswersThatAreNotWholeAreRefused(t *testing.T) {
	t.Parallel()
	auth := func(a map[string]any) map[string]any { x, _ := a["auth"].(map[string]any); return x }
	leased := map[string]vault.Scope{"read": {Role: "orders", Read: "database/creds/ro"}}
	taken := map[string]vault.Scope{"read": {Role: "orders", Read: "database/creds/ro", TakesBack: true, Policies: []string{"ro"}}}
	static := map[string]vault.Scope{"read": {Role: "orders", Read: "kv/data/x", Static: true}}
	batch := map[string]vault.Scope{"read": {Role: "batch", Batch: true}}
	const login, create, read = "auth/jwt/login", "auth/token/create", "database/creds/ro"
	for name, tc := range map[string]struct {
		scopes map[string]vault.Scope
		at     string
		bend   func(a map[string]any) int
		want   error
	}{
		"errors beside the login's token": {tokens, login, func(a map[string]any) int { a["errors"] = []string{"denied"}; return 0 }, brokers.ErrUnavailable},
		"errors beside the child":         {tokens, create, func(a map[string]any) int { a["errors"] = []string{"denied"}; return 0 }, brokers.ErrUnavailable},
		"errors beside the secret":        {leased, read, func(a map[string]any) int { a["errors"] = []string{"denied"}; return 0 }, brokers.ErrUnavailable},
		"no token":                        {tokens, login, func(a map[string]any) int { auth(a)["client_token"] = ""; return 0 }, brokers.ErrUncertain},
		"a token with a line break":       {tokens, login, func(a map[string]any) int { auth(a)["client_token"] = "hvs.x\r\nX-Other: y"; return 0 }, brokers.ErrUncertain},
		"no accessor":                     {tokens, login, func(a map[string]any) int { auth(a)["accessor"] = ""; return 0 }, brokers.ErrMisconfigured},
		"no accessor of the child":        {tokens, create, func(a map[string]any) int { auth(a)["accessor"] = ""; return 0 }, brokers.ErrMisconfigured},
		"a batch token":                   {tokens, login, func(a map[string]any) int { auth(a)["token_type"] = "batch"; return 0 }, brokers.ErrMisconfigured},
		"a batch child":                   {tokens, create, func(a map[string]any) int { auth(a)["token_type"] = "batch"; return 0 }, brokers.ErrMisconfigured},
		"no type":                         {tokens, login, func(a map[string]any) int { delete(auth(a), "token_type"); return 0 }, brokers.ErrMisconfigured},
		"a service token for a batch one": {batch, login, func(a map[string]any) int { auth(a)["token_type"] = "service"; return 0 }, brokers.ErrMisconfigured},
		"a batch token that lives longer": {batch, login, func(a map[string]any) int { auth(a)["lease_duration"] = 400; return 0 }, brokers.ErrTooShort},
		"a batch token that renews":       {batch, login, func(a map[string]any) int { auth(a)["renewable"] = true; return 0 }, brokers.ErrMisconfigured},
		"a login that never ends":         {tokens, login, func(a map[string]any) int { auth(a)["lease_duration"] = 0; return 0 }, brokers.ErrMisconfigured},
		"a login that ends in a month":    {tokens, login, func(a map[string]any) int { auth(a)["lease_duration"] = 2764800; return 0 }, brokers.ErrMisconfigured},
		"a second factor": {tokens, login, func(a map[string]any) int {
			auth(a)["mfa_requirement"] = map[string]any{"mfa_request_id": "x"}
			return 0
		}, brokers.ErrMisconfigured},
		"a child that lives longer":   {tokens, create, func(a map[string]any) int { auth(a)["lease_duration"] = 400; return 0 }, brokers.ErrMisconfigured},
		"a child that renews":         {tokens, create, func(a map[string]any) int { auth(a)["renewable"] = true; return 0 }, brokers.ErrMisconfigured},
		"a child without a parent":    {tokens, create, func(a map[string]any) int { auth(a)["orphan"] = true; return 0 }, brokers.ErrMisconfigured},
		"a child with another policy": {tokens, create, func(a map[string]any) int { auth(a)["policies"] = []string{"admin", "orders-read"}; return 0 }, brokers.ErrMisconfigured},
		"a child with no policy":      {tokens, create, func(a map[string]any) int { auth(a)["policies"] = []string{}; return 0 }, brokers.ErrMisconfigured},
		"a wrapped child unasked":     {tokens, create, func(a map[string]any) int { a["wrap_info"] = map[string]any{"token": "x"}; return 0 }, brokers.ErrMisconfigured},
		"a token for a secret":        {leased, read, func(a map[string]any) int { a["auth"] = map[string]any{"client_token": "x"}; return 0 }, brokers.ErrMisconfigured},
		"no data":                     {leased, read, func(a map[string]any) int { a["data"] = nil; return 0 }, brokers.ErrMisconfigured},
		"empty data":                  {leased, read, func(a map[string]any) int { a["data"] = map[string]any{}; return 0 }, brokers.ErrMisconfigured},
		"data of another type":        {leased, read, func(a map[string]any) int { a["data"] = "x"; return 0 }, brokers.ErrMisconfigured},
		"no lease":                    {leased, read, func(a map[string]any) int { a["lease_id"] = ""; return 0 }, brokers.ErrMisconfigured},
		"a lease without end":         {leased, read, func(a map[string]any) int { a["lease_duration"] = 0; return 0 }, brokers.ErrMisconfigured},
		"a lease of another path":     {leased, read, func(a map[string]any) int { a["lease_id"] = "database/creds/other/x"; return 0 }, brokers.ErrMisconfigured},
		"a lease that is a path":      {taken, read, func(a map[string]any) int { a["lease_id"] = "database/creds/ro/../../../auth/token/create"; return 0 }, brokers.ErrMisconfigured},
		"a lease beyond the grant":    {leased, read, func(a map[string]any) int { a["lease_duration"] = 301; return 0 }, brokers.ErrTooShort},
		"a lease beyond every grant":  {leased, read, func(a map[string]any) int { a["lease_duration"] = 901; return 0 }, brokers.ErrMisconfigured},
		"a lease of what is static":   {static, "kv/data/x", func(a map[string]any) int { a["lease_id"] = "kv/data/x/y"; return 0 }, brokers.ErrMisconfigured},
		"no JSON":                     {leased, read, func(a map[string]any) int { a["raw"] = "<html>" + secretText; return 0 }, brokers.ErrUnavailable},
		"too much":                    {leased, read, func(a map[string]any) int { a["raw"] = `{"data":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`; return 0 }, brokers.ErrUnavailable},
		"nothing":                     {leased, read, func(map[string]any) int { return 204 }, brokers.ErrMisconfigured},
		"accepted":                    {leased, read, func(map[string]any) int { return 202 }, brokers.ErrMisconfigured},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			c.bend = func(path string, a map[string]any) int {
				if path != tc.at {
					return 0
				}
				return tc.bend(a)
			}
			cred, err := newBroker(t, settings(c.server.URL), tc.scopes).Mint(t.Context(), order(t, 5*time.Minute, "read"))
			if !cred.Value.IsZero() || !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v and no credential", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), secretText) {
				t.Errorf("the error repeats the answer: %v", err)
			}
			if got := c.paths(); name != "no token" && name != "a token with a line break" && (!strings.HasSuffix(got, "auth/token/revoke-self") || c.living() > 0) {
				t.Errorf("the token was not dropped; %d live after %s", c.living(), got)
			}
		})
	}
}

func TestRefusalsAreToldByTheirStatusAndNotRepeated(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		400: brokers.ErrMisconfigured, 403: brokers.ErrMisconfigured, 404: brokers.ErrMisconfigured, 429: brokers.ErrUnavailable, 472: brokers.ErrUnavailable,
		473: brokers.ErrUnavailable, 500: brokers.ErrUncertain, 501: brokers.ErrUnavailable, 502: brokers.ErrUncertain, 503: brokers.ErrUnavailable,
	} {
		c := newContract(t)
		c.bend = func(_ string, a map[string]any) int {
			clear(a)
			a["errors"] = []string{"role \"orders\" " + secretText}
			return status
		}
		_, err := newBroker(t, settings(c.server.URL), tokens).Mint(t.Context(), order(t, 5*time.Minute, "read"))
		if !errors.Is(err, want) || strings.Contains(err.Error(), secretText) {
			t.Errorf("status %d: %v, want %v", status, err, want)
		}
		if n := len(c.requests()); n != 1 {
			t.Errorf("status %d: asked %d times, want once: a second login is a second token", status, n)
		}
	}
}

// A load balancer closes what is idle; the next exchange must not be the one that finds out.
func TestConnectionThatWasClosedWhileIdleIsReplaced(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	var mu sync.Mutex
	used := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		used[r.RemoteAddr]++
		n := used[r.RemoteAddr]
		mu.Unlock()
		if n > 1 { // every connection serves once
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
			return
		}
		c.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	b, o := newBroker(t, settings(s.URL), tokens), order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Dead {
		t.Errorf("the receipt is %+v (%v)", r, err)
	}
	for _, r := range c.requests() {
		if _, ok := r.header["X-Idempotency-Key"]; ok {
			t.Error("a header that is for net/http alone is sent")
		}
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host was asked %s with %q", r.URL, r.Header.Get("X-Vault-Token"))
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, at := range []string{"auth/jwt/login", "database/creds/ro"} {
			c := newContract(t)
			c.bend = func(path string, a map[string]any) int {
				if path != at {
					return 0
				}
				a["location"] = other.URL + "/v1/" + path
				return status
			}
			b := newBroker(t, settings(c.server.URL), map[string]vault.Scope{"read": {Role: "orders", Read: "database/creds/ro"}})
			if _, err := b.Mint(t.Context(), order(t, 5*time.Minute, "read")); !errors.Is(err, brokers.ErrMisconfigured) {
				t.Errorf("%d at %s: %v, want ErrMisconfigured", status, at, err)
			}
		}
	}
}

// The library reads these; what they say must reach nobody.
func TestEnvironmentChoosesNothing(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the address of the environment was asked %s", r.URL)
	}))
	t.Cleanup(other.Close)
	for name, value := range map[string]string{
		"VAULT_ADDR": other.URL, "VAULT_AGENT_ADDR": other.URL, "VAULT_TOKEN": "hvs.of-the-environment", "VAULT_SKIP_VERIFY": "true", "VAULT_NAMESPACE": "other",
		"VAULT_HEADERS": `{"X-Other":"x"}`, "VAULT_WRAP_TTL": "5m", "VAULT_PROXY_ADDR": other.URL, "VAULT_HTTP_PROXY": other.URL, "HTTP_PROXY": other.URL,
		"HTTPS_PROXY": other.URL, "VAULT_MAX_RETRIES": "5", "VAULT_CLIENT_TIMEOUT": "1ms", "VAULT_RATE_LIMIT": "1:1", "VAULT_SRV_LOOKUP": "true", "VAULT_DISABLE_REDIRECTS": "false",
	} {
		t.Setenv(name, value)
	}
	c := newContract(t)
	o := order(t, 5*time.Minute, "read")
	b := newBroker(t, settings(c.server.URL), tokens)
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.requests() {
		if r.namespace != "" || r.wrap != "" || r.header.Get("X-Other") != "" || strings.Contains(r.token, "environment") {
			t.Errorf("%s has something of the environment: %v", r.path, r.header)
		}
	}

	// TLS is verified whatever VAULT_SKIP_VERIFY says.
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	if _, err := newBroker(t, settings(s.URL), tokens).Mint(t.Context(), order(t, 5*time.Minute, "read")); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v, want ErrMisconfigured", err)
	}
}

func TestMalformedEnvironmentStopsTheStart(t *testing.T) {
	t.Setenv("VAULT_SKIP_VERIFY", "perhaps")
	s := settings("http://127.0.0.1:1")
	scopes := map[string]any{"read": &vault.Scope{Role: "orders", Policies: []string{"p"}}}
	_, err := vault.Kind().Build(brokers.Target{Name: "orders", Path: func(p string) string { return p }}, &s, scopes, brokers.Deps{Issuer: "https://sts.example", Assertions: assertions{}, Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "unset them") {
		t.Errorf("got %v, want what to unset", err)
	}
}

func TestSecretIsHandedOutWithItsLease(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	scopes := map[string]vault.Scope{"read": {Role: "orders", Read: "aws/sts/deploy", TTLParameter: "ttl"}}
	o := order(t, 5*time.Minute, "read")
	b := newBroker(t, settings(c.server.URL), scopes)
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Type, Expires_at, Lease_id string
		Static                     bool
		Data                       map[string]string
	}
	if err := json.Unmarshal([]byte(cred.Value.Reveal()), &got); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(cred.Value.Reveal(), `{"type":"vault-secret",`) || got.Data["password"] != secretText || got.Static || !strings.HasPrefix(got.Lease_id, "aws/sts/deploy/") {
		t.Errorf("the secret is %s", cred.Value.Reveal())
	}
	if d := time.Until(cred.Expires); d > 2*time.Minute || d < 110*time.Second {
		t.Errorf("it ends in %s, its lease in 2m", d)
	}
	if q := c.requests()[1]; q.method != http.MethodGet || !strings.HasPrefix(q.query, "ttl=29") {
		t.Errorf("it was asked for with %s %s?%s", q.method, q.path, q.query)
	}
	// The engine does not take it back: no death is promised.
	r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data))
	if err != nil || r.State != brokers.DiesAt || r.Reason == "" {
		t.Errorf("the receipt is %+v (%v), want dies", r, err)
	}
}

func TestSecretThatIsTakenBackEndsWithTheGrantHoweverLongItsLease(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	c.bend = func(path string, a map[string]any) int {
		if path == "database/creds/ro" {
			a["lease_duration"] = 36000
		}
		return 0
	}
	scopes := map[string]vault.Scope{"read": {Role: "orders", Read: "database/creds/ro", TakesBack: true, Policies: []string{"orders-ro"}}}
	b, o := newBroker(t, settings(c.server.URL), scopes), order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if cred.Expires.After(o.Grant().Expires()) {
		t.Errorf("it ends at %s, after the grant", cred.Expires)
	}
	calls := c.requests()
	if calls[1].path != "auth/token/create" || calls[2].token == calls[1].token {
		t.Error("it was not read with a child that ends with the grant")
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Dead || !strings.Contains(c.paths(), "sys/leases/revoke/database/creds/ro/") {
		t.Errorf("the receipt is %+v (%v) after %s", r, err, c.paths())
	}
	// A database that is down keeps the lease: nothing is promised, and asking again mends it.
	down := true
	c.bend = func(path string, a map[string]any) int {
		if down && strings.HasPrefix(path, "sys/leases/revoke/") {
			a["errors"] = []string{"failed to revoke: " + secretText}
			return 400
		}
		return 0
	}
	o = order(t, 5*time.Minute, "read")
	if cred, err = b.Mint(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err == nil || strings.Contains(err.Error(), secretText) {
		t.Errorf("a lease that could not be revoked has the receipt %+v (%v)", r, err)
	}
	down = false
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Dead {
		t.Errorf("the second receipt is %+v (%v), want dead", r, err)
	}
}

func TestStaticSecretSaysThatItOutlivesTheGrant(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b, o := newBroker(t, settings(c.server.URL), map[string]vault.Scope{"read": {Role: "orders", Read: "kv/data/x", Static: true}}), order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if v := cred.Value.Reveal(); !strings.Contains(v, `"static":true`) || strings.Contains(v, "expiration") {
		t.Errorf("the secret is %s", v)
	}
	const why = "until somebody changes it in Vault"
	if !strings.Contains(cred.Stays, why) {
		t.Errorf("operators are told %q of it", cred.Stays)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Stays || !r.At.IsZero() || !strings.Contains(r.Reason, why) {
		t.Errorf("the receipt is %+v (%v), want that it stays, and no time", r, err)
	}
	if n := c.living(); n != 1 { // the revoker's
		t.Errorf("%d tokens live: the login outlives its revocation", n)
	}
	no, s := false, settings(c.server.URL)
	s.RevokeRole, s.Revocable = "", &no
	if r, err := newBroker(t, s, map[string]vault.Scope{"read": {Role: "orders", Read: "kv/data/x", Static: true}}).Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Stays {
		t.Errorf("where nothing is revoked, the receipt is %+v (%v)", r, err)
	}
	// The same path without the word.
	b = newBroker(t, settings(c.server.URL), map[string]vault.Scope{"read": {Role: "orders", Read: "kv/data/x"}})
	if _, err := b.Mint(t.Context(), order(t, 5*time.Minute, "read")); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "static: true") {
		t.Errorf("a static secret unasked: %v", err)
	}
}

func TestWrappedTokenIsKnownOnlyToWhoeverUnwrapsIt(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	s := settings(c.server.URL)
	s.WrapTTL = 2 * time.Minute
	b := newBroker(t, s, tokens)
	if got := b.Forms(); !reflect.DeepEqual(got, []string{vault.WrappingType, vault.TokenType}) {
		t.Errorf("the forms are %v", got)
	}
	o := order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	create := c.requests()[1]
	if cred.Type != vault.WrappingType || create.wrap != "120s" || c.wrapped[cred.Value.Reveal()] == "" {
		t.Errorf("the credential is %+v, wrapped for %q", cred, create.wrap)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Dead || len(c.wrapped) > 0 || c.living() != 1 {
		t.Errorf("the receipt is %+v (%v); %d wrapping tokens, %d others live", r, err, len(c.wrapped), c.living())
	}
	// Plain by its type, and never wrapped for longer than the grant.
	if cred, err = b.Mint(t.Context(), order(t, 5*time.Minute, "read").WithForm(vault.TokenType)); err != nil || cred.Type != vault.TokenType {
		t.Errorf("the plain form: %s (%v)", cred.Type, err)
	}
	if _, err = b.Mint(t.Context(), order(t, 30*time.Second, "read")); err != nil {
		t.Fatal(err)
	}
	if calls := c.requests(); calls[len(calls)-1].wrap != "29s" && calls[len(calls)-1].wrap != "28s" {
		t.Errorf("a grant of 30 s is wrapped for %s", calls[len(calls)-1].wrap)
	}

	good := func(a map[string]any) map[string]any { w, _ := a["wrap_info"].(map[string]any); return w }
	for name, bend := range map[string]func(a map[string]any){
		"another path":      func(a map[string]any) { good(a)["creation_path"] = "sys/wrapping/wrap" },
		"a longer life":     func(a map[string]any) { good(a)["ttl"] = 121 },
		"no life":           func(a map[string]any) { good(a)["ttl"] = 0 },
		"no accessor":       func(a map[string]any) { good(a)["accessor"] = "" },
		"nothing inside":    func(a map[string]any) { good(a)["wrapped_accessor"] = "" },
		"no wrapping":       func(a map[string]any) { delete(a, "wrap_info") },
		"the token as well": func(a map[string]any) { a["auth"] = map[string]any{"client_token": "hvs.x"} },
		"data as well":      func(a map[string]any) { a["data"] = map[string]any{"x": "y"} },
	} {
		c.bend = func(path string, a map[string]any) int {
			if path == "auth/token/create" {
				bend(a)
			}
			return 0
		}
		if cred, err := b.Mint(t.Context(), order(t, 5*time.Minute, "read")); !errors.Is(err, brokers.ErrMisconfigured) || !cred.Value.IsZero() {
			t.Errorf("%s: %v, want ErrMisconfigured", name, err)
		}
	}
}

func TestWrappedSecretIsDeadOnlyWhenNobodySawIt(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	s := settings(c.server.URL)
	s.WrapTTL = time.Minute
	for name, tc := range map[string]struct {
		scope vault.Scope
		seen  brokers.State
	}{
		// Its lease is not known, so nobody can ask whether the engine took it back.
		"taken back": {vault.Scope{Role: "orders", Read: "database/creds/ro", TakesBack: true, Policies: []string{"ro"}}, brokers.MayExist},
		"static":     {vault.Scope{Role: "orders", Read: "kv/data/x", Static: true}, brokers.Stays},
	} {
		b := newBroker(t, s, map[string]vault.Scope{"read": tc.scope})
		for _, seen := range []bool{false, true} {
			o := order(t, 5*time.Minute, "read")
			cred, err := b.Mint(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			want := brokers.Dead
			if seen {
				delete(c.wrapped, cred.Value.Reveal())
				want = tc.seen
			}
			if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != want {
				t.Errorf("%s, seen %v: the receipt is %+v (%v), want %s", name, seen, r, err, want)
			}
		}
	}
}

func TestBatchTokenIsNotPromisedToDie(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	s := settings(c.server.URL)
	s.RevokeRole = ""
	b, o := newBroker(t, s, map[string]vault.Scope{"read": {Role: "batch", Batch: true}}), order(t, 6*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Until(cred.Expires); d > 5*time.Minute || !strings.HasPrefix(cred.Value.Reveal(), "hvb.") {
		t.Errorf("it ends in %s", d)
	}
	n := len(c.requests())
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.DiesAt || len(c.requests()) != n {
		t.Errorf("the receipt is %+v (%v) after %d calls, want dies after none", r, err, len(c.requests())-n)
	}
}

func TestTargetThatIsNotRevocableSaysSo(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	s, no := settings(c.server.URL), false
	s.RevokeRole, s.Revocable = "", &no
	b, o := newBroker(t, s, tokens), order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.DiesAt || !strings.Contains(r.Reason, "revocable: false") {
		t.Errorf("the receipt is %+v (%v)", r, err)
	}
}

// A 403 says "you may not" as well as "there is no such token": only the text tells, and only one text is believed.
func TestRevokerWithoutRightsIsNoDeath(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		at, text string
		status   int
	}{
		"no right to revoke":    {"auth/token/revoke-accessor", "permission denied", 403},
		"no right to look":      {"auth/token/lookup-accessor", "permission denied", 403},
		"no such path":          {"auth/token/revoke-accessor", "no handler for route", 404},
		"a server that is down": {"auth/token/revoke-accessor", "invalid accessor", 503},
		"it is still there":     {"auth/token/lookup-accessor", "", 200},
		"no login":              {"auth/jwt/login", "role could not be found", 400},
	} {
		c := newContract(t)
		b, o := newBroker(t, settings(c.server.URL), tokens), order(t, 5*time.Minute, "read")
		cred, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		c.bend = func(path string, a map[string]any) int {
			if path != tc.at {
				return 0
			}
			delete(a, "errors")
			if tc.text != "" {
				clear(a)
				a["errors"] = []string{tc.text}
			}
			return tc.status
		}
		if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err == nil {
			t.Errorf("%s: the receipt is %+v, want an error", name, r)
		}
	}
}

func TestManyAreRevokedWithOneLogin(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, settings(c.server.URL), tokens)
	var hs []brokers.Handle
	for range 5 {
		o := order(t, 5*time.Minute, "read")
		cred, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, brokertest.HandleOf(o, cred.Data))
	}
	hs[2].Data = secret.Value{}
	hs[3].Data = secret.New(`{"sort":"token"}`)
	before := strings.Count(c.paths(), "login")
	got := b.RevokeAll(t.Context(), hs)
	for i, want := range []brokers.State{brokers.Dead, brokers.Dead, brokers.MayExist, 0, brokers.Dead} {
		if got[i].Receipt.State != want || (got[i].Err != nil) != (want == 0) {
			t.Errorf("result %d is %+v, want %s", i, got[i], want)
		}
	}
	if n := strings.Count(c.paths(), "login") - before; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestGrantWithoutAMeaningMakesNothing(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, settings(c.server.URL), map[string]vault.Scope{
		"read":  {Role: "orders-ro", Read: "database/creds/ro"},
		"write": {Role: "orders-rw", Read: "database/creds/rw", Covers: []string{"read"}},
	})
	if _, err := b.Mint(t.Context(), order(t, 5*time.Minute)); !errors.Is(err, brokers.ErrMisconfigured) || len(c.requests()) > 0 {
		t.Errorf("no scope: %v after %s", err, c.paths())
	}
	if _, err := b.Mint(t.Context(), order(t, 5*time.Minute, "read", "write")); err != nil {
		t.Fatal(err)
	}
	if got := c.paths(); !strings.HasSuffix(got, "database/creds/rw") {
		t.Errorf("both scopes asked for %s, want what covers both", got)
	}
	if _, err := b.Mint(t.Context(), order(t, 5*time.Minute, "read").WithForm(vault.WrappingType)); !errors.Is(err, brokers.ErrInput) {
		t.Errorf("a form that the target does not have: %v, want ErrInput", err)
	}
	if _, err := b.Mint(t.Context(), order(t, 1400*time.Millisecond, "read")); !errors.Is(err, brokers.ErrTooShort) {
		t.Errorf("a grant that ends at once: %v, want ErrTooShort", err)
	}
}

func TestNothingPrintsWhatVaultGave(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b, o := newBroker(t, settings(c.server.URL), tokens), order(t, 5*time.Minute, "read")
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s", cred, cred, cred, b.Forms())
	for _, s := range []string{cred.Value.Reveal(), cred.Data.Reveal()} {
		if strings.Contains(out, s) {
			t.Error("a credential prints itself")
		}
	}
}
