package kubernetes_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

var (
	target = policy.Target{Name: "orders-cluster", Scopes: []string{"read", "write"}, MaxLifetime: time.Hour, MinLifetime: kubernetes.MinLifetime}
	scopes = map[string]*kubernetes.Scope{"read": {ServiceAccount: "reader", UID: accountUID}, "write": {ServiceAccount: "writer"}}
)

// setting is what a test may choose.
type setting struct {
	settings func(*kubernetes.Settings)
	scopes   map[string]*kubernetes.Scope
	secret   func() (secret.Value, error)
	signer   brokers.Signer
	now      func() time.Time
	issuer   string
	target   string
}

func newBroker(t testing.TB, address, caFile string, s setting) brokers.Lister {
	t.Helper()
	settings := &kubernetes.Settings{Server: "https://" + address, CAFile: caFile, Namespace: namespace, APIAccess: true, Token: secret.Ref{File: "token"}}
	if s.settings != nil {
		s.settings(settings)
	}
	if s.scopes == nil {
		s.scopes = scopes
	}
	if s.secret == nil {
		s.secret = func() (secret.Value, error) { return secret.New(login), nil }
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.issuer == "" {
		s.issuer = "https://sts.example"
	}
	if s.target == "" {
		s.target = target.Name
	}
	meaning := map[string]any{}
	for name, v := range s.scopes {
		meaning[name] = v
	}
	bt := brokers.Target{Name: s.target, Scopes: target.Scopes, MaxLifetime: time.Hour, Path: func(p string) string { return p },
		Secret: func(secret.Ref) (secret.Value, error) { return s.secret() }}
	kind := kubernetes.Kind()
	if problems := kind.Check(bt, settings, meaning); len(problems) > 0 {
		t.Fatalf("the settings do not load: %v", problems)
	}
	b, err := kind.Build(bt, settings, meaning, brokers.Deps{Issuer: s.issuer, Assertions: s.signer, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.(*kubernetes.Broker).Close() })
	return b.(brokers.Lister)
}

func order(t testing.TB, scopes ...string) brokers.Order {
	t.Helper()
	return lasting(t, 15*time.Minute, scopes...)
}

func lasting(t testing.TB, lifetime time.Duration, scopes ...string) brokers.Order {
	t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"read"}
	}
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Scopes: scopes, Lifetime: lifetime, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

func host(c *contract) string { return strings.TrimPrefix(c.URL, "https://") }

// The contract: the whole suite against a server that answers as Kubernetes says it does.
func TestContractBroker(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	brokertest.RunRevoker(t, brokertest.Upstream{
		Target:  target,
		Address: host(c),
		Build: func(t testing.TB, address string) brokers.Revoker {
			return newBroker(t, address, c.CAFile, setting{})
		},
		Works: func(cred brokers.Credential) error {
			if !c.works(cred.Value.Reveal()) {
				return errors.New("the API server says no")
			}
			return nil
		},
		Count: func(testing.TB) int { return c.count() },
		Early: 10 * time.Second,
	})
}

