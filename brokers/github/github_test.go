package github_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/github"
	"github.com/sallyport-sts/sallyport/brokers/github/githubtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

var (
	target = policy.Target{Name: "shop-repository", Scopes: []string{"read", "push", "other"}, MaxLifetime: time.Hour}
	scopes = map[string]any{
		"read":  &github.Scope{Repositories: []int64{7, 3}, Permissions: map[string]string{"contents": "read"}},
		"push":  &github.Scope{Repositories: []int64{3, 7}, Permissions: map[string]string{"contents": "write", "packages": "read"}},
		"other": &github.Scope{Repositories: []int64{9}, Permissions: map[string]string{"contents": "read"}},
	}
)

func settings(s *githubtest.Server, api string) *github.Settings {
	return &github.Settings{App: githubtest.App, Installation: githubtest.Installation, PrivateKey: secret.Ref{File: "app.pem"}, API: api}
}

func about(s *githubtest.Server) brokers.Target {
	return brokers.Target{Name: target.Name, Scopes: target.Scopes, Secret: func(secret.Ref) (secret.Value, error) { return secret.New(s.PEM), nil }}
}

func build(t testing.TB, s *githubtest.Server, address string) brokers.Revoker {
	t.Helper()
	if problems := github.Kind().Check(about(s), settings(s, address), scopes); len(problems) > 0 {
		t.Fatal(problems)
	}
	b, err := github.Kind().Build(about(s), settings(s, address), scopes, brokers.Deps{Issuer: "https://sts.example", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return b.(brokers.Revoker)
}

// order is one of some scopes.
func order(t *testing.T, of ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Scopes: of, Lifetime: 10 * time.Minute, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

// The suite of every broker, with a proxy between it and the fake that cuts after any message.
func TestContractSuite(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	brokertest.RunRevoker(t, brokertest.Upstream{
		Target: target, Address: strings.TrimPrefix(s.URL, "http://"), Lost: true,
		Build: func(t testing.TB, address string) brokers.Revoker { return build(t, s, "http://"+address) },
		Works: func(c brokers.Credential) error { return s.Works(c.Value.Reveal()) },
	})
}

// What is asked is what the scopes say, by ids, with both members in every request; scopes add up where their repositories are
// the same, and are refused where a token would have one's permissions in the other's.
func TestContractRequestNamesRepositoriesAndPermissions(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	var asked map[string]any
	s.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			asked = map[string]any{}
			_ = json.Unmarshal(body, &asked)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			if r.Header.Get("Accept") != "application/vnd.github+json" || r.Header.Get("X-Github-Api-Version") != "2022-11-28" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("the headers are %v", r.Header)
			}
		}
		return false
	})
	b := build(t, s, s.URL)
	c, err := b.Mint(t.Context(), order(t, "read", "push"))
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 || !equal(asked["repository_ids"], `[3,7]`) || !equal(asked["permissions"], `{"contents":"write","packages":"read"}`) {
		t.Errorf("what was asked is %v", asked)
	}
	if c.Type != "urn:sallyport:token-type:github-installation-token" && !strings.HasSuffix(c.Type, "github-installation-token") || c.TokenType != "Bearer" || len(c.Value.Reveal()) < 500 {
		t.Errorf("the credential is a %s %s of %d bytes", c.TokenType, c.Type, len(c.Value.Reveal()))
	}
	if _, err := b.Mint(t.Context(), order(t, "read", "other")); !errors.Is(err, brokers.ErrScopes) {
		t.Errorf("scopes of two sets of repositories: %v", err)
	}
	if s.Made() != 1 {
		t.Errorf("%d tokens were made, want 1", s.Made())
	}
}

func equal(v any, text string) bool {
	raw, _ := json.Marshal(v)
	return string(raw) == text
}

// Attack: a token that is more than what was asked, or that GitHub never makes. It is revoked at once, and nobody gets it.
func TestContractWiderTokenIsRevokedAndHandedToNobody(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]any){
		"all repositories":             func(a map[string]any) { a["repository_selection"] = "all" },
		"a repository more":            func(a map[string]any) { a["repositories"] = []any{id(3), id(7), id(8)} },
		"a repository less":            func(a map[string]any) { a["repositories"] = []any{id(3)} },
		"another repository":           func(a map[string]any) { a["repositories"] = []any{id(3), id(8)} },
		"no repositories":              func(a map[string]any) { delete(a, "repositories") },
		"a permission more":            func(a map[string]any) { a["permissions"].(map[string]string)["packages"] = "read" },
		"a higher permission":          func(a map[string]any) { a["permissions"].(map[string]string)["contents"] = "write" },
		"a permission less":            func(a map[string]any) { delete(a["permissions"].(map[string]string), "contents") },
		"metadata that can be written": func(a map[string]any) { a["permissions"].(map[string]string)["metadata"] = "write" },
		"no permissions":               func(a map[string]any) { delete(a, "permissions") },
		"a longer life":                func(a map[string]any) { a["expires_at"] = time.Now().Add(2 * time.Hour).Format(time.RFC3339) },
		"an end that is past":          func(a map[string]any) { a["expires_at"] = time.Now().Add(-time.Minute).Format(time.RFC3339) },
		"no end":                       func(a map[string]any) { delete(a, "expires_at") },
	} {
		s := githubtest.New(t)
		s.Change(change)
		c, err := build(t, s, s.URL).Mint(t.Context(), order(t, "read"))
		if !errors.Is(err, brokers.ErrMisconfigured) || !c.Value.IsZero() || s.Made() != 1 || s.Alive() != 0 {
			t.Errorf("%s: %v; %d made, %d alive", name, err, s.Made(), s.Alive())
		}
	}
}

