package kubernetes

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	broker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const (
	shop  = "shop"                                      // where the minted tokens may do something
	leads = "app.kubernetes.io/managed-by%3Dsallyport"  // label selector of what we make
	ours  = "system:serviceaccount:sallyport:sallyport" // whom the API server takes the broker for
	grace = 14 * time.Second                            // 10 s of cache, and what a busy machine adds
)

// other is a cluster whose own tokens the broker makes, with exactly the rights that `sallyport trust kubernetes` prints.
type other struct {
	*Cluster
	admin *Client
	login string // path of the broker's own token
}

// newOther makes the namespaces and service accounts of two targets. Their manifests are applied by kubectl.
func newOther(ctx context.Context, t *testing.T) *other {
	t.Helper()
	c := Start(t, Options{})
	o := &other{Cluster: c, admin: c.Admin(), login: filepath.Join(t.TempDir(), "token")}
	for namespace, accounts := range map[string][]string{"sallyport": {"sallyport"}, "sallyport-suite": {"reader"}, "sallyport-facts": {"reader", "pinned", "unlisted"}, shop: nil} {
		if err := o.admin.CreateNamespace(ctx, namespace); err != nil {
			t.Fatal(err)
		}
		for _, account := range accounts {
			if _, err := o.admin.CreateServiceAccount(ctx, namespace, account); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, namespace := range []string{"sallyport-suite", "sallyport-facts"} {
		grant := Rule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}
		if err := o.admin.GrantRole(ctx, shop, "reader-of-"+namespace, Subject{Kind: "ServiceAccount", Name: "reader", Namespace: namespace}, grant); err != nil {
			t.Fatal(err)
		}
	}
	token, err := o.admin.RequestToken(ctx, "sallyport", "sallyport", c.Issuer, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	WriteFile(t, o.login, []byte(token), 0o600)
	targets := files{
		"targets/suite.yaml": o.targetFile("suite", "read: {service_account: reader}", "api_access: true"),
		"targets/facts.yaml": o.targetFile("facts", "read: {service_account: reader}, pinned: {service_account: pinned}", "api_access: true"),
	}
	as := newKubectl(t, c, c.admin)
	for _, target := range []string{"suite", "facts"} {
		manifests := trustOf(ctx, t, "https://sts.example", targets, target, "-o", "rbac")
		if out, err := as.run(ctx, manifests, "apply", "-f", "-"); err != nil {
			t.Fatalf("applying what sallyport trust kubernetes prints: %v\n%s", err, out)
		}
	}
	return o
}

func (o *other) targetFile(name, scopes, access string) string {
	return fmt.Sprintf(`
target: %s
broker: kubernetes
max_lifetime: 1h
scopes: {%s}
kubernetes:
  server: %s
  ca_file: %s
  namespace: sallyport-%s
  %s
  token: {file: %s}
`, name, scopes, o.Issuer, o.Authority.CAFile, name, access, o.login)
}

// trustOf runs `sallyport trust kubernetes` on the configuration of an issuer with these files.
func trustOf(ctx context.Context, t *testing.T, issuer string, config files, target string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	WriteFile(t, filepath.Join(dir, "kek"), []byte(strings.Repeat("A", 43)+"="), 0o600)
	WriteFile(t, filepath.Join(dir, "sallyport.yaml"), []byte(`
issuer: `+issuer+`
listen: {workload: 127.0.0.1:8443}
tls: {cert_file: tls.crt, key_file: tls.key}
signing: {seal_with: {file: kek}}
`), 0o600)
	NewAuthority(t, dir).Issue(t, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	WriteFile(t, filepath.Join(dir, "trust", "prod.yaml"), []byte(`
trust_domain: prod.example
issuers:
  - {name: cluster-1, type: kubernetes, issuer: "https://cluster.prod.example", audiences: ["https://sts.example"], algorithms: [RS256], keys: {discovery: true}}
`), 0o600)
	WriteFile(t, filepath.Join(dir, "policy", "none.yaml"), []byte(`
rules:
  - {name: nothing, effect: deny, workloads: {trust_domain: prod.example}}
`), 0o600)
	for name, content := range config {
		WriteFile(t, filepath.Join(dir, name), []byte(content), 0o600)
	}
	return runSallyport(ctx, t, append([]string{"trust", "kubernetes", target, dir}, flags...)...)
}

func runSallyport(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, sallyportBinary(ctx, t), args...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		t.Fatalf("sallyport %s: %v\n%s", strings.Join(args[:2], " "), err, out)
	}
	return string(out)
}

// broker builds the product's broker of a target, at HOST:PORT.
func (o *other) broker(tb testing.TB, name, address string, scopes map[string]*broker.Scope, change func(*broker.Settings)) brokers.Lister {
	tb.Helper()
	settings := &broker.Settings{Server: "https://" + address, CAFile: o.Authority.CAFile, Namespace: "sallyport-" + name, APIAccess: true, Token: secret.Ref{File: o.login}}
	if change != nil {
		change(settings)
	}
	meaning := map[string]any{}
	for scope, s := range scopes {
		meaning[scope] = s
	}
	target := brokers.Target{Name: name, Secret: func(r secret.Ref) (secret.Value, error) {
		text, err := os.ReadFile(r.File)
		return secret.New(string(text)), err
	}}
	if problems := broker.Kind().Check(target, settings, meaning); len(problems) > 0 {
		tb.Fatalf("the settings do not load: %v", problems)
	}
	b, err := broker.Kind().Build(target, settings, meaning, brokers.Deps{Issuer: "https://sts.example", Now: time.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.(io.Closer).Close() })
	return b.(brokers.Lister)
}

func (o *other) address() string { return strings.TrimPrefix(o.Issuer, "https://") }

// secrets counts what we made in a namespace.
func (o *other) secrets(ctx context.Context, tb testing.TB, namespace string) int {
	tb.Helper()
	var list struct{ Items []object }
	if err := o.admin.Do(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace+"/secrets?labelSelector="+leads, nil, &list); err != nil {
		tb.Fatal(err)
	}
	return len(list.Items)
}

// The broker keeps its contract against the real API server, which answers kubectl.
func TestBrokerOfServiceAccountTokens(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel) // after the parallel tests below
	o := newOther(ctx, t)
	reader := map[string]*broker.Scope{"read": {ServiceAccount: "reader"}}

	t.Run("suite", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int64
		brokertest.RunRevoker(t, brokertest.Upstream{
			Target:  policy.Target{Name: "suite", Scopes: []string{"read", "write"}, MaxLifetime: time.Hour, MinLifetime: broker.MinLifetime},
			Address: o.address(),
			Build: func(tb testing.TB, address string) brokers.Revoker {
				return o.broker(tb, "suite", address, reader, nil)
			},
			Works: func(c brokers.Credential) error {
				asked.Add(1)
				return newKubectl(t, o.Cluster, c.Value.Reveal()).list(ctx, shop)
			},
			Count: func(tb testing.TB) int { return o.secrets(ctx, tb, "sallyport-suite") },
			Lag:   grace,
			Early: 10 * time.Second,
		})
		t.Logf("kubectl asked %d times", asked.Load())
	})
	t.Run("facts", func(t *testing.T) {
		t.Parallel()
		o.facts(ctx, t)
	})
}