func TestContractRequestsSayExactlyWhatWasGranted(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{settings: func(s *kubernetes.Settings) {
		s.APIAccess, s.Audiences = false, []string{"https://vault.orders.example", "https://ci.orders.example"}
	}})
	o := order(t)
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	asked := c.asked()
	if len(asked) != 2 {
		t.Fatalf("a mint took %d requests, want 2", len(asked))
	}
	held, token := asked[0], asked[1]
	name := strings.ReplaceAll(o.Name(), "_", "-")
	want := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "sallyport-sts.github.io/lease", "immutable": true,
		"metadata": map[string]any{
			"name":   name,
			"labels": map[string]any{"app.kubernetes.io/managed-by": "sallyport", "sallyport-sts.github.io/target": "accwtin6wknz4dl675wpymv3ba"},
			"annotations": map[string]any{
				"sallyport-sts.github.io/target-name": "orders-cluster", "sallyport-sts.github.io/lease": o.Lease().ID,
				"sallyport-sts.github.io/expires": o.Grant().Expires().UTC().Format(time.RFC3339),
			},
		},
	}
	meta := held.Body["metadata"].(map[string]any) // the contract server adds to it
	delete(meta, "uid")
	delete(meta, "creationTimestamp")
	delete(meta, "namespace")
	if got, want := jsonOf(held.Body), jsonOf(want); held.Path != "/api/v1/namespaces/sallyport-orders/secrets" || got != want {
		t.Errorf("the Secret is POST %s %s\nwant %s", held.Path, got, want)
	}
	spec := token.Body["spec"].(map[string]any)
	bound := spec["boundObjectRef"].(map[string]any)
	seconds := spec["expirationSeconds"].(float64)
	if left := time.Until(o.Grant().Expires()).Seconds(); seconds > left || seconds < left-10 {
		t.Errorf("it asks for %v s, and %v are left", seconds, left)
	}
	if bound["uid"] == "" || bound["uid"] == nil {
		t.Error("the token is not bound by uid")
	}
	spec["expirationSeconds"], bound["uid"] = 0, "u"
	wantToken := map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"uid": accountUID},
		"spec": map[string]any{
			"audiences": []string{"https://vault.orders.example", "https://ci.orders.example"}, "expirationSeconds": 0,
			"boundObjectRef": map[string]any{"apiVersion": "v1", "kind": "Secret", "name": name, "uid": "u"},
		},
	}
	if got, want := jsonOf(token.Body), jsonOf(wantToken); token.Path != "/api/v1/namespaces/sallyport-orders/serviceaccounts/reader/token" || got != want {
		t.Errorf("the token is POST %s %s\nwant %s", token.Path, got, want)
	}
	for _, r := range asked {
		if r.Bearer != login {
			t.Errorf("%s %s carries %q", r.Method, r.Path, r.Bearer)
		}
	}
	if cred.Type != "https://sallyport-sts.github.io/token-type/kubernetes-token" || cred.TokenType != "Bearer" || cred.Audience != "orders-cluster" {
		t.Errorf("the credential says %+v", cred)
	}
	if exp := claimsOf(cred.Value.Reveal())["exp"].(float64); cred.Expires.Unix() != int64(exp) || cred.Expires.After(o.Grant().Expires()) {
		t.Errorf("it expires at %s, its token at %v, its grant at %s", cred.Expires, exp, o.Grant().Expires())
	}
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// claim changes a claim of the token in an answer to a TokenRequest.
func claim(change func(claims, kubernetes map[string]any)) func(request, int, map[string]any) (int, map[string]any) {
	return func(r request, code int, answer map[string]any) (int, map[string]any) {
		if status, ok := answer["status"].(map[string]any); ok && status["token"] != nil {
			c := claimsOf(status["token"].(string))
			change(c, c["kubernetes.io"].(map[string]any))
			status["token"] = jws(c)
		}
		return code, answer
	}
}

// answers spoils the answers to one kind of request.
func answers(path string, change func(code int, answer map[string]any) (int, map[string]any)) func(request, int, map[string]any) (int, map[string]any) {
	return func(r request, code int, answer map[string]any) (int, map[string]any) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.Path, path) {
			return change(code, answer)
		}
		return code, answer
	}
}