func id(n int) map[string]any { return map[string]any{"id": n} }

// Every answer that is not a token, by its published code or by none, makes no credential, and is told as what it is.
func TestContractErrors(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string, headers ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for name, tc := range map[string]struct {
		before func(http.ResponseWriter, *http.Request) bool
		want   error
	}{
		"401: our JWT":                         {answer(401, `{"message":"Bad credentials"}`), brokers.ErrMisconfigured},
		"403: suspended":                       {answer(403, `{"message":"This installation has been suspended"}`), brokers.ErrMisconfigured},
		"403: primary rate limit":              {answer(403, `{}`, "X-RateLimit-Remaining", "0"), brokers.ErrUnavailable},
		"403: secondary rate limit":            {answer(403, `{}`, "Retry-After", "60"), brokers.ErrUnavailable},
		"404: no such installation":            {answer(404, `{}`), brokers.ErrMisconfigured},
		"422: not granted to the installation": {answer(422, `{}`), brokers.ErrMisconfigured},
		"429":                                  {answer(429, `{}`), brokers.ErrUnavailable},
		"500":                                  {answer(500, `{}`), brokers.ErrUncertain},
		"502 of a proxy":                       {answer(502, `<html>`), brokers.ErrUncertain},
		"200 with a token":                     {answer(200, `{"token":"ghs_aaaaaaaaaaaaaaaaaaaaaaaaa"}`), brokers.ErrUncertain},
		"201 that breaks off":                  {answer(201, `{"token":"ghs_aaaaaaaaaaaaaaaaaaaaaaaaa","expires_at`), brokers.ErrUncertain},
		"201 without a token":                  {answer(201, `{"expires_at":"2030-01-01T00:00:00Z"}`), brokers.ErrUncertain},
		"201 with an error in its place":       {answer(201, `{"message":"x","status":"422"}`), brokers.ErrUncertain},
		"201 with a token that is no header":   {answer(201, `{"token":"ghs_aaaaaaaaaaaaaaaaa\nX-Evil: 1"}`), brokers.ErrUncertain},
		"201 without an end":                   {answer(201, `{"token":"`+strings.Repeat("x", 5<<20)+`"}`), brokers.ErrUncertain},
	} {
		s := githubtest.New(t)
		s.Before(tc.before)
		c, err := build(t, s, s.URL).Mint(t.Context(), order(t, "read"))
		if !errors.Is(err, tc.want) || !c.Value.IsZero() {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if err != nil && (strings.Contains(err.Error(), "ghs_") || strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "suspended")) {
			t.Errorf("%s: the error repeats what the API said, or a secret: %v", name, err)
		}
	}
}

// Attack: the API redirects, so that our login or a token goes elsewhere.
func TestContractRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	stolen := 0
	elsewhere := githubtest.New(t)
	elsewhere.Before(func(http.ResponseWriter, *http.Request) bool { stolen++; return false })
	s := githubtest.New(t)
	b := build(t, s, s.URL)
	c, err := b.Mint(t.Context(), order(t, "read"))
	if err != nil {
		t.Fatal(err)
	}
	s.Before(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	if _, err := b.Mint(t.Context(), order(t, "read")); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("a redirect: %v", err)
	}
	if _, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now().Add(time.Minute), Data: c.Data}); err == nil {
		t.Error("a redirect is taken for a revocation")
	}
	if stolen != 0 {
		t.Errorf("%d requests went elsewhere", stolen)
	}
}

