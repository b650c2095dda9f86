package policy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

const (
	audience = "https://sts.example"
	own      = "https://sts.example"
)

// platform names workloads by one claim and copies the rest into attributes of every type.
type platform struct{}

var schema = federation.Schema{
	{Name: "repo", Type: federation.TypeString},
	{Name: "ref", Type: federation.TypeString},
	{Name: "id", Type: federation.TypeInt, Anchor: true},
	{Name: "protected", Type: federation.TypeBool},
	{Name: "groups", Type: federation.TypeStrings},
}

func (platform) Schema() federation.Schema { return schema }

func (platform) Name(c federation.Claims) (federation.Naming, error) {
	var v struct {
		Sub       string   `json:"sub"`
		Repo      *string  `json:"repo"`
		Ref       *string  `json:"ref"`
		ID        *int64   `json:"id"`
		Protected *bool    `json:"protected"`
		Groups    []string `json:"groups"`
	}
	if err := c.Decode(&v); err != nil {
		return federation.Naming{}, err
	}
	a := federation.Attributes{}
	if v.Repo != nil {
		a["repo"] = federation.String(*v.Repo)
	}
	if v.Ref != nil {
		a["ref"] = federation.String(*v.Ref)
	}
	if v.ID != nil {
		a["id"] = federation.Int(*v.ID)
	}
	if v.Protected != nil {
		a["protected"] = federation.Bool(*v.Protected)
	}
	if v.Groups != nil {
		a["groups"] = federation.Strings(v.Groups)
	}
	return federation.Naming{Path: "w/" + v.Sub, Attributes: a}, nil
}

// world is one trusted issuer and our own keys; tokens in it are signed and verified for real.
type world struct {
	t      testing.TB
	now    time.Time
	issuer *federationtest.Issuer
	self   *federationtest.Issuer
	trust  *federation.Trust
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		t:      t,
		now:    time.Now().Truncate(time.Second),
		issuer: federationtest.NewNamed(t, "https://ci.example", jose.ES256),
		self:   federationtest.NewNamed(t, own, jose.ES256),
	}
	var err error
	w.trust, err = federation.NewTrust([]federation.Issuer{{
		TrustDomain: "prod.example", Name: "ci", URL: w.issuer.URL(), Audiences: []string{audience},
		Algorithms: w.issuer.Algorithms(), Keys: w.issuer.KeySet(), Adapter: platform{},
	}}, &federation.Own{URL: own, Keys: w.self.KeySet(), Algorithms: w.self.Algorithms()})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) workload(claims map[string]any) federation.Workload {
	w.t.Helper()
	return w.without("", claims)
}