// Whatever the API server answers, no credential is handed out that is not what was ordered, and nothing is left.
func TestContractHostileAnswersMakeNothing(t *testing.T) {
	t.Parallel()
	statusOf := func(change func(map[string]any)) func(int, map[string]any) (int, map[string]any) {
		return func(code int, a map[string]any) (int, map[string]any) {
			change(a["status"].(map[string]any))
			return code, a
		}
	}
	metaOf := func(change func(map[string]any)) func(int, map[string]any) (int, map[string]any) {
		return func(code int, a map[string]any) (int, map[string]any) {
			change(a["metadata"].(map[string]any))
			return code, a
		}
	}
	const secrets, token = "/secrets", "/token"
	for name, tc := range map[string]struct {
		spoil func(request, int, map[string]any) (int, map[string]any)
		want  error
	}{
		"a life of a year, said openly":        {answers(token, statusOf(func(s map[string]any) { s["expirationTimestamp"] = "2100-01-01T00:00:00Z" })), brokers.ErrUnavailable},
		"a life of a year, in the token alone": {claim(func(c, _ map[string]any) { c["exp"] = time.Now().AddDate(1, 0, 0).Unix() }), brokers.ErrUnavailable},
		"a second too long":                    {claim(func(c, _ map[string]any) { c["exp"] = time.Now().Add(15*time.Minute + 2*time.Second).Unix() }), brokers.ErrUnavailable},
		"a token stretched with a warning":     {claim(func(_, k map[string]any) { k["warnafter"] = 1 }), brokers.ErrUnavailable},
		"another audience":                     {claim(func(c, _ map[string]any) { c["aud"] = []string{kubeAPI} }), brokers.ErrUnavailable},
		"one audience more":                    {claim(func(c, _ map[string]any) { c["aud"] = []string{"https://vault.orders.example", kubeAPI} }), brokers.ErrUnavailable},
		"no audience":                          {claim(func(c, _ map[string]any) { delete(c, "aud") }), brokers.ErrUnavailable},
		"another service account":              {claim(func(c, _ map[string]any) { c["sub"] = "system:serviceaccount:" + namespace + ":writer" }), brokers.ErrUnavailable},
		"an account of another uid":            {claim(func(_, k map[string]any) { k["serviceaccount"].(map[string]any)["uid"] = "other" }), brokers.ErrUnavailable},
		"another namespace":                    {claim(func(_, k map[string]any) { k["namespace"] = "kube-system" }), brokers.ErrUnavailable},
		"a token that is not bound":            {claim(func(_, k map[string]any) { delete(k, "secret") }), brokers.ErrUnavailable},
		"a token bound to another Secret":      {claim(func(_, k map[string]any) { k["secret"].(map[string]any)["name"] = "other" }), brokers.ErrUnavailable},
		"a token bound to another uid":         {claim(func(_, k map[string]any) { k["secret"].(map[string]any)["uid"] = "other" }), brokers.ErrUnavailable},
		"no token":                             {answers(token, statusOf(func(s map[string]any) { delete(s, "token") })), brokers.ErrUnavailable},
		"a token that is no JWT":               {answers(token, statusOf(func(s map[string]any) { s["token"] = "opaque" })), brokers.ErrUnavailable},
		"a token of other bytes":               {answers(token, statusOf(func(s map[string]any) { s["token"] = "a.!.c" })), brokers.ErrUnavailable},
		"a Secret without uid":                 {answers(secrets, metaOf(func(m map[string]any) { delete(m, "uid") })), brokers.ErrUnavailable},
		"a Secret of another name":             {answers(secrets, metaOf(func(m map[string]any) { m["name"] = "other" })), brokers.ErrUnavailable},
		"a Secret of the year 2100":            {answers(secrets, metaOf(func(m map[string]any) { m["creationTimestamp"] = "2100-01-01T00:00:00Z" })), brokers.ErrTooShort},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			b := newBroker(t, host(c), c.CAFile, setting{settings: func(s *kubernetes.Settings) {
				s.APIAccess, s.Audiences = false, []string{"https://vault.orders.example"}
			}})
			c.set(func() { c.spoil = tc.spoil })
			cred, err := b.Mint(t.Context(), order(t))
			if !errors.Is(err, tc.want) || errors.Is(err, brokers.ErrUncertain) {
				t.Errorf("minting: %v, want %v", err, tc.want)
			}
			if !cred.Value.IsZero() {
				t.Error("a credential was handed out")
			}
			if n := c.count(); n != 0 {
				t.Errorf("%d Secrets are left", n)
			}
			if err != nil && strings.Contains(err.Error(), login) {
				t.Errorf("the error repeats what the server said: %v", err)
			}
		})
	}
}

// A refusal says whose fault it is, and nothing is left.
func TestContractRefusalsSayWhoseFaultItIs(t *testing.T) {
	t.Parallel()
	const secrets, token = "/secrets", "/token"
	for name, tc := range map[string]struct {
		path   string
		code   int
		reason string
		want   error
	}{
		"our login is refused":              {secrets, 401, "Unauthorized", brokers.ErrMisconfigured},
		"no right to make Secrets":          {secrets, 403, "Forbidden", brokers.ErrMisconfigured},
		"no such namespace":                 {secrets, 404, "NotFound", brokers.ErrMisconfigured},
		"no right to make tokens":           {token, 403, "Forbidden", brokers.ErrMisconfigured},
		"no such account":                   {token, 404, "NotFound", brokers.ErrMisconfigured},
		"another account of that name":      {token, 409, "Conflict", brokers.ErrMisconfigured},
		"an audience that it does not take": {token, 422, "Invalid", brokers.ErrMisconfigured},
		"too many requests":                 {secrets, 429, "TooManyRequests", brokers.ErrUnavailable},
		"too many requests for tokens":      {token, 429, "TooManyRequests", brokers.ErrUnavailable},
		"an error of its own for tokens":    {token, 500, "InternalError", brokers.ErrUnavailable},
		"words of our own":                  {token, 500, login, brokers.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			b := newBroker(t, host(c), c.CAFile, setting{})
			c.set(func() {
				c.refuse = func(r request) (int, string) {
					if r.Method == http.MethodPost && strings.HasSuffix(r.Path, tc.path) {
						return tc.code, tc.reason
					}
					return 0, ""
				}
			})
			_, err := b.Mint(t.Context(), order(t))
			if !errors.Is(err, tc.want) || errors.Is(err, brokers.ErrUncertain) {
				t.Errorf("minting: %v, want %v", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), login) {
				t.Errorf("the error repeats what the server said: %v", err)
			}
			if n := c.count(); n != 0 {
				t.Errorf("%d Secrets are left", n)
			}
		})
	}
}

