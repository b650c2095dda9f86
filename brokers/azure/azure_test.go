package azure_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/azure"
	"github.com/sallyport-sts/sallyport/brokers/azure/azuretest"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

const issuer = "https://sts.example"

var target = policy.Target{Name: "pay-vault", MaxLifetime: time.Hour}

// world is a fake Entra that trusts the target, and the broker of it.
func world(t *testing.T, change func(*azure.Settings)) (*azuretest.Server, brokers.Revoker) {
	t.Helper()
	assertions := brokertest.NewAssertions(t, jose.RS256)
	s := azuretest.New(t, issuer+"/assertions", "sallyport:pay-vault", assertions.Verify)
	set, about := settings(), brokers.Target{Name: target.Name, MaxLifetime: target.MaxLifetime, Signing: []string{"ES256", "RS256"}}
	set.Authority, set.CAFile = s.URL, certificate(t, s)
	if change != nil {
		change(set)
	}
	if problems := azure.Kind().Check(about, set, map[string]any{}); len(problems) > 0 {
		t.Fatal(problems)
	}
	b, err := azure.Kind().Build(about, set, map[string]any{}, brokers.Deps{Issuer: issuer, Assertions: assertions, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s, b.(brokers.Revoker)
}

// certificate writes the fake's.
func certificate(t *testing.T, s *azuretest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func settings() *azure.Settings {
	return &azure.Settings{Tenant: azuretest.Tenant, Client: azuretest.Client, Resource: azuretest.Resource, OutlivesGrant: true, Algorithm: "RS256"}
}

func order(t *testing.T) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Lifetime: 10 * time.Minute, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

// A token is for the target's resource; its holder is told of the grant's end, and operators of its own.
func TestContractTokenOutlivesItsGrantAndSaysSo(t *testing.T) {
	t.Parallel()
	s, b := world(t, nil)
	o := order(t)
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if c.Type != azure.Type || c.TokenType != "Bearer" || !c.Expires.Equal(o.Grant().Expires()) || !strings.Contains(c.Stays, "it works until") {
		t.Errorf("%+v", c)
	}
	if f := s.Asked()[0].Form; len(s.Asked()) != 1 || f.Get("scope") != "https://vault.azure.net/.default" || f.Has("client_secret") {
		t.Errorf("asked: %+v", s.Asked())
	}
	r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, c.Data))
	if err != nil || r.State != brokers.DiesAt || r.At.Before(time.Now().Add(azuretest.Life-time.Minute)) || r.At.After(time.Now().Add(azuretest.Life)) || !strings.Contains(r.Reason, "takes no token back") {
		t.Errorf("the receipt is %+v, %v", r, err)
	}
	// The process died before it was told when the token ends: a day is the longest.
	if r, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now()}); err != nil || r.At.Before(time.Now().Add(23*time.Hour)) {
		t.Errorf("the receipt of one of which nothing is known is %+v, %v", r, err)
	}
	if r, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now().Add(-25 * time.Hour)}); err != nil || r.State != brokers.Dead {
		t.Errorf("the receipt of one that is over: %+v, %v", r, err)
	}
	if _, err := b.Mint(t.Context(), brokers.Order{}); !errors.Is(err, brokers.ErrZeroOrder) {
		t.Errorf("no order: %v", err)
	}
}