// without is workload with a claim left out.
func (w *world) without(name string, claims map[string]any) federation.Workload {
	w.t.Helper()
	c := w.issuer.Claims(w.now, "app", audience)
	for k, v := range claims {
		c = c.With(k, v)
	}
	if name != "" {
		c = c.Without(name)
	}
	who, err := w.trust.Identify(context.Background(), w.issuer.Sign(c), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

// ownWorkload is the holder of a token that we minted for target.
func (w *world) ownWorkload(target, scope string, ancestors ...string) federation.Workload {
	w.t.Helper()
	c := w.self.Claims(w.now, "spiffe://prod.example/ci/w/app", "https://"+target+".example").
		With("client_id", "workload").With("scope", scope).
		With("sallyport", map[string]any{"family": "fam", "ancestors": ancestors, "target": target, "position": "1.0"})
	who, err := w.trust.Identify(context.Background(), w.self.Sign(c, federationtest.WithHeader("typ", "at+jwt")), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

func (w *world) facts(who federation.Workload, target string, scopes ...string) policy.Facts {
	return policy.Facts{Workload: who, Want: policy.Want{Audiences: []string{target}, Scopes: scopes}, Time: w.now}
}

func issuers() []policy.Issuer {
	return []policy.Issuer{{TrustDomain: "prod.example", Name: "ci", Schema: schema}, {TrustDomain: "prod.example", Name: "other", Schema: schema}, {TrustDomain: "dev.example", Name: "ci", Schema: schema}}
}

func where(m map[string]policy.Matcher) policy.Workloads {
	return policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: m}
}

func is(values ...federation.Value) policy.Matcher { return policy.Matcher{OneOf: values} }

var anyRepo = map[string]policy.Matcher{"repo": is(federation.String("shop"))}

func allow(name string, targets []string, scopes []string, m map[string]policy.Matcher) policy.Rule {
	return policy.Rule{Name: name, Source: "policy/a.yaml:1", Effect: policy.Allow, Workloads: where(m), Targets: targets, Scopes: scopes}
}

func compile(t testing.TB, rules ...policy.Rule) *policy.Policy {
	t.Helper()
	p, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: rules})
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return p
}

func targets() []policy.Target {
	return []policy.Target{
		{Name: "orders", Resource: "https://orders.example/", MaxLifetime: 10 * time.Minute, Scopes: []string{"read", "write"}},
		{Name: "gateway", Scopes: []string{"call", "read"}},
		{Name: "vault", GrantableTo: []string{"dev.example"}},
	}
}

func TestZeroValuesDeny(t *testing.T) {
	t.Parallel()
	var d policy.Decision
	if _, ok := d.Grant(); ok || d.Allowed() || d.Refusal() != policy.RefusedTarget {
		t.Error("the zero Decision does not deny")
	}
	w := newWorld(t)
	var p policy.Policy
	if p.Decide(w.facts(w.workload(nil), "orders")).Allowed() {
		t.Error("the zero Policy allows")
	}
	full := compile(t, allow("a", []string{"orders"}, []string{"read"}, anyRepo))
	if d := full.Decide(w.facts(federation.Workload{}, "orders")); d.Allowed() || !slices.Equal(d.Reasons(), []string{"no verified workload"}) {
		t.Errorf("the zero Workload is not refused as such: %v", d.Reasons())
	}
	var g policy.Grant
	if !g.IsZero() {
		t.Error("the zero Grant grants")
	}
}

func TestMatchersCompareTypeAndValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := federation.String("release")
	for _, tc := range []struct {
		name   string
		m      map[string]policy.Matcher
		claims map[string]any
		want   bool
	}{
		{"equal string", map[string]policy.Matcher{"repo": is(federation.String("shop"))}, map[string]any{"repo": "shop"}, true},
		{"longer string", map[string]policy.Matcher{"repo": is(federation.String("shop"))}, map[string]any{"repo": "shop-evil"}, false},
		{"shorter string", map[string]policy.Matcher{"repo": is(federation.String("shop"))}, map[string]any{"repo": "sho"}, false},
		{"other case", map[string]policy.Matcher{"repo": is(federation.String("shop"))}, map[string]any{"repo": "Shop"}, false},
		{"pattern characters are data", map[string]policy.Matcher{"repo": is(federation.String("sh.p"))}, map[string]any{"repo": "shop"}, false},
		{"star is data", map[string]policy.Matcher{"repo": is(federation.String("*"))}, map[string]any{"repo": "shop"}, false},
		{"one of", map[string]policy.Matcher{"repo": is(federation.String("a"), federation.String("shop"))}, map[string]any{"repo": "shop"}, true},
		{"absent", map[string]policy.Matcher{"repo": is(federation.String("shop"))}, nil, false},
		{"absent is not empty", map[string]policy.Matcher{"repo": is(federation.String(""))}, nil, false},
		{"int", map[string]policy.Matcher{"id": is(federation.Int(99))}, map[string]any{"id": 99}, true},
		{"other int", map[string]policy.Matcher{"id": is(federation.Int(99))}, map[string]any{"id": 98}, false},
		{"bool", map[string]policy.Matcher{"protected": is(federation.Bool(true))}, map[string]any{"protected": true}, true},
		{"other bool", map[string]policy.Matcher{"protected": is(federation.Bool(true))}, map[string]any{"protected": false}, false},
		{"prefix itself", map[string]policy.Matcher{"ref": {Prefix: "refs/heads"}}, map[string]any{"ref": "refs/heads"}, true},
		{"below prefix", map[string]policy.Matcher{"ref": {Prefix: "refs/heads"}}, map[string]any{"ref": "refs/heads/main"}, true},
		{"below prefix with slash", map[string]policy.Matcher{"ref": {Prefix: "refs/heads/"}}, map[string]any{"ref": "refs/heads/main"}, true},
		{"prefix inside a segment", map[string]policy.Matcher{"ref": {Prefix: "refs/heads/main"}}, map[string]any{"ref": "refs/heads/main-attacker"}, false},
		{"contains", map[string]policy.Matcher{"groups": {Contains: &one}}, map[string]any{"groups": []string{"dev", "release"}}, true},
		{"contains no substring", map[string]policy.Matcher{"groups": {Contains: &one}}, map[string]any{"groups": []string{"release-evil"}}, false},
		{"all must match", map[string]policy.Matcher{"repo": is(federation.String("shop")), "id": is(federation.Int(1))}, map[string]any{"repo": "shop", "id": 2}, false},
	} {
		p := compile(t, allow("a", []string{"orders"}, []string{"read"}, tc.m))
		if got := p.Decide(w.facts(w.workload(tc.claims), "orders")).Allowed(); got != tc.want {
			t.Errorf("%s: allowed is %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestDenyWinsOverEveryAllow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	deny := policy.Rule{Name: "no-prs", Source: "policy/z.yaml:9", Effect: policy.Deny, Workloads: where(map[string]policy.Matcher{"ref": {Prefix: "refs/pull"}})}
	p := compile(t, allow("a", []string{"orders"}, []string{"read"}, anyRepo), deny)
	for _, tc := range []struct {
		name   string
		claims map[string]any
		want   bool
	}{
		{"the deny rule matches", map[string]any{"repo": "shop", "ref": "refs/pull/1"}, false},
		{"it does not", map[string]any{"repo": "shop", "ref": "refs/heads/main"}, true},
		{"its attribute is absent, which is a match", map[string]any{"repo": "shop"}, false},
	} {
		d := p.Decide(w.facts(w.workload(tc.claims), "orders"))
		if d.Allowed() != tc.want {
			t.Errorf("%s: allowed is %v, want %v: %v", tc.name, d.Allowed(), tc.want, d.Reasons())
		}
	}
}

func TestDenyWithTargetsLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("a", []string{"orders", "gateway"}, []string{"read"}, anyRepo),
		policy.Rule{Name: "d", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example"}, Targets: []string{"orders"}})
	who := w.workload(map[string]any{"repo": "shop"})
	if p.Decide(w.facts(who, "orders")).Allowed() {
		t.Error("orders is allowed")
	}
	if !p.Decide(w.facts(who, "gateway")).Allowed() {
		t.Error("gateway is refused")
	}
}

func TestDenyIsAboutItsTrustDomainAndIssuerAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct {
		name      string
		workloads policy.Workloads
		want      bool
	}{
		{"its issuer", policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, false},
		{"every issuer of its domain", policy.Workloads{TrustDomain: "prod.example"}, false},
		{"another issuer of the domain", policy.Workloads{TrustDomain: "prod.example", Issuer: "other"}, true},
		{"an issuer of that name in another domain", policy.Workloads{TrustDomain: "dev.example", Issuer: "ci"}, true},
	} {
		p := compile(t, allow("a", []string{"orders"}, []string{"read"}, anyRepo), policy.Rule{Name: "d", Effect: policy.Deny, Workloads: tc.workloads})
		if got := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop"}), "orders")).Allowed(); got != tc.want {
			t.Errorf("%s: allowed is %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestOneRuleMustCoverAllThatIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("reads", []string{"orders"}, []string{"read"}, anyRepo), allow("writes", []string{"orders"}, []string{"write"}, anyRepo))
	who := w.workload(map[string]any{"repo": "shop"})
	for _, tc := range []struct {
		scopes []string
		rule   string
		want   []string
	}{
		{nil, "reads", []string{"read"}},
		{[]string{"read"}, "reads", []string{"read"}},
		{[]string{"write"}, "writes", []string{"write"}},
		{[]string{"read", "write"}, "", nil},
		{[]string{"admin"}, "", nil},
	} {
		d := p.Decide(w.facts(who, "orders", tc.scopes...))
		g, ok := d.Grant()
		if ok != (tc.rule != "") || g.Rule() != tc.rule || !slices.Equal(g.Scopes(), tc.want) {
			t.Errorf("asking %v: rule %q scopes %v, want %q %v", tc.scopes, g.Rule(), g.Scopes(), tc.rule, tc.want)
		}
		if !ok && d.Refusal() != policy.RefusedScope {
			t.Errorf("asking %v: refusal is not of the scope", tc.scopes)
		}
	}
}

func TestRefusalOfScopeIsToldOnlyToThoseWhoReachTheTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("reads", []string{"orders"}, []string{"read"}, anyRepo))
	stranger := w.workload(map[string]any{"repo": "other"})
	for _, target := range []string{"orders", "vault", "nothing-of-that-name"} {
		if d := p.Decide(w.facts(stranger, target, "admin")); d.Refusal() != policy.RefusedTarget {
			t.Errorf("a stranger is told about the scope of %s", target)
		}
	}
}

func TestOneTargetPerExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, allow("a", []string{"orders", "gateway"}, []string{"read"}, anyRepo))
	who := w.workload(map[string]any{"repo": "shop"})
	for _, tc := range []struct {
		name string
		want policy.Want
		ok   bool
	}{
		{"by name", policy.Want{Audiences: []string{"orders"}}, true},
		{"by resource", policy.Want{Resources: []string{"https://orders.example/"}}, true},
		{"by both names of one", policy.Want{Audiences: []string{"orders"}, Resources: []string{"https://orders.example/"}}, true},
		{"none", policy.Want{}, false},
		{"two", policy.Want{Audiences: []string{"orders", "gateway"}}, false},
		{"one allowed and one unknown", policy.Want{Audiences: []string{"orders", "x"}}, false},
		{"names of two", policy.Want{Audiences: []string{"gateway"}, Resources: []string{"https://orders.example/"}}, false},
		{"other case", policy.Want{Audiences: []string{"Orders"}}, false},
		{"resource without its slash", policy.Want{Resources: []string{"https://orders.example"}}, false},
		{"resource as audience", policy.Want{Audiences: []string{"https://orders.example/"}}, false},
	} {
		if got := p.Decide(policy.Facts{Workload: who, Want: tc.want, Time: w.now}).Allowed(); got != tc.ok {
			t.Errorf("%s: allowed is %v, want %v", tc.name, got, tc.ok)
		}
	}
}