// What may have been executed and is not known is uncertain, and a revocation by name cleans up.
func TestContractUnclearAnswersAreUncertain(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(c *contract) func(request, int, map[string]any) (int, map[string]any){
		"a Secret made behind an error": func(*contract) func(request, int, map[string]any) (int, map[string]any) {
			return answers("/secrets", func(int, map[string]any) (int, map[string]any) { return status(504, "Timeout") })
		},
		"a Secret that cannot be taken back": func(*contract) func(request, int, map[string]any) (int, map[string]any) {
			return func(r request, code int, a map[string]any) (int, map[string]any) {
				if r.Method == http.MethodDelete || strings.HasSuffix(r.Path, "/token") {
					return status(500, "InternalError")
				}
				return code, a
			}
		},
		"a Secret that stood before": func(c *contract) func(request, int, map[string]any) (int, map[string]any) {
			return answers("/secrets", func(int, map[string]any) (int, map[string]any) { return status(409, "AlreadyExists") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			b := newBroker(t, host(c), c.CAFile, setting{})
			c.set(func() { c.spoil = spoil(c) })
			o := order(t)
			if _, err := b.Mint(t.Context(), o); !errors.Is(err, brokers.ErrUncertain) {
				t.Errorf("minting: %v, want ErrUncertain", err)
			}
			c.set(func() { c.spoil = nil })
			if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.State != brokers.Dead {
				t.Errorf("revoking by name: %s, %v", r.State, err)
			}
			if n := c.count(); n != 0 {
				t.Errorf("%d Secrets are left", n)
			}
		})
	}
}

func TestContractServerIsNotFollowedNorBelieved(t *testing.T) {
	t.Parallel()
	elsewhere := newContract(t)
	var giant atomic.Int64 // bytes that went out
	for name, instead := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"a redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		},
		"a giant answer": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusCreated)
			chunk := []byte(strings.Repeat(" ", 64<<10))
			for range 1 << 10 { // 64 MiB, if somebody reads them
				n, err := w.Write(chunk)
				if giant.Add(int64(n)); err != nil {
					break
				}
			}
			return true
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte("<html>" + login))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			b := newBroker(t, host(c), c.CAFile, setting{})
			c.set(func() { c.instead = instead })
			o := order(t)
			_, err := b.Mint(t.Context(), o)
			if err == nil || strings.Contains(err.Error(), login) {
				t.Errorf("minting: %v", err)
			}
			if _, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err == nil || strings.Contains(err.Error(), login) {
				t.Errorf("revoking: %v, want an error", err)
			}
			if n := len(elsewhere.asked()); n > 0 {
				t.Errorf("another server was asked %d times", n)
			}
			if n := giant.Load() >> 20; n > 32 { // two requests, and what the kernel holds
				t.Errorf("%d MiB of an answer were read", n)
			}
		})
	}
	t.Run("a certificate of nobody we know", func(t *testing.T) {
		t.Parallel()
		c := newContract(t)
		b := newBroker(t, host(c), "", setting{})
		if _, err := b.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrUnavailable) {
			t.Errorf("minting: %v, want ErrUnavailable", err)
		}
		if len(c.asked()) > 0 {
			t.Error("the server was sent a request")
		}
	})
}

// A load balancer that closes idle connections costs nobody a mint or a revocation.
func TestContractConnectionClosedWhileIdleIsNoFailure(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	for range 5 {
		o := order(t)
		cred, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Errorf("minting: %v", err)
		}
		c.CloseClientConnections()
		if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.Dead || r.Gone {
			t.Errorf("revoking: %s (gone %v), %v", r.State, r.Gone, err)
		}
		c.CloseClientConnections()
	}
}

