package sts_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// audience is what subject tokens must name.
const audience = "https://sts.example/prod.example"

// adapter names a workload by its sub; claim team is an attribute.
type adapter struct{}

func (adapter) Schema() federation.Schema {
	return federation.Schema{{Name: "team", Type: federation.TypeString}}
}

func (adapter) Name(c federation.Claims) (federation.Naming, error) {
	var t struct {
		Subject string `json:"sub"`
		Team    string `json:"team"`
	}
	if err := c.Decode(&t); err != nil {
		return federation.Naming{}, err
	}
	return federation.Naming{Path: t.Subject, Attributes: federation.Attributes{"team": federation.String(t.Team)}}, nil
}

// memory is a revocation log that can be told to fail.
type memory struct {
	mu   sync.Mutex
	n    uint64
	good int // appends that succeed all the same
	fail error
}

func (m *memory) Append(context.Context, revocation.Entry) (revocation.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.good--; m.fail != nil && m.good < 0 {
		return revocation.Position{}, m.fail
	}
	m.n++
	return revocation.Position{Epoch: 1, N: m.n}, nil
}

func (m *memory) setFail(err error) { m.failAfter(0, err) }

// failAfter makes all appends after some more fail.
func (m *memory) failAfter(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good, m.fail = n, err
}

func (m *memory) Load(context.Context, func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	return revocation.Position{Epoch: 1}, nil
}
func (m *memory) Prune(context.Context, time.Time) (int, error) { return 0, nil }

// world is what a deployment is made of, before it is built. Tests change it.
type world struct {
	path        string // of our issuer identifier
	cluster, ci *federationtest.Issuer
	partner     *federationtest.Issuer // trust domain partner.example
	issuers     []federation.Issuer
	ownKeys     oidc.KeySet // instead of the real ones
	policy      policy.Config
	brokers     map[string]brokers.Broker // instead of the jwt broker
	log         revocation.Log
	marks       replay.Marks
	audit       sts.Audit // beside the recorder
}

func newWorld(t testing.TB) *world {
	w := &world{
		cluster: federationtest.NewNamed(t, "https://cluster.example", jose.ES256),
		ci:      federationtest.NewNamed(t, "https://ci.example", jose.EdDSA),
		partner: federationtest.NewNamed(t, "https://partner.example", jose.ES256),
		brokers: map[string]brokers.Broker{},
		log:     new(memory),
		marks:   &marks{held: map[replay.Key]string{}},
	}
	w.issuers = []federation.Issuer{
		trusted("prod.example", "cluster", w.cluster), trusted("prod.example", "ci", w.ci),
		trusted("partner.example", "cluster", w.partner),
	}
	for _, i := range w.issuers {
		w.policy.Issuers = append(w.policy.Issuers, policy.Issuer{TrustDomain: i.TrustDomain, Name: i.Name, Schema: adapter{}.Schema()})
	}
	w.policy.Targets = []policy.Target{
		{Name: "orders", Resource: "https://orders.example/api", Scopes: []string{"read", "write", "admin"}, ResourceServers: []string{"spiffe://prod.example/cluster/gateway/*"}},
		{Name: "billing", Scopes: []string{"read"}, ResourceServers: []string{"spiffe://prod.example/ci/billing"}},
		{Name: "archive", Scopes: []string{"read"}, ResourceServers: []string{"spiffe://prod.example/cluster/gateway/*"}},
		{Name: "plain"},
		{Name: "payroll", Scopes: []string{"read"}},
		{Name: "ledger", Scopes: []string{"read"}},
		{Name: "vault", Scopes: []string{"read"}, GrantableTo: []string{"partner.example"}},
		{Name: sts.IntrospectionTarget},
	}
	w.policy.Rules = []policy.Rule{
		allow("checkout-orders", "prod.example", "cluster", "checkout", "orders", 10*time.Minute, "read", "write"),
		allow("checkout-plain", "prod.example", "cluster", "checkout", "plain", 0),
		allow("checkout-payroll", "prod.example", "cluster", "checkout", "payroll", 0, "read"),
		{Name: "nobody-payroll", Source: "policy/test.yaml:9", Effect: policy.Deny, Targets: []string{"payroll"}, Workloads: policy.Workloads{TrustDomain: "prod.example"}},
		allow("deploy-orders", "prod.example", "ci", "deploy", "orders", 0, "admin"),
		allow("partner-orders", "partner.example", "cluster", "checkout", "orders", 0, "read"),
		allow("gateway-introspects", "prod.example", "cluster", "gateway", sts.IntrospectionTarget, 0),
		onward("orders-again", "orders", "orders", "read", "write"),
		onward("orders-billing", "orders", "billing", "read"),
		onward("billing-archive", "billing", "archive", "read"),
	}
	return w
}

func trusted(domain, name string, iss *federationtest.Issuer) federation.Issuer {
	return federation.Issuer{
		TrustDomain: domain, Name: name, URL: iss.URL(), Audiences: []string{audience},
		Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: adapter{},
	}
}

func allow(name, domain, issuer, team, target string, lifetime time.Duration, scopes ...string) policy.Rule {
	return policy.Rule{
		Name: name, Source: "policy/test.yaml:1", Effect: policy.Allow, Targets: []string{target}, Scopes: scopes, Lifetime: lifetime,
		Workloads: policy.Workloads{TrustDomain: domain, Issuer: issuer, Where: map[string]policy.Matcher{"team": {OneOf: []federation.Value{federation.String(team)}}}},
	}
}

func onward(name, from, to string, scopes ...string) policy.Rule {
	return policy.Rule{
		Name: name, Source: "policy/test.yaml:2", Effect: policy.Allow, Targets: []string{to}, Scopes: scopes, ExchangeFrom: []string{from},
		Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster"},
	}
}