func TestGrantNeverOutlivesRuleTargetOrSubjectToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct {
		name    string
		rule    time.Duration
		subject time.Duration
		want    time.Duration
	}{
		{"the target's maximum", 0, time.Hour - time.Minute, 10 * time.Minute},
		{"the rule's lifetime", 3 * time.Minute, time.Hour - time.Minute, 3 * time.Minute},
		{"the subject token", 0, 20 * time.Second, 20 * time.Second},
	} {
		r := allow("a", []string{"orders"}, []string{"read"}, anyRepo)
		r.Lifetime = tc.rule
		who := w.workload(map[string]any{"repo": "shop", "exp": w.now.Add(tc.subject).Unix()})
		g, ok := compile(t, r).Decide(w.facts(who, "orders")).Grant()
		if got := g.Expires().Sub(w.now); !ok || got != tc.want {
			t.Errorf("%s binds: lifetime is %s (%v), want %s", tc.name, got, ok, tc.want)
		}
	}
}

func TestOwnTokensNeedARuleThatSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	onward := policy.Rule{Name: "onward", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Targets: []string{"orders"}, Scopes: []string{"read"}, ExchangeFrom: []string{"gateway"}}
	plain := allow("plain", []string{"orders"}, []string{"read"}, anyRepo)
	ownToken, platformToken := w.ownWorkload("gateway", "call"), w.workload(map[string]any{"repo": "shop"})
	for _, tc := range []struct {
		name string
		rule policy.Rule
		who  federation.Workload
		want bool
	}{
		{"own token, rule for it", onward, ownToken, true},
		{"own token, rule for platforms", plain, ownToken, false},
		{"own token for another target", onward, w.ownWorkload("orders", "read"), false},
		{"platform's token, rule for own ones", onward, platformToken, false},
		{"platform's token, rule for it", plain, platformToken, true},
	} {
		if got := compile(t, tc.rule).Decide(w.facts(tc.who, "orders")).Allowed(); got != tc.want {
			t.Errorf("%s: allowed is %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestExchangeForTheSameTargetNeverWidensScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, policy.Rule{Name: "renew", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Targets: []string{"orders"}, Scopes: []string{"read", "write"}, ExchangeFrom: []string{"orders"}})
	reader := w.ownWorkload("orders", "read")
	if d := p.Decide(w.facts(reader, "orders", "write")); d.Allowed() {
		t.Error("a token that reads was exchanged for one that writes")
	}
	if d := p.Decide(w.facts(reader, "orders", "read")); !d.Allowed() {
		t.Errorf("a token that reads was not exchanged for one that reads: %v", d.Reasons())
	}
}

func TestChainOfExchangesEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t, policy.Rule{Name: "onward", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Targets: []string{"orders"}, Scopes: []string{"read"}, ExchangeFrom: []string{"gateway"}})
	if d := p.Decide(w.facts(w.ownWorkload("gateway", "call", "a", "b", "c"), "orders")); !d.Allowed() {
		t.Errorf("the fifth token is refused: %v", d.Reasons())
	}
	if d := p.Decide(w.facts(w.ownWorkload("gateway", "call", "a", "b", "c", "d"), "orders")); d.Allowed() {
		t.Error("a sixth token is minted")
	}
}

func TestNearestRuleSaysWhatDidNotFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := compile(t,
		allow("far", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"repo": is(federation.String("x")), "id": is(federation.Int(1))}),
		allow("near", []string{"orders"}, []string{"read"}, map[string]policy.Matcher{"repo": is(federation.String("shop")), "ref": is(federation.String("refs/heads/main"))}))
	near, ok := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop", "ref": "refs/heads/dev"}), "orders")).Near()
	want := policy.Near{Rule: "near", Claim: "ref", Expected: "refs/heads/main", Found: "refs/heads/dev"}
	if !ok || near != want {
		t.Errorf("nearest is %+v, want %+v", near, want)
	}
}

func TestUnsafeRulesDoNotLoad(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		rule policy.Rule
		path string
		says string
	}{
		{"allow without targets", allow("a", nil, nil, anyRepo), "targets", "none does not mean all"},
		{"allow without where", allow("a", []string{"orders"}, nil, nil), "workloads.where", "which workloads"},
		{"unknown target", allow("a", []string{"order"}, nil, anyRepo), "targets[0]", "did you mean orders?"},
		{"unknown scope", allow("a", []string{"orders"}, []string{"reed"}, anyRepo), "scopes[0]", "did you mean read?"},
		{"scope that one of the targets lacks", allow("a", []string{"orders", "gateway"}, []string{"write"}, anyRepo), "scopes[0]", "target gateway defines no scope"},
		{"unknown attribute", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"rep": is(federation.String("x"))}), "workloads.where.rep", "did you mean repo?"},
		{"int where a string is declared", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"repo": is(federation.Int(99))}), "workloads.where.repo", `put it in quotes: "99"`},
		{"string where an int is declared", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"id": is(federation.String("99"))}), "workloads.where.id", "of type int"},
		{"empty list", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"repo": is()}), "workloads.where.repo", "an empty list does not mean all"},
		{"prefix of an int", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"id": {Prefix: "9"}}), "workloads.where.id", "prefix compares strings"},
		{"list without contains", allow("a", []string{"orders"}, nil, map[string]policy.Matcher{"groups": is(federation.String("x"))}), "workloads.where.groups", "contains"},
		{"not grantable", allow("a", []string{"vault"}, nil, anyRepo), "targets[0]", "grantable to dev.example only"},
		{"unknown trust domain", policy.Rule{Name: "a", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prd.example", Issuer: "ci"}}, "workloads.trust_domain", "did you mean prod.example?"},
		{"unknown issuer", policy.Rule{Name: "a", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "cl"}}, "workloads.issuer", "did you mean ci?"},
		{"allow for every issuer", policy.Rule{Name: "a", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example"}}, "workloads.issuer", "names its issuer"},
		{"no effect", policy.Rule{Name: "a"}, "effect", "allow or deny"},
		{"no name", allow("", []string{"orders"}, nil, anyRepo), "name", "needs a name"},
		{"lifetime above the target's", func() policy.Rule {
			r := allow("a", []string{"orders"}, nil, anyRepo)
			r.Lifetime = time.Hour
			return r
		}(), "lifetime", "longer than max_lifetime 10m0s"},
		{"empty exchange_from", func() policy.Rule {
			r := allow("a", []string{"orders"}, nil, nil)
			r.ExchangeFrom = []string{}
			return r
		}(), "exchange_from", "lists no target"},
		{"exchange_from with where", func() policy.Rule {
			r := allow("a", []string{"orders"}, nil, anyRepo)
			r.ExchangeFrom = []string{"gateway"}
			return r
		}(), "workloads.where", "carries no platform attributes"},
		{"deny with scopes", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: where(nil), Scopes: []string{"read"}}, "effect", "have no place"},
	} {
		p, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{tc.rule}})
		if p != nil {
			t.Errorf("%s: it loads", tc.name)
			continue
		}
		if !slices.ContainsFunc(problems, func(p policy.Problem) bool {
			return p.Part == "rule" && p.Index == 0 && p.Path == tc.path && strings.Contains(p.Message, tc.says)
		}) {
			t.Errorf("%s: problems are %+v, want one at %s that says %q", tc.name, problems, tc.path, tc.says)
		}
	}
}