func TestContractClocksThatDifferNeverLengthenALife(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-30 * time.Second, 0, 30 * time.Second} {
		c := newContract(t)
		c.ahead = ahead
		b := newBroker(t, host(c), c.CAFile, setting{})
		o := order(t)
		cred, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Errorf("clock %s ahead: %v", ahead, err)
			continue
		}
		claims := claimsOf(cred.Value.Reveal())
		if exp := int64(claims["exp"].(float64)); exp > o.Grant().Expires().Unix() {
			t.Errorf("clock %s ahead: the token ends %d s after its grant", ahead, exp-o.Grant().Expires().Unix())
		}
		if life := int64(claims["exp"].(float64) - claims["iat"].(float64)); time.Now().Unix()+life > o.Grant().Expires().Unix() {
			t.Errorf("clock %s ahead: by that clock it lives %d s, longer than its grant", ahead, life)
		}
	}
}

func TestContractShortGrantsAreRefusedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	late := newBroker(t, host(c), c.CAFile, setting{now: func() time.Time { return time.Now().Add(5 * time.Minute) }})
	if _, err := b.Mint(t.Context(), lasting(t, 11*time.Minute)); err != nil {
		t.Errorf("eleven minutes: %v", err)
	}
	made := len(c.asked())
	if _, err := late.Mint(t.Context(), lasting(t, 14*time.Minute)); !errors.Is(err, brokers.ErrTooShort) {
		t.Errorf("fourteen minutes, five of them over: %v, want ErrTooShort", err)
	}
	if n := len(c.asked()); n != made {
		t.Errorf("%d requests were made for it", n-made)
	}
}

func TestContractServerMayShorten(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	c.most = 700
	b := newBroker(t, host(c), c.CAFile, setting{})
	cred, err := b.Mint(t.Context(), lasting(t, 30*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(cred.Expires); left > 701*time.Second || left < 690*time.Second {
		t.Errorf("it says that it lives %s, want what the server said, 700 s", left)
	}
}

func TestScopesOfSeveralAccountsCannotBeHadAtOnce(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	if _, err := b.Mint(t.Context(), order(t, "read", "write")); !errors.Is(err, brokers.ErrScopes) {
		t.Errorf("two accounts: %v, want ErrScopes", err)
	}
	none := brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: target, Lifetime: 15 * time.Minute})
	if _, err := b.Mint(t.Context(), none); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("no account: %v, want ErrMisconfigured: no caller can help it", err)
	}
	if n := len(c.asked()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
	same := newBroker(t, host(c), c.CAFile, setting{scopes: map[string]*kubernetes.Scope{"read": {ServiceAccount: "reader"}, "write": {ServiceAccount: "reader"}}})
	cred, err := same.Mint(t.Context(), order(t, "read", "write"))
	if err != nil || !slices.Equal(cred.Scopes, []string{"read", "write"}) {
		t.Errorf("two words for one account: %v, %v", cred.Scopes, err)
	}
}

func TestContractReceiptsPromiseNoMoreThanIsSeen(t *testing.T) {
	t.Parallel()
	offline := func(s *kubernetes.Settings) {
		s.APIAccess, s.Audiences = false, []string{"https://vault.orders.example"}
	}
	asking := func(s *kubernetes.Settings) { offline(s); s.TokenReview = true }
	moved := func(s *kubernetes.Settings) { s.Namespace = "moved" }
	const never = time.Duration(-1)
	for name, tc := range map[string]struct {
		made, revoked func(*kubernetes.Settings)
		elsewhere     bool
		later         time.Duration // between mint and revocation
		state         brokers.State
		within        time.Duration // of now; never for the end of its life
		stays         int
	}{
		"the API server looks":                  {state: brokers.Dead, within: 13 * time.Second},
		"services that ask":                     {made: asking, revoked: asking, state: brokers.Dead, within: 13 * time.Second},
		"services that verify offline":          {made: offline, revoked: offline, state: brokers.DiesAt, within: never},
		"its life is over":                      {made: offline, revoked: offline, later: 16 * time.Minute, state: brokers.Dead, within: time.Second},
		"the target has another namespace now":  {revoked: moved, state: brokers.Dead, within: 13 * time.Second},
		"the target has another API server now": {elsewhere: true, state: brokers.DiesAt, within: never, stays: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContract(t)
			o := order(t)
			cred, err := newBroker(t, host(c), c.CAFile, setting{settings: tc.made}).Mint(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			at := c
			if tc.elsewhere {
				at = newContract(t)
			}
			now := time.Now().Add(tc.later)
			b := newBroker(t, host(at), at.CAFile, setting{settings: tc.revoked, now: func() time.Time { return now }})
			r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data))
			if err != nil {
				t.Fatal(err)
			}
			end := now.Add(tc.within)
			if tc.within == never {
				end = o.Grant().Expires()
			}
			least := now
			if tc.within > 10*time.Second { // for so long an API server remembers
				least = now.Add(10 * time.Second)
			}
			if r.State != tc.state || r.At.Before(least) || r.At.After(end) || tc.within == never && !r.At.Equal(end) {
				t.Errorf("the receipt says %s at %s, want %s by %s", r.State, r.At, tc.state, end)
			}
			if tc.state == brokers.DiesAt && r.Reason == "" {
				t.Error("the receipt does not say why")
			}
			if n := c.count(); n != tc.stays {
				t.Errorf("%d Secrets are left, want %d", n, tc.stays)
			}
		})
	}
}