// In its own mode the assertion is handed over, and is what Entra takes.
func TestContractHandOver(t *testing.T) {
	t.Parallel()
	s, b := world(t, func(s *azure.Settings) { s.Resource, s.OutlivesGrant, s.HandOver = "", false, true })
	c, err := b.Mint(t.Context(), order(t))
	if err != nil || len(s.Asked()) != 0 || c.Type != "urn:ietf:params:oauth:token-type:jwt" || c.Expires.After(time.Now().Add(5*time.Minute)) || c.Stays == "" {
		t.Fatalf("%+v, %v", c, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := client.PostForm(s.URL+"/"+azuretest.Tenant+"/oauth2/v2.0/token", map[string][]string{
		"client_id": {azuretest.Client}, "grant_type": {"client_credentials"}, "scope": {azuretest.Resource + "/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {c.Value.Reveal()},
	})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the assertion is not taken: %v, %v", resp, err)
	}
}

// Attack: Entra, or somebody who is it, answers what it never sends. Nothing is handed out.
func TestContractAnswersThatEntraNeverSendsAreRefused(t *testing.T) {
	t.Parallel()
	swap := func(old, with string) func(string) string {
		return func(a string) string { return strings.Replace(a, old, with, 1) }
	}
	for name, change := range map[string]func(string) string{
		"truncated":                 func(a string) string { return a[:len(a)/2] },
		"an error and a token":      swap(`{`, `{"error":"invalid_client",`),
		"another type":              swap(`"Bearer"`, `"pop"`),
		"no type":                   swap(`"token_type":"Bearer"`, `"x":1`),
		"no life":                   swap(`"expires_in":4500`, `"expires_in":0`),
		"a negative life":           swap(`"expires_in":4500`, `"expires_in":-1`),
		"a life of two days":        swap(`"expires_in":4500`, `"expires_in":172800`),
		"a life that is text":       swap(`"expires_in":4500`, `"expires_in":"4500"`),
		"a life that is not said":   swap(`"expires_in":4500,`, ``),
		"no token":                  swap(`"access_token"`, `"id_token"`),
		"a token twice":             swap(`{`, `{"access_token":"eyJ0eXAiOiJKV1QifQ.another.another",`),
		"a token with a line break": swap(`eyJ0eXAiOiJKV1QifQ.`, `eyJ0eXAiOiJKV1QifQ.\n`),
		"too long":                  func(a string) string { return a + strings.Repeat(" ", 1<<20) },
		"HTML":                      func(string) string { return "<html>" },
	} {
		s, b := world(t, nil)
		s.Change(change)
		if c, err := b.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrUncertain) || !c.Value.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every published error is told as what it is, with what to mend, and none repeats what Entra said.
func TestContractErrors(t *testing.T) {
	t.Parallel()
	entra := func(word, code string) string {
		return `{"error":"` + word + `","error_description":"AADSTS` + code + `: secret","error_codes":[` + code + `]}`
	}
	for name, tc := range map[string]struct {
		status int
		body   string
		want   error
		says   string
	}{
		"another issuer":          {401, entra("invalid_client", "700211"), brokers.ErrMisconfigured, "sallyport trust azure"},
		"another audience":        {401, entra("invalid_client", "700212"), brokers.ErrMisconfigured, "sallyport trust azure"},
		"another subject":         {401, entra("invalid_client", "700213"), brokers.ErrMisconfigured, "sallyport trust azure"},
		"not yet everywhere":      {400, entra("invalid_request", "70021"), brokers.ErrMisconfigured, "some minutes"},
		"our clock":               {401, entra("invalid_client", "700024"), brokers.ErrMisconfigured, "clock"},
		"no such application":     {400, entra("unauthorized_client", "700016"), brokers.ErrMisconfigured, "client"},
		"no such directory":       {400, entra("invalid_request", "90002"), brokers.ErrMisconfigured, "tenant"},
		"no such resource":        {400, entra("invalid_resource", "500011"), brokers.ErrMisconfigured, "resource"},
		"Conditional Access":      {400, entra("invalid_grant", "53003"), brokers.ErrMisconfigured, "Conditional Access"},
		"a secret":                {401, entra("invalid_client", "7000215"), brokers.ErrMisconfigured, "client"},
		"a code that is new":      {400, entra("something_secret", "1"), brokers.ErrMisconfigured, "400"},
		"too many":                {429, `{"error":"temporarily_unavailable"}`, brokers.ErrUnavailable, "429"},
		"Entra is unavailable":    {503, "secret", brokers.ErrUnavailable, "503"},
		"unavailable, by a word":  {400, `{"error":"temporarily_unavailable"}`, brokers.ErrUnavailable, "400"},
		"Entra fails":             {500, "secret", brokers.ErrUncertain, "500"},
		"a redirect":              {307, "", brokers.ErrMisconfigured, "307"},
		"a redirect of the login": {302, "", brokers.ErrMisconfigured, "302"},
	} {
		s, b := world(t, nil)
		elsewhere, _ := world(t, nil)
		s.Before(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", elsewhere.URL+r.URL.Path)
			w.WriteHeader(tc.status)
			_, _ = io.WriteString(w, tc.body)
			return true
		})
		c, err := b.Mint(t.Context(), order(t))
		if !errors.Is(err, tc.want) || !c.Value.IsZero() || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), ": secret") || strings.Contains(err.Error(), "something_secret") || len(elsewhere.Asked()) != 0 {
			t.Errorf("%s: %v, want %v; asked elsewhere: %d", name, err, tc.want, len(elsewhere.Asked()))
		}
	}
}