// A token that went from orders to billing and back would have what no single rule gives to a reader of orders.
func TestRulesThatLeadInACircleDoNotLoad(t *testing.T) {
	t.Parallel()
	onward := func(name, from, to string) policy.Rule {
		return policy.Rule{Name: name, Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Targets: []string{to}, ExchangeFrom: []string{from}}
	}
	elsewhere := onward("elsewhere", "gateway", "orders")
	elsewhere.Workloads.Issuer = "other"
	for _, tc := range []struct {
		name  string
		rules []policy.Rule
		loads bool
	}{
		{"there and back", []policy.Rule{onward("a", "orders", "gateway"), onward("b", "gateway", "orders")}, false},
		{"by way of a third", []policy.Rule{onward("a", "orders", "gateway"), onward("b", "gateway", "billing"), onward("c", "billing", "orders")}, false},
		{"for itself", []policy.Rule{onward("a", "orders", "orders")}, true},
		{"a line", []policy.Rule{onward("a", "orders", "gateway"), onward("b", "gateway", "billing")}, true},
		{"back, but for workloads of another issuer", []policy.Rule{onward("a", "orders", "gateway"), elsewhere}, true},
	} {
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: append(targets(), policy.Target{Name: "billing"}), Rules: tc.rules})
		if loads := len(problems) == 0; loads != tc.loads {
			t.Errorf("%s: loads is %v, want %v: %v", tc.name, loads, tc.loads, problems)
		}
	}
}