func TestContractSecretThatAFinalizerKeepsIsNoDeath(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	c.finalizers = true
	o := order(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h := brokertest.HandleOf(o, cred.Data)
	if r, err := b.Revoke(t.Context(), h); !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("while the Secret stands: %s, %v; want ErrUnavailable", r.State, err)
	}
	for found, err := range b.List(t.Context()) {
		t.Errorf("a Secret that is being deleted is listed: %v, %v", found, err)
	}
	later := newBroker(t, host(c), c.CAFile, setting{now: func() time.Time { return time.Now().Add(80 * time.Second) }})
	if r, err := later.Revoke(t.Context(), h); err != nil || r.State != brokers.Dead {
		t.Errorf("when its minute is over: %s, %v; want dead", r.State, err)
	}
}

func TestContractSecretThatStandsAfterADeletionIsNoDeath(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	o := order(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	c.set(func() { // says that it deletes, and does not
		c.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodDelete {
				send(w, http.StatusOK, map[string]any{"kind": "Status", "status": "Success"})
			}
			return r.Method == http.MethodDelete
		}
	})
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("revoking: %s, %v; want ErrUnavailable", r.State, err)
	}
}

func TestHandlesOfOthersReachNothing(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	good := order(t)
	for _, h := range []brokers.Handle{
		{Name: ""}, {Name: "admin-token"}, {Name: "../pods/x"}, {Name: good.Name() + "/../x"}, {Name: good.Name() + "?dryRun=All"},
		{Name: strings.ReplaceAll(good.Name(), "_", "-")}, {Name: strings.ToUpper(good.Name())}, {Name: good.Name() + "%2f.."},
		{Name: good.Name(), Data: secret.New(`{"server":"https://x","namespace":"kube-system/secrets/x?"}`)},
		{Name: good.Name(), Data: secret.New(`{"server":"https://x","namespace":""}`)},
		{Name: good.Name(), Data: secret.New(`nonsense`)},
	} {
		if r, err := b.Revoke(t.Context(), h); err == nil {
			t.Errorf("revoking %q: %s, want an error", h.Name, r.State)
		}
	}
	if n := len(c.asked()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestContractListIsOfThisServicesTargetAlone(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	want := map[string]bool{}
	mint := func(b brokers.Broker) string {
		o := order(t)
		if _, err := b.Mint(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return o.Name()
	}
	first := mint(b)
	want[first] = true
	for _, s := range []setting{{target: "another-target"}, {issuer: "https://another.sts.example"}} {
		mint(newBroker(t, host(c), c.CAFile, s))
	}
	c.set(func() {
		labels := c.secrets[namespace+"/"+strings.ReplaceAll(first, "_", "-")]["labels"]
		add := func(name string) {
			c.secrets[namespace+"/"+name] = map[string]any{"name": name, "uid": name, "labels": labels}
		}
		for range 1200 { // three pages
			o := "sts_tlpxaw_" + brokertest.NewID()[:16]
			add(strings.ReplaceAll(o, "_", "-"))
			want[o] = true
		}
		for _, name := range []string{"tls-of-orders", "sts-x", "sts-tlpxaw-abcdefghijklmno1", "sts.tlpxaw.abcdefghijklmnop", "sts_tlpxaw_abcdefghijklmnop"} {
			add(name) // in our label, and not ours
		}
	})
	found := map[string]bool{}
	for h, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !want[h.Name] {
			t.Errorf("it lists %s, which is not ours", h.Name)
		}
		found[h.Name] = true
	}
	if len(found) != len(want) {
		t.Errorf("it lists %d of %d", len(found), len(want))
	}
	for _, r := range c.asked() {
		if r.Method == http.MethodGet && !strings.Contains(r.Accept, "PartialObjectMetadata") {
			t.Errorf("GET %s reads whole Secrets", r.Path)
		}
	}
	b.List(t.Context())(func(brokers.Handle, error) bool { return false }) // may stop at any time
	c.set(func() {
		c.spoil = func(request, int, map[string]any) (int, map[string]any) { return status(403, "Forbidden") }
	})
	for _, err := range b.List(t.Context()) {
		if !errors.Is(err, brokers.ErrMisconfigured) {
			t.Errorf("without the right to list: %v, want ErrMisconfigured", err)
		}
	}
}

func TestContractEndlessListEnds(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, host(c), c.CAFile, setting{})
	c.set(func() {
		c.spoil = func(request, int, map[string]any) (int, map[string]any) {
			return 200, map[string]any{"metadata": map[string]any{"continue": "more"}}
		}
	})
	var last error
	for _, err := range b.List(t.Context()) {
		last = err
	}
	if !errors.Is(last, brokers.ErrUnavailable) {
		t.Errorf("the list ends with %v, want ErrUnavailable", last)
	}
}

func TestTokenIsReadAnewForEachRequest(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	n := 0
	b := newBroker(t, host(c), c.CAFile, setting{secret: func() (secret.Value, error) { n++; return secret.New(fmt.Sprint("token-", n)), nil }})
	if _, err := b.Mint(t.Context(), order(t)); err != nil {
		t.Fatal(err)
	}
	if a := c.asked(); a[0].Bearer != "token-1" || a[1].Bearer != "token-2" {
		t.Errorf("the tokens were %q and %q", a[0].Bearer, a[1].Bearer)
	}
	for name, tc := range map[string]struct {
		value string
		err   error
	}{"a file that is gone": {"", errors.New("no such file")}, "an empty one": {"", nil}, "two lines": {"one\ntwo-secret", nil}} {
		b := newBroker(t, host(c), c.CAFile, setting{secret: func() (secret.Value, error) { return secret.New(tc.value), tc.err }})
		if _, err := b.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrMisconfigured) || strings.Contains(err.Error(), "two-secret") {
			t.Errorf("%s: %v, want ErrMisconfigured", name, err)
		}
		if _, err := b.Revoke(t.Context(), brokertest.HandleOf(order(t), secret.Value{})); !errors.Is(err, brokers.ErrMisconfigured) {
			t.Errorf("%s: revoking: %v, want ErrMisconfigured", name, err)
		}
	}
}

