package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/test/ports"
)

// ordersCluster is the target whose tokens the cluster itself makes, for who may read and for who may deploy.
func ordersCluster(server, caFile string) string {
	return fmt.Sprintf(`
target: orders-cluster
broker: kubernetes
max_lifetime: 15m
scopes:
  read: {service_account: reader}
  deploy: {service_account: deployer}
kubernetes:
  server: %s
  ca_file: %s
  namespace: sallyport-orders
  api_access: true
  assertion: {audience: https://orders.prod.example}
`, server, caFile)
}

// A workload exchanges its token for one of another cluster's service accounts, and kubectl uses it. Sallyport holds no
// secret of that cluster: it logs in by its second issuer, which the cluster was told of by what `sallyport trust
// kubernetes` prints. What is revoked is refused within the time that the documentation says.
func TestTokenOfAnotherClusterIsBornUsedAndRevoked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	port := ports.Port()
	authority := NewAuthority(t, t.TempDir())
	issuer := LoopbackURL(port)
	// Each side is told of the other before both run; what the cluster is told does not depend on where it is.
	before := files{"targets/orders-cluster.yaml": ordersCluster("https://127.0.0.1:1", authority.CAFile)}
	trust := trustOf(ctx, t, issuer, before, "orders-cluster", "-o", "authentication", "--ca-file", authority.CAFile)
	rbac := trustOf(ctx, t, issuer, before, "orders-cluster", "-o", "rbac")
	cluster := Start(t, Options{AuthenticationConfiguration: []byte(trust)})
	admin, root := cluster.Admin(), newKubectl(t, cluster, cluster.admin)
	for namespace, accounts := range map[string][]string{"checkout": {"api"}, "sallyport-orders": {"reader", "deployer"}, shop: nil} {
		if err := admin.CreateNamespace(ctx, namespace); err != nil {
			t.Fatal(err)
		}
		for _, account := range accounts {
			if _, err := admin.CreateServiceAccount(ctx, namespace, account); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := root.run(ctx, rbac, "apply", "-f", "-"); err != nil {
		t.Fatalf("applying what sallyport trust kubernetes prints: %v\n%s", err, out)
	}
	grant := Rule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}
	if err := admin.GrantRole(ctx, shop, "reader", Subject{Kind: "ServiceAccount", Name: "reader", Namespace: "sallyport-orders"}, grant); err != nil {
		t.Fatal(err)
	}
	config := bothDoors(cluster)
	delete(config, "targets/kube.yaml")
	config["targets/orders-cluster.yaml"] = ordersCluster(cluster.Issuer, cluster.Authority.CAFile)
	config["targets/lookalike.yaml"] = `
target: lookalike
broker: jwt
jwt: {audience: https://orders.prod.example}
`
	config["policy/kube.yaml"] = `
rules:
  - {name: checkout-api-looks-alike, workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: checkout}}, targets: [lookalike], lifetime: 10m}
  - name: checkout-api-reads-the-shop
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: checkout, service_account: api}}
    targets: [orders-cluster]
    scopes: [read]
    lifetime: 12m
`
	sts := startSallyport(ctx, t, port, authority, config)
	request := func(lifetime time.Duration) string {
		t.Helper()
		token, err := admin.RequestToken(ctx, "checkout", "api", ourAudience, lifetime)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	subject := request(time.Hour)
	leases := func() (ids []string) {
		t.Helper()
		var list struct {
			Leases []struct{ ID, Target, State string }
		}
		out := runSallyport(ctx, t, "leases", "--admin", "unix:"+sts.admin, "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for _, l := range list.Leases {
			ids = append(ids, l.ID)
		}
		return ids
	}
	secrets := func() int {
		t.Helper()
		var list struct{ Items []object }
		if err := admin.Do(ctx, http.MethodGet, "/api/v1/namespaces/sallyport-orders/secrets?labelSelector="+leads, nil, &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}

	// The API server looked for Sallyport when it started, found nothing, and looks again every 10 s. Until then it
	// refuses the broker's login, and nothing is left of the attempts.
	var issued answer
	err := within(ctx, time.Minute, func() error {
		if issued = sts.exchange(ctx, t, subject, "orders-cluster"); issued.Code != http.StatusOK {
			return errors.New(issued.String())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("exchange: %v", err)
	}
	if issued.IssuedTokenType != kubernetes.Type || issued.TokenType != "Bearer" || issued.ExpiresIn < 700 || issued.ExpiresIn > 720 {
		t.Errorf("the answer says %q, %q, %d s", issued.IssuedTokenType, issued.TokenType, issued.ExpiresIn)
	}
	if n, l := secrets(), leases(); n != 1 || len(l) != 1 {
		t.Errorf("%d Secrets and %d leases for one token", n, len(l))
	}
	as := newKubectl(t, cluster, issued.AccessToken)

	t.Run("kubectl does what RBAC allows, and is refused the rest", func(t *testing.T) {
		if out, err := as.run(ctx, "", "get", "configmaps", "-n", shop, "-o", "name"); err != nil {
			t.Errorf("getting config maps: %v\n%s", err, out)
		}
		for _, args := range [][]string{{"get", "secrets", "-n", shop}, {"get", "configmaps", "-n", "checkout"}, {"get", "secrets", "-n", "sallyport-orders"}, {"create", "configmap", "x", "-n", shop}} {
			if _, err := as.run(ctx, "", args...); err == nil || !strings.Contains(strings.ToLower(err.Error()), "forbidden") {
				t.Errorf("kubectl %s: %v, want forbidden", strings.Join(args, " "), err)
			}
		}
		if out, err := as.run(ctx, "", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); err != nil || out != "system:serviceaccount:sallyport-orders:reader" {
			t.Errorf("kubectl auth whoami: %q, %v", out, err)
		}
	})
	t.Run("kubectl gets a token by itself", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "subject")
		WriteFile(t, file, []byte(subject), 0o600)
		self := newKubectl(t, cluster, "")
		config, err := json.Marshal(object{
			"apiVersion": "v1", "kind": "Config", "current-context": "c",
			"clusters": []object{{"name": "c", "cluster": object{"server": cluster.Issuer, "certificate-authority": cluster.Authority.CAFile}}},
			"contexts": []object{{"name": "c", "context": object{"cluster": "c", "user": "u"}}},
			"users": []object{{"name": "u", "user": object{"exec": object{
				"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": sallyportBinary(ctx, t),
				"args": []string{"exchange", "--server", sts.url, "--ca-file", authority.CAFile, "--audience", "orders-cluster", "--subject-token-file", file, "-o", "kubectl"},
			}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		WriteFile(t, self.config, config, 0o600)
		if err := self.list(ctx, shop); err != nil {
			t.Errorf("listing what the role allows: %v", err)
		}
		if n, l := secrets(), leases(); n != 2 || len(l) != 2 {
			t.Errorf("%d Secrets and %d leases for two tokens", n, len(l))
		}
	})
	t.Run("what its holder revokes is refused within the time that is said", func(t *testing.T) {
		if err := as.list(ctx, shop); err != nil { // it is in the API server's memory now
			t.Fatal(err)
		}
		start := time.Now()
		if got := sts.post(ctx, t, "/revoke", "", url.Values{"token": {issued.AccessToken}}); got.Code != http.StatusOK {
			t.Fatalf("revocation: %s", got)
		}
		err := within(ctx, grace+5*time.Second, func() error {
			if err := as.list(ctx, shop); err == nil {
				return errors.New("kubectl is served")
			} else if !strings.Contains(err.Error(), "logged in") && !strings.Contains(err.Error(), "Unauthorized") {
				return err
			}
			return nil
		})
		took := time.Since(start).Round(10 * time.Millisecond)
		t.Logf("kubectl was refused %s after the revocation", took)
		if err != nil || took > grace {
			t.Errorf("after %s: %v", took, err)
		}
		if n := secrets(); n != 1 {
			t.Errorf("%d Secrets are left, want that of the other token", n)
		}
	})
	t.Run("an operator kills the rest by its lease", func(t *testing.T) {
		left := leases()
		if len(left) != 1 {
			t.Fatalf("%d leases are left, want 1", len(left))
		}
		out := runSallyport(ctx, t, "revoke", "--admin", "unix:"+sts.admin, "lease="+left[0], "--reason", "shown", "-o", "json")
		var done struct {
			Receipts []struct{ State, At, Reason string }
		}
		if err := json.Unmarshal([]byte(out), &done); err != nil || len(done.Receipts) != 1 || done.Receipts[0].State != "dead" || done.Receipts[0].Reason == "" {
			t.Errorf("the receipt is %s (%v)", out, err)
		}
		if n, l := secrets(), leases(); n != 0 || len(l) != 0 {
			t.Errorf("%d Secrets and %d leases are left", n, len(l))
		}
	})
	t.Run("less than the cluster's least is refused, and nothing is made", func(t *testing.T) {
		got := sts.exchange(ctx, t, request(10*time.Minute), "orders-cluster") // the rule does not open outlives_subject
		if got.Code != http.StatusBadRequest || got.Error != "invalid_request" {
			t.Errorf("exchange: %s, want 400 invalid_request", got)
		}
		if n, l := secrets(), leases(); n != 0 || len(l) != 0 {
			t.Errorf("%d Secrets and %d leases are left", n, len(l))
		}
	})
	t.Run("no token that a workload can have logs in as Sallyport", func(t *testing.T) {
		got := sts.exchange(ctx, t, subject, "lookalike") // with the audience of our own login
		if got.AccessToken == "" {
			t.Fatalf("exchange: %s, want a token", got)
		}
		_, _, err := cluster.Client(got.AccessToken).WhoAmI(ctx)
		wantStatus(t, err, http.StatusUnauthorized)
	})
}
