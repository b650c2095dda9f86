package gcp_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/gcp"
	"github.com/sallyport-sts/sallyport/brokers/gcp/gcptest"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

const issuer = "https://sts.example"

var (
	target = policy.Target{Name: "orders-bucket", Scopes: []string{"read", "write", "whole", "many"}, MaxLifetime: time.Hour}
	bucket = gcp.Rule{Resource: "//storage.googleapis.com/projects/_/buckets/orders", Permissions: []string{"inRole:roles/storage.objectViewer"}}
	scopes = map[string]any{
		"read":  &gcp.Scope{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_only"}, Boundary: []gcp.Rule{bucket}},
		"write": &gcp.Scope{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_write"}, Boundary: []gcp.Rule{{Resource: bucket.Resource, Permissions: []string{"inRole:roles/storage.objectCreator"}, Condition: `resource.name.startsWith("a<b")`}}},
		"whole": &gcp.Scope{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_only"}},
		"many":  &gcp.Scope{Scopes: []string{"https://www.googleapis.com/auth/devstorage.read_only"}, Boundary: []gcp.Rule{bucket, bucket, bucket, bucket, bucket, bucket, bucket, bucket, bucket, bucket}},
	}
	none = map[string]any{"read": &gcp.Scope{}}
)

// world is a fake Google that trusts the target, and the broker of it.
func world(t *testing.T, of map[string]any, change func(*gcp.Settings)) (*gcptest.Server, brokers.Revoker) {
	t.Helper()
	assertions := brokertest.NewAssertions(t, jose.ES256)
	s := gcptest.New(t, issuer+"/assertions", "sallyport:orders-bucket", assertions.Verify)
	set, about := &gcp.Settings{Provider: gcptest.Provider, ServiceAccount: gcptest.ServiceAccount, STS: s.URL, IAMCredentials: s.URL}, brokers.Target{Name: target.Name, Scopes: target.Scopes, MaxLifetime: target.MaxLifetime}
	if change != nil {
		change(set)
	}
	if problems := gcp.Kind().Check(about, set, of); len(problems) > 0 {
		t.Fatal(problems)
	}
	b, err := gcp.Kind().Build(about, set, of, brokers.Deps{Issuer: issuer, Assertions: assertions, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s, b.(brokers.Revoker)
}

func order(t *testing.T, life time.Duration, of ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Scopes: of, Lifetime: life, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

// An access token of the service account is what was granted: for the grant's time and no longer, with the scopes' OAuth scopes, within
// their boundary.
func TestContractAccessTokenIsWhatWasGranted(t *testing.T) {
	t.Parallel()
	s, b := world(t, scopes, nil)
	o := order(t, 10*time.Minute, "read", "write")
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if c.Type != gcp.AccessTokenType || c.TokenType != "Bearer" || s.Kind(c.Value.Reveal()) != "narrowed" || c.Expires.After(o.Grant().Expires()) || c.Expires.Before(o.Grant().Expires().Add(-10*time.Second)) {
		t.Errorf("%s %s is %q and ends %s before the grant", c.TokenType, c.Type, s.Kind(c.Value.Reveal()), o.Grant().Expires().Sub(c.Expires))
	}
	asked := s.Asked()
	if len(asked) != 3 || asked[0].Form.Get("scope") != "https://www.googleapis.com/auth/cloud-platform" {
		t.Fatalf("asked: %+v", asked)
	}
	if want := `{"lifetime":"59`; !strings.Contains(asked[1].Body, `"scope":["https://www.googleapis.com/auth/devstorage.read_only","https://www.googleapis.com/auth/devstorage.read_write"]`) || !strings.Contains(asked[1].Body, `"lifetime":"59`) {
		t.Errorf("the token is asked for by %s, want %s", asked[1].Body, want)
	}
	if want := `{"accessBoundary":{"accessBoundaryRules":[{"availableResource":"//storage.googleapis.com/projects/_/buckets/orders","availablePermissions":["inRole:roles/storage.objectViewer"]},` +
		`{"availableResource":"//storage.googleapis.com/projects/_/buckets/orders","availablePermissions":["inRole:roles/storage.objectCreator"],"availabilityCondition":{"expression":"resource.name.startsWith(\"a\u003cb\")"}}]}}`; asked[2].Form.Get("options") != want {
		t.Errorf("the boundary is %s", asked[2].Form.Get("options"))
	}
	if c, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read", "whole")); err != nil || s.Kind(c.Value.Reveal()) != "impersonated" {
		t.Errorf("a scope without a boundary: %v", err)
	}
	r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, c.Data))
	if err != nil || r.State != brokers.DiesAt || !r.At.Equal(o.Grant().Expires()) || !strings.Contains(r.Reason, "takes no token back") {
		t.Errorf("the receipt is %+v, %v", r, err)
	}
	if r, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now().Add(-time.Second)}); err != nil || r.State != brokers.Dead {
		t.Errorf("the receipt of one that is over: %+v, %v", r, err)
	}
}

// What lives an hour, whatever is asked, is a choice of the target; its holder is told of the grant's end, and operators of its own.
func TestContractTokensOfAnHourOutliveTheirGrants(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*gcp.Settings)
		scopes map[string]any
		form   string
	}{
		"federated": {func(s *gcp.Settings) { s.ServiceAccount, s.OutlivesGrant = "", true }, scopes, gcp.AccessTokenType},
		"ID token":  {func(s *gcp.Settings) { s.IDAudience, s.OutlivesGrant = audienceOfID, true }, none, gcp.IDTokenType},
	} {
		_, b := world(t, tc.scopes, tc.change)
		o := order(t, 10*time.Minute, "read")
		c, err := b.Mint(t.Context(), o)
		if err != nil || c.Type != tc.form || !c.Expires.Equal(o.Grant().Expires()) || !strings.Contains(c.Stays, "it works until") {
			t.Errorf("%s: %v, %s until %s; %s", name, err, c.Type, c.Expires, c.Stays)
		}
		r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, c.Data))
		if err != nil || r.State != brokers.DiesAt || r.At.Before(time.Now().Add(59*time.Minute)) || r.At.After(time.Now().Add(time.Hour)) {
			t.Errorf("%s: the receipt is %+v, %v", name, r, err)
		}
		// The process died before it was told when it ends.
		r, err = b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now()})
		if err != nil || r.State != brokers.DiesAt || r.At.Before(time.Now().Add(time.Hour)) {
			t.Errorf("%s: the receipt of one of which nothing is known is %+v, %v", name, r, err)
		}
	}
}

