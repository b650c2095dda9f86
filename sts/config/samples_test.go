package config_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/limit"
)

// The files as the manual shows them, on the real platforms.
func TestSampleLoadsAsTheManualSays(t *testing.T) {
	dir := write(t, archive(t, "sample.txtar"))
	writeCertificate(t, dir)
	set := mustLoad(t, dir, productKinds(t))

	server := config.Server{
		Issuer:  "https://sts.example",
		Listen:  config.Listen{Workload: "127.0.0.1:8443", Ops: "127.0.0.1:9090"},
		TLS:     config.TLS{CertFile: dir + "/tls.crt", KeyFile: dir + "/tls.key"},
		DataDir: dir + "/data",
		Signing: config.Signing{
			Algorithms: []string{"ES256"}, RotateEvery: 30 * 24 * time.Hour, PublishBefore: 24 * time.Hour,
			SealWith: config.Secret{File: dir + "/secrets/kek"},
		},
		Audit:  config.Audit{Dir: dir + "/data/audit", Durability: audit.Process, Keep: 400 * 24 * time.Hour, Reserve: 64 << 20},
		Limits: config.Limits{Address: limit.Rate{PerSecond: 200, Burst: 1000}, Workload: limit.Rate{PerSecond: 50, Burst: 500}},
		Leases: lease.Limits{Total: 100_000, Target: 10_000, Workload: 1_000},
	}
	if diff := cmp.Diff(server, set.Server); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	if got, want := set.TrustDomains, []string{"prod.example"}; !slices.Equal(got, want) {
		t.Errorf("trust domains: got %v, want %v", got, want)
	}
	is := set.Issuers[0]
	if is.Name != "cluster-1" || is.TrustDomain != "prod.example" || is.MaxLifetime != time.Hour || is.Skew != 30*time.Second ||
		!is.Keys.Discovery || is.Keys.Issuer != is.URL || !slices.Equal(is.Keys.Algorithms, is.Algorithms) || is.Adapter == nil || is.Issuer.Keys != nil {
		t.Errorf("issuer: got %+v", is)
	}
	orders, ok := set.Policy.Target("orders")
	want := policy.Target{
		Name: "orders", Resource: "https://orders.example/", Audience: "https://orders.example", MaxLifetime: 15 * time.Minute, Scopes: []string{"read", "write"},
		GrantableTo: []string{"prod.example"}, ResourceServers: []string{"spiffe://prod.example/cluster-1/ns/orders/sa/api"},
	}
	if diff := cmp.Diff(want, orders); diff != "" || !ok {
		t.Errorf("target (-want +got):\n%s", diff)
	}
}

func TestBuiltInTargetAnswersForIntrospection(t *testing.T) {
	set := mustLoad(t, write(t, archive(t, "base.txtar")), testKinds(t))
	i := slices.IndexFunc(set.Targets, func(t config.Target) bool { return t.Policy.Name == "introspection" })
	if i < 0 {
		t.Fatal("got no target named introspection")
	}
	target := set.Targets[i]
	want := policy.Target{Name: "introspection", Audience: "https://sts.example/introspect", MaxLifetime: 15 * time.Minute}
	if diff := cmp.Diff(want, target.Policy); diff != "" {
		t.Errorf("target (-want +got):\n%s", diff)
	}
	if target.Kind.Name() != "jwt" {
		t.Errorf("broker: got %s, want jwt", target.Kind.Name())
	}
	settings, ok := target.Settings.(*jwt.Settings)
	if !ok || settings.Audience != "https://sts.example/introspect" {
		t.Errorf("settings: got %+v, want audience https://sts.example/introspect", target.Settings)
	}
	if got := target.Kind.Check(target.Broker, target.Settings, target.Scopes); len(got) > 0 {
		t.Errorf("the broker refuses the built-in settings: %v", got)
	}
}

// What is left out has the documented default, not the zero value of its type.
func TestDefaults(t *testing.T) {
	base := archive(t, "base.txtar")
	dir := write(t, base)
	put(t, dir, "sallyport.yaml", "issuer: https://sts.example\nlisten: {workload: 127.0.0.1:0}\ntls: off\nsigning: {seal_with: {file: secrets/kek}}\n")
	set := mustLoad(t, dir, testKinds(t))
	if got, want := set.Server.Audit, (config.Audit{Dir: dir + "/data/audit", Durability: audit.Process, Keep: 9600 * time.Hour, Reserve: 64 << 20}); got != want {
		t.Errorf("audit: got %+v, want %+v", got, want)
	}
	if got := set.Server.Listen.Ops; got != "127.0.0.1:9090" {
		t.Errorf("ops: got %s", got)
	}
	if is := set.Issuers[0]; is.MaxLifetime != time.Hour || is.Skew != 30*time.Second || is.Types != nil {
		t.Errorf("issuer: got %+v, want 1h, 30s and no types", is)
	}
	if got, ok := set.Policy.Target("gateway"); !ok || got.MaxLifetime != 15*time.Minute || got.GrantableTo != nil {
		t.Errorf("target: got %+v", got)
	}
}

// Rules decide in the order of file names, then lines, and say where they stand.
func TestRuleOrderIsFileNameThenLine(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	for _, name := range []string{"b", "a"} {
		put(t, dir, "policy/"+name+".yaml", strings.ReplaceAll(`rules:
  - name: NAME-1
    workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: x}}
    targets: [orders]
  - name: NAME-2
    workloads: {trust_domain: prod.example, issuer: nowhere, where: {namespace: x}}
    targets: [orders]
`, "NAME", name))
	}
	var got []string
	for _, p := range problems(t, dir, testKinds(t)) {
		got = append(got, p.File)
	}
	if want := []string{"policy/a.yaml", "policy/b.yaml"}; !slices.Equal(got, want) {
		t.Errorf("order of problems: got %v, want %v", got, want)
	}
}

// With everything else as documented, settings reach the broker they were written for.
func TestTargetBuildsItsBroker(t *testing.T) {
	set := mustLoad(t, write(t, archive(t, "base.txtar")), testKinds(t))
	for _, target := range set.Targets {
		if _, err := target.Kind.Build(target.Broker, target.Settings, target.Scopes, brokers.Deps{Issuer: set.Server.Issuer, Signer: noSigner{}, Now: time.Now}); err != nil {
			t.Errorf("building the broker of %s: %v", target.Policy.Name, err)
		}
	}
}

type noSigner struct{}

func (noSigner) Sign(context.Context, brokers.Header, any) (string, error) { return "", nil }

// An operator can read the audit log although the policy is broken.
func TestLoadServerIgnoresOtherFiles(t *testing.T) {
	dir := write(t, archive(t, "base.txtar"))
	put(t, dir, "policy/orders.yaml", "rules: nonsense\n")
	server, err := config.LoadServer(dir)
	if err != nil {
		t.Fatalf("got %v, want the server", err)
	}
	if server.Issuer != "https://sts.example" {
		t.Errorf("issuer: got %s", server.Issuer)
	}
	put(t, dir, "sallyport.yaml", "issuer: x\n")
	if _, err := config.LoadServer(dir); err == nil {
		t.Error("a broken server file was accepted")
	}
}