type signer struct {
	key *ecdsa.PrivateKey
	err error
}

func (s signer) Sign(_ context.Context, h brokers.Header, claims any) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, new(jose.SignerOptions).WithType(jose.ContentType(h.Type)))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := j.Sign(text)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func TestAssertionSaysWhichTargetAsksAndLivesMinutes(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	assert := func(s *kubernetes.Settings) {
		s.Token, s.Assertion = secret.Ref{}, &kubernetes.Assertion{Audience: "https://kubernetes.orders.example"}
	}
	b := newBroker(t, host(c), c.CAFile, setting{settings: assert, signer: signer{key: key}})
	if _, err := b.Mint(t.Context(), order(t)); err != nil {
		t.Fatal(err)
	}
	seen := map[any]bool{}
	for _, r := range c.asked() {
		got := claimsOf(r.Bearer)
		seen[got["jti"]] = true
		life := got["exp"].(float64) - got["iat"].(float64)
		if life < 60 || life > 300 {
			t.Errorf("it lives %v s", life)
		}
		delete(got, "exp")
		delete(got, "iat")
		delete(got, "jti")
		if text := jsonOf(got); text != `{"aud":"https://kubernetes.orders.example","iss":"https://sts.example/assertions","sub":"sallyport:orders-cluster"}` {
			t.Errorf("it says %s", text)
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d assertions for 2 requests", len(seen))
	}
	b = newBroker(t, host(c), c.CAFile, setting{settings: assert, signer: signer{err: errors.New("no key")}})
	if _, err := b.Mint(t.Context(), order(t)); !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("without a key: %v, want ErrUnavailable", err)
	}
}