// Between thirty targets, each exchangeable for every later one, there are half a billion ways. Whoever writes such rules
// must not stop a check or a reload.
func TestManyWaysOnwardAreNotWalkedOneByOne(t *testing.T) {
	t.Parallel()
	const n = 30
	name := func(i int) string { return fmt.Sprintf("t%02d", i) }
	all := make([]policy.Target, n)
	var rules []policy.Rule
	for i := range n {
		all[i] = policy.Target{Name: name(i)}
		r := policy.Rule{Name: name(i), Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, ExchangeFrom: []string{name(i)}}
		for j := i + 1; j < n; j++ {
			r.Targets = append(r.Targets, name(j))
		}
		if len(r.Targets) > 0 {
			rules = append(rules, r)
		}
	}
	if _, problems := policy.New(policy.Config{Issuers: issuers(), Targets: all, Rules: rules}); len(problems) > 0 {
		t.Fatalf("rules that only lead onward do not load: %v", problems)
	}
	home := policy.Rule{Name: "home", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, ExchangeFrom: []string{name(n - 1)}, Targets: []string{name(0)}}
	_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: all, Rules: append(rules, home)})
	if len(problems) != n || !strings.Contains(problems[n-1].Message, "t29 -> t00 -> t29") {
		t.Errorf("with one rule back to the first: %d problems, want one for each of %d rules, the last by the shortest way: %v", len(problems), n, problems)
	}
}