// What the fake refuses is what Entra refuses: a federated credential of another subject, an assertion with another algorithm.
func TestContractAssertionIsHeldToTheFederatedCredential(t *testing.T) {
	t.Parallel()
	s, b := world(t, nil)
	s.Subject = "sallyport:another"
	if _, err := b.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "AADSTS700213") {
		t.Errorf("another subject: %v", err)
	}
	assertions := brokertest.NewAssertions(t, jose.ES256)
	set := settings()
	set.Authority, set.CAFile = s.URL, certificate(t, s)
	es, err := azure.Kind().Build(brokers.Target{Name: target.Name}, set, map[string]any{}, brokers.Deps{Issuer: issuer, Assertions: assertions, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := es.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("ES256: %v", err)
	}
}

// What is unsafe, or could never work, does not load.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*azure.Settings)
		scopes map[string]any
		path   string
	}{
		"no tenant":                     {func(s *azure.Settings) { s.Tenant = "" }, nil, "tenant"},
		"a domain":                      {func(s *azure.Settings) { s.Tenant = "acme.example" }, nil, "tenant"},
		"everybody's tenant":            {func(s *azure.Settings) { s.Tenant = "common" }, nil, "tenant"},
		"no client":                     {func(s *azure.Settings) { s.Client = "pay" }, nil, "client"},
		"no resource":                   {func(s *azure.Settings) { s.Resource = "" }, nil, "resource"},
		"two resources":                 {func(s *azure.Settings) { s.Resource = "https://a.example https://b.example" }, nil, "resource"},
		"a scope for a resource":        {func(s *azure.Settings) { s.Resource += "/.default" }, nil, "resource"},
		"a life that nobody accepted":   {func(s *azure.Settings) { s.OutlivesGrant = false }, nil, "outlives_grant"},
		"handed over, and used as well": {func(s *azure.Settings) { s.HandOver = true }, nil, "hand_over"},
		"an audience with blanks":       {func(s *azure.Settings) { s.Audience = "a b" }, nil, "audience"},
		"ES256":                         {func(s *azure.Settings) { s.Algorithm = "ES256" }, nil, "algorithm"},
		"the service's ES256":           {func(s *azure.Settings) { s.Algorithm = "" }, nil, "algorithm"},
		"http":                          {func(s *azure.Settings) { s.Authority = "http://login.example" }, nil, "authority"},
		"no CA":                         {func(s *azure.Settings) { s.CAFile = "/nowhere" }, nil, "ca_file"},
		"scopes":                        {nil, map[string]any{"read": &azure.Scope{}}, "scopes."},
	} {
		set := settings()
		if tc.change != nil {
			tc.change(set)
		}
		problems := azure.Kind().Check(brokers.Target{Name: "x", Signing: []string{"ES256", "RS256"}}, set, tc.scopes)
		if len(problems) != 1 || problems[0].Path != tc.path {
			t.Errorf("%s: %v, want one at %s", name, problems, tc.path)
		}
	}
}