const audienceOfID = "https://orders.example"

// In its own mode the assertion is handed over: for this target's subject and audience, for minutes, and its receipt says what
// nobody here knows of.
func TestContractHandOver(t *testing.T) {
	t.Parallel()
	s, b := world(t, none, func(s *gcp.Settings) { s.ServiceAccount, s.HandOver = "", true })
	c, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read"))
	if err != nil || len(s.Asked()) != 0 || c.Type != "urn:ietf:params:oauth:token-type:jwt" || c.TokenType != "N_A" || c.Expires.After(time.Now().Add(5*time.Minute)) || c.Stays == "" {
		t.Fatalf("%+v, %v", c, err)
	}
	resp, err := http.PostForm(s.URL+"/v1/token", map[string][]string{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "scope": {"x"},
		"audience": {"//iam.googleapis.com/" + gcptest.Provider}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {c.Value.Reveal()},
	})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the assertion is not taken: %v, %v", resp, err)
	}
	end := time.Now().Add(5 * time.Minute)
	if r, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: end}); err != nil || r.State != brokers.DiesAt || !r.At.Equal(end.Add(time.Hour)) || !strings.Contains(r.Reason, "nobody here knows") {
		t.Errorf("the receipt is %+v, %v", r, err)
	}
}

// What cannot be had is said before anything is asked.
func TestContractLimits(t *testing.T) {
	t.Parallel()
	s, b := world(t, scopes, nil)
	if _, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read", "many")); !errors.Is(err, brokers.ErrScopes) {
		t.Errorf("eleven rules: %v", err)
	}
	if _, err := b.Mint(t.Context(), order(t, 5*time.Second, "read")); !errors.Is(err, brokers.ErrTooShort) {
		t.Errorf("a grant of five seconds: %v", err)
	}
	if _, err := b.Mint(t.Context(), brokers.Order{}); !errors.Is(err, brokers.ErrZeroOrder) {
		t.Errorf("no order: %v", err)
	}
	if len(s.Asked()) != 0 {
		t.Error("Google was asked")
	}
}