func TestRuleThatADenyRuleShadowsDoesNotLoad(t *testing.T) {
	t.Parallel()
	onward := policy.Rule{Name: "onward", Effect: policy.Allow, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}, Targets: []string{"orders"}, ExchangeFrom: []string{"gateway"}}
	for _, tc := range []struct {
		name  string
		deny  policy.Rule
		loads bool
	}{
		{"all targets", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: where(anyRepo)}, false},
		{"every issuer", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example", Where: anyRepo}}, false},
		{"its target", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: where(anyRepo), Targets: []string{"orders"}}, false},
		{"another target", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: where(anyRepo), Targets: []string{"gateway"}}, true},
		{"another issuer", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "other", Where: anyRepo}}, true},
		{"on purpose, without attributes", policy.Rule{Name: "d", Effect: policy.Deny, Workloads: policy.Workloads{TrustDomain: "prod.example"}}, true},
	} {
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{onward, tc.deny}})
		if loads := len(problems) == 0; loads != tc.loads {
			t.Errorf("deny for %s: loads is %v, want %v: %v", tc.name, loads, tc.loads, problems)
		}
	}
}

func TestUnsafeTargetsDoNotLoad(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		target policy.Target
		path   string
	}{
		{"a name twice", policy.Target{Name: "orders"}, "target"},
		{"a bad name", policy.Target{Name: "a b"}, "target"},
		{"a resource twice", policy.Target{Name: "x", Resource: "https://orders.example/"}, "resource"},
		{"a relative resource", policy.Target{Name: "x", Resource: "/x"}, "resource"},
		{"a resource with a fragment", policy.Target{Name: "x", Resource: "https://x.example/#"}, "resource"},
		{"too long a life", policy.Target{Name: "x", MaxLifetime: 2 * time.Hour}, "max_lifetime"},
		{"a bad scope", policy.Target{Name: "x", Scopes: []string{`a"b`}}, `scopes.a"b`},
		{"grantable to nobody", policy.Target{Name: "x", GrantableTo: []string{}}, "grantable_to"},
		{"grantable to a stranger", policy.Target{Name: "x", GrantableTo: []string{"evil.example"}}, "grantable_to.trust_domains[0]"},
		{"a name that differs in case alone", policy.Target{Name: "Orders"}, "target"},
		{"a resource server that is no id", policy.Target{Name: "x", ResourceServers: []string{"*"}}, "resource_servers[0]"},
		{"everybody as resource server", policy.Target{Name: "x", ResourceServers: []string{"spiffe://*"}}, "resource_servers[0]"},
		{"a whole trust domain as resource server", policy.Target{Name: "x", ResourceServers: []string{"spiffe://prod.example/*"}}, "resource_servers[0]"},
		{"a resource server of an unknown domain", policy.Target{Name: "x", ResourceServers: []string{"spiffe://prd.example/ci/w/app"}}, "resource_servers[0]"},
		{"a resource server of an unknown issuer", policy.Target{Name: "x", ResourceServers: []string{"spiffe://prod.example/cl/w/app"}}, "resource_servers[0]"},
		{"a resource server with a star inside", policy.Target{Name: "x", ResourceServers: []string{"spiffe://a/*/b"}}, "resource_servers[0]"},
	} {
		p, problems := policy.New(policy.Config{Issuers: issuers(), Targets: append(targets(), tc.target)})
		if p != nil || !slices.ContainsFunc(problems, func(p policy.Problem) bool { return p.Part == "target" && p.Path == tc.path }) {
			t.Errorf("%s: problems are %+v, want one at %s", tc.name, problems, tc.path)
		}
	}
}