// What could widen a token, or send the key elsewhere, does not load. // issue: GitHub request with an empty repository list
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	good := *settings(s, s.URL)
	scope := func(repositories []int64, permissions map[string]string) map[string]any {
		return map[string]any{"read": &github.Scope{Repositories: repositories, Permissions: permissions}}
	}
	read := map[string]string{"contents": "read"}
	many := make([]int64, 501)
	for i := range many {
		many[i] = int64(i + 1)
	}
	for name, tc := range map[string]struct {
		change func(*github.Settings)
		scopes map[string]any
		path   string
	}{
		"no app":                 {func(s *github.Settings) { s.App = "" }, nil, "app"},
		"no installation":        {func(s *github.Settings) { s.Installation = 0 }, nil, "installation"},
		"no key":                 {func(s *github.Settings) { s.PrivateKey = secret.Ref{} }, nil, "private_key"},
		"http":                   {func(s *github.Settings) { s.API = "http://github.example" }, nil, "api"},
		"user information":       {func(s *github.Settings) { s.API = "https://x@github.example" }, nil, "api"},
		"a query":                {func(s *github.Settings) { s.API = "https://github.example?x=1" }, nil, "api"},
		"dots":                   {func(s *github.Settings) { s.API = "https://github.example/../x" }, nil, "api"},
		"no CA":                  {func(s *github.Settings) { s.CAFile = "/nowhere" }, nil, "ca_file"},
		"no scopes":              {nil, map[string]any{}, "scopes."},
		"no repositories":        {nil, scope(nil, read), "scopes.read.repositories"},
		"an empty list":          {nil, scope([]int64{}, read), "scopes.read.repositories"},
		"too many":               {nil, scope(many, read), "scopes.read.repositories"},
		"a repository twice":     {nil, scope([]int64{3, 3}, read), "scopes.read.repositories[1]"},
		"a repository that is 0": {nil, scope([]int64{0}, read), "scopes.read.repositories[0]"},
		"no permissions":         {nil, scope([]int64{3}, nil), "scopes.read.permissions"},
		"a level that is none":   {nil, scope([]int64{3}, map[string]string{"contents": "*"}), "scopes.read.permissions"},
		"a name that is none":    {nil, scope([]int64{3}, map[string]string{"con tents": "read"}), "scopes.read.permissions"},
	} {
		set, of := good, maps.Clone(scopes)
		if tc.change != nil {
			tc.change(&set)
		}
		if tc.scopes != nil {
			of = tc.scopes
		}
		problems := github.Kind().Check(about(s), &set, of)
		if len(problems) != 1 || problems[0].Path != tc.path {
			t.Errorf("%s: %v, want one at %s", name, problems, tc.path)
		}
	}
	bad := about(s)
	for name, text := range map[string]string{"no PEM": "x", "no RSA key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		bad.Secret = func(secret.Ref) (secret.Value, error) { return secret.New(text), nil }
		if problems := github.Kind().Check(bad, &good, scopes); len(problems) != 1 || problems[0].Path != "private_key" {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// A token that was made while we were cut off is told as what it is; one whose hour is over is dead.
func TestReceiptOfATokenThatNobodyHas(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	b := build(t, s, s.URL)
	end := time.Now().Add(10 * time.Minute)
	r, err := b.Revoke(context.Background(), brokers.Handle{Name: "x", Expires: end})
	if err != nil || r.State != brokers.MayExist || !r.At.Equal(end.Add(time.Hour)) || r.Reason == "" {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = b.Revoke(context.Background(), brokers.Handle{Name: "x", Expires: time.Now().Add(-2 * time.Hour)})
	if err != nil || r.State != brokers.Dead || !r.Gone {
		t.Errorf("%+v, %v", r, err)
	}
}

// vaulted is a key that somebody else keeps.
type vaulted struct {
	name string
	key  *rsa.PrivateKey
	err  error
}

func (v vaulted) SignWith(_ context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error) {
	if name != v.name || alg != jose.RS256 {
		return nil, fmt.Errorf("asked for %s by %s", alg, name)
	}
	if v.err != nil {
		return nil, v.err
	}
	sum := sha256.Sum256(input)
	return rsa.SignPKCS1v15(nil, v.key, crypto.SHA256, sum[:])
}

// The App's key can stay where it is kept: it signs there.
func TestContractKeyStaysInAKMS(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s.Knows(&key.PublicKey)
	kms := vaulted{"github-app:3", key, nil}
	set := settings(s, s.URL)
	set.PrivateKey, set.TransitKey = secret.Ref{}, kms.name
	where := about(s)
	where.KMS = true
	if problems := github.Kind().Check(where, set, scopes); len(problems) > 0 {
		t.Fatal(problems)
	}
	build := func(kms brokers.KMS) brokers.Broker {
		b, err := github.Kind().Build(where, set, scopes, brokers.Deps{Issuer: "https://sts.example", Now: time.Now, KMS: kms})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if c, err := build(kms).Mint(t.Context(), order(t, "read")); err != nil || s.Works(c.Value.Reveal()) != nil {
		t.Errorf("a token: %v", err)
	}
	for name, tc := range map[string]struct {
		kms  brokers.KMS
		want error
	}{
		"Vault is down":   {vaulted{kms.name, key, brokers.ErrUnavailable}, brokers.ErrUnavailable},
		"Vault refuses":   {vaulted{kms.name, key, brokers.ErrMisconfigured}, brokers.ErrMisconfigured},
		"there is no KMS": {nil, brokers.ErrMisconfigured},
		"another key's":   {vaulted{"github-app:4", key, nil}, brokers.ErrMisconfigured},
	} {
		before := s.Made()
		if _, err := build(tc.kms).Mint(t.Context(), order(t, "read")); !errors.Is(err, tc.want) || s.Made() != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	where.KMS = false
	if problems := github.Kind().Check(where, set, scopes); len(problems) != 1 || problems[0].Path != "transit_key" {
		t.Errorf("without signing.vault: %v", problems)
	}
	where.KMS, set.PrivateKey = true, secret.Ref{File: "app.pem"}
	if problems := github.Kind().Check(where, set, scopes); len(problems) != 1 || problems[0].Path != "transit_key" {
		t.Errorf("with both: %v", problems)
	}
}