// Attack: Google, or somebody who is it, answers what it never sends. Nothing is handed out.
func TestContractAnswersThatGoogleNeverSendsAreRefused(t *testing.T) {
	t.Parallel()
	swap := func(old, with string) func(string) string {
		return func(a string) string { return strings.Replace(a, old, with, 1) }
	}
	for name, change := range map[string]func(string) string{
		"truncated":                 func(a string) string { return a[:len(a)/2] },
		"an error and a token":      swap(`{"`, `{"error":"x","`),
		"another type":              swap("token-type:access_token", "token-type:jwt"),
		"no Bearer":                 swap(`"Bearer"`, `"N_A"`),
		"a longer life":             swap(`"expires_in":3600`, `"expires_in":43200`),
		"no life":                   swap(`"expires_in":3600`, `"expires_in":0`),
		"a life that is not said":   swap(`"expires_in":3600,`, ``),
		"a later end":               swap(`"expireTime":"2`, `"expireTime":"3`),
		"an end that is past":       swap(`"expireTime":"20`, `"expireTime":"19`),
		"no end":                    swap(`"expireTime"`, `"expires"`),
		"no token":                  swap(`oken":"ya29.d.`, `oken":"","x":"`),
		"a member twice":            swap(`{"`, `{"access_token":"ya29.another-token-of-somebody","accessToken":"ya29.another-token-of-somebody","`),
		"a token with a line break": swap(`ya29.d.`, `ya29.d.\n`),
		"too long":                  func(a string) string { return a + strings.Repeat(" ", 1<<20) },
		"HTML":                      func(string) string { return "<html>" },
	} {
		s, b := world(t, scopes, nil)
		s.Change(change)
		if c, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read")); !errors.Is(err, brokers.ErrUncertain) || !c.Value.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, b := world(t, none, func(s *gcp.Settings) { s.IDAudience, s.OutlivesGrant = audienceOfID, true })
	s.Change(func(a string) string {
		if !strings.HasPrefix(a, `{"token"`) {
			return a
		}
		part := base64.RawURLEncoding.EncodeToString
		return `{"token":"` + part([]byte(`{"alg":"RS256"}`)) + "." + part(fmt.Appendf(nil, `{"aud":"https://other.example","exp":%d}`, time.Now().Add(time.Hour).Unix())) + "." + part([]byte("signature")) + `"}`
	})
	if c, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read")); !errors.Is(err, brokers.ErrUncertain) || !c.Value.IsZero() {
		t.Errorf("an ID token for another audience: %v", err)
	}
}

// Every published error is told as what it is, and none repeats what Google said.
func TestContractErrors(t *testing.T) {
	t.Parallel()
	sts := func(code, description string) string {
		return `{"error":"` + code + `","error_description":"` + description + `"}`
	}
	iam := func(status string) string { return `{"error":{"code":1,"message":"secret","status":"` + status + `"}}` }
	for name, tc := range map[string]struct {
		path   string
		status int
		body   string
		want   error
	}{
		"a bad assertion":          {"/v1/token", 400, sts("invalid_grant", "secret"), brokers.ErrMisconfigured},
		"our keys cannot be read":  {"/v1/token", 400, sts("invalid_grant", "Error connecting to the given credential's issuer."), brokers.ErrUnavailable},
		"no such provider":         {"/v1/token", 400, sts("invalid_target", "secret"), brokers.ErrMisconfigured},
		"the attribute condition":  {"/v1/token", 400, sts("unauthorized_client", "secret"), brokers.ErrMisconfigured},
		"a scope":                  {"/v1/token", 400, sts("invalid_scope", "secret"), brokers.ErrMisconfigured},
		"a code that is new":       {"/v1/token", 400, sts("something_secret", "secret"), brokers.ErrMisconfigured},
		"too many":                 {"/v1/token", 429, sts("quota", "secret"), brokers.ErrUnavailable},
		"the STS is down":          {"/v1/token", 503, "secret", brokers.ErrUnavailable},
		"the STS fails":            {"/v1/token", 500, "secret", brokers.ErrUncertain},
		"may not be the account":   {":generateAccessToken", 403, iam("PERMISSION_DENIED"), brokers.ErrMisconfigured},
		"no such account":          {":generateAccessToken", 404, iam("NOT_FOUND"), brokers.ErrMisconfigured},
		"the lifetime":             {":generateAccessToken", 400, iam("INVALID_ARGUMENT"), brokers.ErrMisconfigured},
		"the federated token":      {":generateAccessToken", 401, iam("UNAUTHENTICATED"), brokers.ErrMisconfigured},
		"the API is not enabled":   {":generateAccessToken", 400, iam("FAILED_PRECONDITION"), brokers.ErrMisconfigured},
		"too many at the account":  {":generateAccessToken", 429, iam("RESOURCE_EXHAUSTED"), brokers.ErrUnavailable},
		"the API is unavailable":   {":generateAccessToken", 503, iam("UNAVAILABLE"), brokers.ErrUnavailable},
		"the API fails":            {":generateAccessToken", 500, iam("INTERNAL"), brokers.ErrUncertain},
		"a redirect":               {"/v1/token", 307, "", brokers.ErrMisconfigured},
		"a redirect of the second": {":generateAccessToken", 302, "", brokers.ErrMisconfigured},
	} {
		s, b := world(t, scopes, nil)
		elsewhere, _ := world(t, scopes, nil)
		s.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, tc.path) {
				return false
			}
			w.Header().Set("Location", elsewhere.URL+r.URL.Path)
			w.WriteHeader(tc.status)
			_, _ = io.WriteString(w, tc.body)
			return true
		})
		c, err := b.Mint(t.Context(), order(t, 10*time.Minute, "read"))
		if !errors.Is(err, tc.want) || !c.Value.IsZero() || strings.Contains(err.Error(), "secret") || len(elsewhere.Asked()) != 0 {
			t.Errorf("%s: %v, want %v; asked elsewhere: %d", name, err, tc.want, len(elsewhere.Asked()))
		}
	}
}