func (o *other) order(tb testing.TB, target string, lifetime time.Duration, scope string) brokers.Order {
	tb.Helper()
	return brokertest.NewOrder(tb, time.Now().Truncate(time.Second), brokertest.Spec{
		Target: policy.Target{Name: target, Scopes: []string{"read", "pinned"}, MaxLifetime: time.Hour, MinLifetime: broker.MinLifetime},
		Scopes: []string{scope}, Lifetime: lifetime, Lease: brokers.Lease{ID: brokertest.NewID()},
	})
}

// facts are what the documentation says of Kubernetes, and what the broker leans on.
func (o *other) facts(ctx context.Context, t *testing.T) {
	reader := map[string]*broker.Scope{"read": {ServiceAccount: "reader"}}
	b := o.broker(t, "facts", o.address(), reader, nil)
	mint := func(t *testing.T, b brokers.Broker, order brokers.Order) brokers.Credential {
		t.Helper()
		c, err := b.Mint(ctx, order)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	revoke := func(t *testing.T, b brokers.Revoker, order brokers.Order, c brokers.Credential) brokers.Receipt {
		t.Helper()
		r, err := b.Revoke(ctx, brokertest.HandleOf(order, c.Data))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	t.Run("a token does what RBAC says and no more", func(t *testing.T) {
		order := o.order(t, "facts", 20*time.Minute, "read")
		c := mint(t, b, order)
		user := o.Client(c.Value.Reveal())
		name, _, err := user.WhoAmI(ctx)
		if err != nil || name != "system:serviceaccount:sallyport-facts:reader" {
			t.Errorf("the API server takes it for %q, %v", name, err)
		}
		as := newKubectl(t, o.Cluster, c.Value.Reveal())
		if err := as.list(ctx, shop); err != nil {
			t.Errorf("listing what the role allows: %v", err)
		}
		if _, err := as.run(ctx, "", "get", "--raw", "/api/v1/namespaces/"+shop+"/secrets"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("listing what no role allows: %v, want Forbidden", err)
		}
		var claims struct {
			Expires    int64 `json:"exp"`
			Kubernetes struct {
				Secret struct{ Name, UID string }
			} `json:"kubernetes.io"`
		}
		if err := decodeClaims(c.Value.Reveal(), &claims); err != nil {
			t.Fatal(err)
		}
		if claims.Expires != c.Expires.Unix() || c.Expires.After(order.Grant().Expires()) || claims.Kubernetes.Secret.Name != strings.ReplaceAll(order.Name(), "_", "-") {
			t.Errorf("the token says %+v, the credential %s, the grant %s", claims, c.Expires, order.Grant().Expires())
		}
		revoke(t, b, order, c)
	})
	t.Run("a token that nobody looked up is refused at once, another within the time of the receipt", func(t *testing.T) {
		first, second := o.order(t, "facts", 20*time.Minute, "read"), o.order(t, "facts", 20*time.Minute, "read")
		fresh, used := mint(t, b, first), mint(t, b, second)
		if _, _, err := o.Client(used.Value.Reveal()).WhoAmI(ctx); err != nil {
			t.Fatal(err)
		}
		revoke(t, b, first, fresh)
		r := revoke(t, b, second, used)
		start := time.Now()
		if err := within(ctx, grace+5*time.Second, func() error { // the deletion comes to the API server by a watch
			_, _, err := o.Client(fresh.Value.Reveal()).WhoAmI(ctx)
			return refused(err)
		}); err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("a token that was never used: %v after %s", err, time.Since(start))
		}
		err := within(ctx, grace+5*time.Second, func() error {
			_, _, err := o.Client(used.Value.Reveal()).WhoAmI(ctx)
			return refused(err)
		})
		dead := time.Now()
		t.Logf("a token that was used was refused %s after its Secret went; the receipt says %s", dead.Sub(start).Round(10*time.Millisecond), r.At.Sub(start).Round(10*time.Millisecond))
		if err != nil || dead.After(r.At.Add(2*time.Second)) {
			t.Errorf("it was refused at %s, and the receipt says %s (%v)", dead, r.At, err)
		}
	})
	t.Run("what is open stays open", func(t *testing.T) {
		order := o.order(t, "facts", 20*time.Minute, "read")
		c := mint(t, b, order)
		events := o.watch(ctx, t, c.Value.Reveal())
		revoke(t, b, order, c)
		if err := within(ctx, grace+5*time.Second, func() error {
			_, _, err := o.Client(c.Value.Reveal()).WhoAmI(ctx)
			return refused(err)
		}); err != nil {
			t.Fatal(err)
		}
		name := "after-" + order.Name()[4:10]
		if err := o.admin.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+shop+"/configmaps", object{"metadata": object{"name": name}}, nil); err != nil {
			t.Fatal(err)
		}
		for deadline := time.After(20 * time.Second); ; {
			select {
			case line, ok := <-events:
				if !ok {
					t.Fatal("the watch ended with its token: docs/brokers/kubernetes.md may promise more")
				}
				if strings.Contains(line, name) {
					return
				}
			case <-deadline:
				t.Fatal("the watch is silent after its token was revoked: docs/brokers/kubernetes.md may promise more")
			}
		}
	})
	t.Run("services that ask by TokenReview are told", func(t *testing.T) {
		const audience = "https://vault.orders.example"
		asking := o.broker(t, "facts", o.address(), reader, func(s *broker.Settings) {
			s.APIAccess, s.Audiences, s.TokenReview = false, []string{audience}, true
		})
		order := o.order(t, "facts", 20*time.Minute, "read")
		c := mint(t, asking, order)
		if _, _, err := o.Client(c.Value.Reveal()).WhoAmI(ctx); refused(err) != nil {
			t.Errorf("it logs in to the API server: %v", err)
		}
		if !o.review(ctx, t, c.Value.Reveal(), audience) {
			t.Error("TokenReview refuses it")
		}
		if o.review(ctx, t, c.Value.Reveal(), "https://another.example") {
			t.Error("TokenReview takes it for another service's")
		}
		r := revoke(t, asking, order, c)
		err := within(ctx, grace+5*time.Second, func() error {
			if o.review(ctx, t, c.Value.Reveal(), audience) {
				return errors.New("TokenReview takes it")
			}
			return nil
		})
		if now := time.Now(); err != nil || now.After(r.At.Add(2*time.Second)) || r.State != brokers.Dead {
			t.Errorf("TokenReview refuses it at %s, and the receipt says %s at %s", now, r.State, r.At)
		}
		offline := o.broker(t, "facts", o.address(), reader, func(s *broker.Settings) { s.APIAccess, s.Audiences = false, []string{audience} })
		order = o.order(t, "facts", 20*time.Minute, "read")
		if r := revoke(t, offline, order, mint(t, offline, order)); r.State != brokers.DiesAt || !r.At.Equal(order.Grant().Expires()) {
			t.Errorf("where services verify offline the receipt says %s at %s, want the end of its life", r.State, r.At)
		}
	})
	t.Run("an account of another uid gets no token", func(t *testing.T) {
		var account struct{ Metadata struct{ UID string } }
		const path = "/api/v1/namespaces/sallyport-facts/serviceaccounts/pinned"
		if err := o.admin.Do(ctx, http.MethodGet, path, nil, &account); err != nil {
			t.Fatal(err)
		}
		pinned := o.broker(t, "facts", o.address(), map[string]*broker.Scope{"pinned": {ServiceAccount: "pinned", UID: account.Metadata.UID}}, nil)
		order := o.order(t, "facts", 20*time.Minute, "pinned")
		revoke(t, pinned, order, mint(t, pinned, order))
		if err := o.admin.Do(ctx, http.MethodDelete, path, nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := o.admin.CreateServiceAccount(ctx, "sallyport-facts", "pinned"); err != nil {
			t.Fatal(err)
		}
		if _, err := pinned.Mint(ctx, o.order(t, "facts", 20*time.Minute, "pinned")); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "409") {
			t.Errorf("minting for an account that was made again: %v, want ErrMisconfigured for 409", err)
		}
	})
	t.Run("the rights that trust prints suffice for nothing else", func(t *testing.T) {
		unlisted := o.broker(t, "facts", o.address(), map[string]*broker.Scope{"read": {ServiceAccount: "unlisted"}}, nil)
		if _, err := unlisted.Mint(ctx, o.order(t, "facts", 20*time.Minute, "read")); !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "403") {
			t.Errorf("minting for an account that no scope names: %v, want ErrMisconfigured for 403", err)
		}
		login, err := os.ReadFile(o.login)
		if err != nil {
			t.Fatal(err)
		}
		me := o.Client(string(login))
		const secrets = "/api/v1/namespaces/sallyport-facts/secrets"
		for name, s := range map[string]object{
			"a token of an account, without an end": {"type": "kubernetes.io/service-account-token", "metadata": object{"name": "forever", "annotations": object{"kubernetes.io/service-account.name": "unlisted"}}},
			"data of a type of ours":                {"type": "sallyport-sts.github.io/lease", "metadata": object{"name": "data"}, "stringData": object{"x": "y"}},
			"any other Secret":                      {"metadata": object{"name": "other"}},
		} {
			err := within(ctx, grace+5*time.Second, func() error { // admission policies count a moment after they were made
				err := me.Do(ctx, http.MethodPost, secrets, s, nil)
				if err == nil {
					return errors.Join(errors.New("it was made"), o.admin.Do(ctx, http.MethodDelete, secrets+"/"+s["metadata"].(object)["name"].(string), nil, nil))
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantStatus(t, me.Do(ctx, http.MethodGet, "/api/v1/namespaces/"+shop+"/secrets", nil, nil), http.StatusForbidden)
		wantStatus(t, me.Do(ctx, http.MethodDelete, secrets, nil, nil), http.StatusForbidden) // of all at once
		wantStatus(t, me.send(ctx, http.MethodPatch, secrets+"/none", "application/merge-patch+json", []byte("{}"), nil), http.StatusForbidden)
		wantStatus(t, me.Do(ctx, http.MethodGet, "/api/v1/namespaces/sallyport-suite/configmaps", nil, nil), http.StatusForbidden)
		_, err = me.RequestToken(ctx, "sallyport", "sallyport", o.Issuer, 10*time.Minute)
		wantStatus(t, err, http.StatusForbidden)
	})
	t.Run("a stretched token says so only itself, and is never one that is bound to a Secret", func(t *testing.T) {
		const base = "/api/v1/namespaces/sallyport-facts"
		made := func(kind, path string, body object) (uid string) {
			var got struct{ Metadata struct{ UID string } }
			if err := o.admin.Do(ctx, http.MethodPost, base+path, body, &got); err != nil {
				t.Fatalf("making a %s: %v", kind, err)
			}
			return got.Metadata.UID
		}
		bound := map[string]string{
			"Pod":    made("Pod", "/pods", object{"metadata": object{"name": "bound"}, "spec": object{"serviceAccountName": "unlisted", "containers": []object{{"name": "c", "image": "none.invalid/none"}}}}),
			"Secret": made("Secret", "/secrets", object{"metadata": object{"name": "bound"}}),
		}
		for kind, want := range map[string]int64{"Pod": 365 * 24 * 3600, "Secret": 3607} {
			var answer struct {
				Status struct {
					Token   string
					Expires time.Time `json:"expirationTimestamp"`
				}
			}
			err := o.admin.Do(ctx, http.MethodPost, base+"/serviceaccounts/unlisted/token", object{
				"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
				"spec": object{"expirationSeconds": 3607, "boundObjectRef": object{"apiVersion": "v1", "kind": kind, "name": "bound", "uid": bound[kind]}},
			}, &answer)
			if err != nil {
				t.Fatal(err)
			}
			var claims serviceAccountClaims
			if err := decodeClaims(answer.Status.Token, &claims); err != nil {
				t.Fatal(err)
			}
			if life := claims.Expires - claims.IssuedAt; life != want || time.Until(answer.Status.Expires) > 3608*time.Second {
				t.Errorf("bound to a %s it lives %d s, want %d; the answer says until %s", kind, life, want, answer.Status.Expires)
			}
		}
	})
	t.Run("a finalizer keeps a token alive for a minute, and the receipt waits", func(t *testing.T) {
		t.Parallel()
		order := o.order(t, "facts", 20*time.Minute, "read")
		c := mint(t, b, order)
		path := "/api/v1/namespaces/sallyport-facts/secrets/" + strings.ReplaceAll(order.Name(), "_", "-")
		patch := func(finalizers ...string) {
			t.Helper()
			body, _ := json.Marshal(object{"metadata": object{"finalizers": finalizers}})
			if err := o.admin.send(ctx, http.MethodPatch, path, "application/merge-patch+json", body, nil); err != nil {
				t.Fatal(err)
			}
		}
		patch("shop.example/keep")
		h := brokertest.HandleOf(order, c.Data)
		start := time.Now()
		if _, err := b.Revoke(ctx, h); !errors.Is(err, brokers.ErrUnavailable) || !strings.Contains(err.Error(), "finalizer") {
			t.Fatalf("revoking: %v, want ErrUnavailable for the finalizer", err)
		}
		if _, _, err := o.Client(c.Value.Reveal()).WhoAmI(ctx); err != nil {
			t.Errorf("the token is refused before its minute is over: %v", err)
		}
		var r brokers.Receipt
		err := within(ctx, 2*time.Minute, func() (err error) {
			r, err = b.Revoke(ctx, h)
			return err
		})
		if err != nil || r.State != brokers.Dead || time.Since(start) < time.Minute {
			t.Errorf("after %s: %s, %v; want dead after a minute", time.Since(start), r.State, err)
		}
		if _, _, err := o.Client(c.Value.Reveal()).WhoAmI(ctx); refused(err) != nil {
			t.Errorf("the receipt says dead, and the API server: %v", err)
		}
		patch()
	})
}

// within tries until it works, for as long as a busy machine may need.
func within(ctx context.Context, most time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return poll(ctx, 100*time.Millisecond, try)
}

// refused returns nil when err is the API server's 401.
func refused(err error) error {
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusUnauthorized {
		return nil
	}
	if err == nil {
		return errors.New("the API server takes the token")
	}
	return err
}

// review asks the API server about a token, as a service does that has no keys.
func (o *other) review(ctx context.Context, tb testing.TB, token, audience string) bool {
	tb.Helper()
	var answer struct{ Status struct{ Authenticated bool } }
	err := o.admin.Do(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": object{"token": token, "audiences": []string{audience}},
	}, &answer)
	if err != nil {
		tb.Fatal(err)
	}
	return answer.Status.Authenticated
}

// watch opens a watch on the config maps of the shop and returns its lines; closed when it ends.
func (o *other) watch(ctx context.Context, tb testing.TB, token string) <-chan string {
	tb.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Issuer+"/api/v1/namespaces/"+shop+"/configmaps?watch=true&resourceVersion=0", nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: o.Authority.Pool}}
	tb.Cleanup(transport.CloseIdleConnections)
	res, err := transport.RoundTrip(req)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		tb.Fatalf("watching: %d", res.StatusCode)
	}
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(res.Body); scan.Scan(); {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}