// What is unsafe, or could never work, does not load.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	scope := func(s gcp.Scope) map[string]any { return map[string]any{"read": &s} }
	storage := []string{"https://www.googleapis.com/auth/devstorage.read_only"}
	for name, tc := range map[string]struct {
		change func(*gcp.Settings)
		scopes map[string]any
		path   string
	}{
		"no provider":                   {func(s *gcp.Settings) { s.Provider = "" }, scopes, "provider"},
		"a project's name":              {func(s *gcp.Settings) { s.Provider = strings.Replace(s.Provider, "739000000001", "acme", 1) }, scopes, "provider"},
		"a path in it":                  {func(s *gcp.Settings) { s.Provider += "/../other" }, scopes, "provider"},
		"an account with a path":        {func(s *gcp.Settings) { s.ServiceAccount = "a/b@x.iam.gserviceaccount.com" }, scopes, "service_account"},
		"an account that is a name":     {func(s *gcp.Settings) { s.ServiceAccount = "orders" }, scopes, "service_account"},
		"an audience with blanks":       {func(s *gcp.Settings) { s.Audience = "a b" }, scopes, "audience"},
		"an ID token of nobody":         {func(s *gcp.Settings) { s.ServiceAccount, s.IDAudience, s.OutlivesGrant = "", "https://x.example", true }, none, "id_token_audience"},
		"handed over, and used as well": {func(s *gcp.Settings) { s.HandOver = true }, none, "hand_over"},
		"http":                          {func(s *gcp.Settings) { s.STS = "http://sts.example" }, scopes, "sts"},
		"a query":                       {func(s *gcp.Settings) { s.IAMCredentials = "https://x.example/?y" }, scopes, "iam_credentials"},
		"no CA":                         {func(s *gcp.Settings) { s.CAFile = "/nowhere" }, scopes, "ca_file"},
		"an algorithm of no provider":   {func(s *gcp.Settings) { s.Algorithm = "PS256" }, scopes, "algorithm"},
		"no scopes":                     {nil, map[string]any{}, "scopes."},
		"no OAuth scope":                {nil, scope(gcp.Scope{}), "scopes.read.scopes"},
		"a scope that is a word":        {nil, scope(gcp.Scope{Scopes: []string{"storage"}}), "scopes.read.scopes[0]"},
		"a boundary of no resource":     {nil, scope(gcp.Scope{Scopes: storage, Boundary: []gcp.Rule{{Resource: "orders", Permissions: bucket.Permissions}}}), "scopes.read.boundary[0].resource"},
		"a boundary of no permission":   {nil, scope(gcp.Scope{Scopes: storage, Boundary: []gcp.Rule{{Resource: bucket.Resource}}}), "scopes.read.boundary[0].permissions"},
		"a permission without its role": {nil, scope(gcp.Scope{Scopes: storage, Boundary: []gcp.Rule{{Resource: bucket.Resource, Permissions: []string{"storage.objects.get"}}}}), "scopes.read.boundary[0].permissions"},
		"an hour that nobody accepted":  {func(s *gcp.Settings) { s.ServiceAccount = "" }, scopes, "outlives_grant"},
		"an ID token of an hour":        {func(s *gcp.Settings) { s.IDAudience = "https://x.example" }, none, "outlives_grant"},
		"an hour that is none":          {func(s *gcp.Settings) { s.OutlivesGrant = true }, scopes, "outlives_grant"},
		"scopes of an ID token":         {func(s *gcp.Settings) { s.IDAudience, s.OutlivesGrant = "https://x.example", true }, scope(gcp.Scope{Scopes: storage}), "scopes.read"},
	} {
		set := gcp.Settings{Provider: gcptest.Provider, ServiceAccount: gcptest.ServiceAccount}
		if tc.change != nil {
			tc.change(&set)
		}
		if problems := gcp.Kind().Check(brokers.Target{Name: "x"}, &set, tc.scopes); len(problems) != 1 || problems[0].Path != tc.path {
			t.Errorf("%s: %v, want one at %s", name, problems, tc.path)
		}
	}
	if problems := gcp.Kind().Check(brokers.Target{Name: "x", Signing: []string{"EdDSA", "RS256"}}, &gcp.Settings{Provider: gcptest.Provider, ServiceAccount: gcptest.ServiceAccount}, scopes); len(problems) != 1 || problems[0].Path != "algorithm" {
		t.Errorf("a service that signs with EdDSA by default: %v", problems)
	}
}
