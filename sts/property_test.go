package sts_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts"
)

// node is one token of a random exchange tree, as the model knows it.
type node struct {
	minted
	parent         *node // nil: exchanged from a platform's token
	domain, issuer string
	target         string
	scopes         []string
	subject        time.Time // exp of the platform's token at the root
	revoked        bool
}

func (n *node) exp() time.Time { return time.Unix(int64(n.claims["exp"].(float64)), 0) }

// dead: what was revoked, and everything that descends from it.
func (n *node) dead() bool { return n != nil && (n.revoked || n.parent.dead()) }

func (n *node) depth() int {
	if n == nil {
		return 0
	}
	return 1 + n.parent.depth()
}

// attempt is one random request: with a platform's token of (domain, issuer, team), or with an own one.
type attempt struct {
	from                 *node
	domain, issuer, team string
	target               string
	scopes               []string
}

// oracle says what the policy of w must answer, written from the rules of design section 3 and not from the code:
// deny wins, one allow rule covers everything, first in order, no own token without exchange_from, never wider at
// the same target. It returns the covering rule, or the error code.
func oracle(c policy.Config, a attempt) (policy.Rule, string) {
	if a.from.dead() {
		return policy.Rule{}, "invalid_request"
	}
	if a.from.depth() >= policy.MaxDepth {
		return policy.Rule{}, "invalid_target"
	}
	says := func(r policy.Rule) bool { // about this workload and target
		return r.Workloads.TrustDomain == a.domain && (r.Workloads.Issuer == "" || r.Workloads.Issuer == a.issuer) &&
			(len(r.Targets) == 0 || slices.Contains(r.Targets, a.target))
	}
	team := func(r policy.Rule) bool {
		m, ok := r.Workloads.Where["team"]
		return !ok || slices.ContainsFunc(m.OneOf, func(v federation.Value) bool { return v.Any() == a.team })
	}
	for _, r := range c.Rules {
		if r.Effect == policy.Deny && says(r) && (a.from != nil || team(r)) { // own tokens have no attributes: absent is a match
			return policy.Rule{}, "invalid_target"
		}
	}
	code := "invalid_target"
	for _, r := range c.Rules {
		if r.Effect != policy.Allow || !says(r) || (a.from == nil) != (len(r.ExchangeFrom) == 0) {
			continue
		}
		if a.from == nil && !team(r) || a.from != nil && !slices.Contains(r.ExchangeFrom, a.from.target) {
			continue
		}
		if !subset(a.scopes, r.Scopes) {
			code = "invalid_scope"
			continue
		}
		if a.from != nil && a.from.target == a.target && !subset(granted(a, r), a.from.scopes) {
			return policy.Rule{}, "invalid_scope"
		}
		return r, ""
	}
	return policy.Rule{}, code
}

func granted(a attempt, r policy.Rule) []string {
	if len(a.scopes) > 0 {
		return a.scopes
	}
	return r.Scopes
}

func subset(small, big []string) bool {
	return !slices.ContainsFunc(small, func(s string) bool { return !slices.Contains(big, s) })
}

// draw is rapid with fewer words.
type draw struct{ *rapid.T }

func (d draw) upTo(n int) int { return rapid.IntRange(0, n-1).Draw(d.T, "n") }
func (d draw) percent(p int) bool {
	return d.upTo(100) < p
}
func (d draw) some(of []string, least int) []string {
	var out []string
	for _, s := range of {
		if d.percent(60) {
			out = append(out, s)
		}
	}
	for len(out) < least {
		out = append(out, of[d.upTo(len(of))])
	}
	return out
}

var teams, words = []string{"red", "blue"}, []string{"a", "b", "c"}

// policy draws a configuration that loads: three targets, allow rules, onward rules and a few deny rules.
func (d draw) policy(w *world) policy.Config {
	c := policy.Config{Issuers: w.policy.Issuers, Targets: []policy.Target{{Name: sts.IntrospectionTarget}}}
	var names []string
	for i := range 3 {
		names = append(names, fmt.Sprintf("t%d", i))
		c.Targets = append(c.Targets, policy.Target{
			Name: names[i], Scopes: words, MaxLifetime: time.Duration(60+d.upTo(3540)) * time.Second,
			ResourceServers: []string{"spiffe://prod.example/cluster/gateway/*"},
		})
	}
	for i := range 4 + d.upTo(6) {
		r := policy.Rule{
			Name: fmt.Sprintf("r%d", i), Source: fmt.Sprintf("policy/random.yaml:%d", i), Effect: policy.Allow,
			Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: []string{"cluster", "ci"}[d.upTo(2)]},
			Targets:   slices.Compact(d.some(names, 1)), Scopes: d.some(words, 0),
		}
		if d.percent(20) {
			r.Workloads.TrustDomain, r.Workloads.Issuer = "partner.example", "cluster"
		}
		where := map[string]policy.Matcher{"team": {OneOf: []federation.Value{federation.String(teams[d.upTo(2)])}}}
		switch {
		case d.percent(10):
			r.Effect, r.Scopes, r.Workloads.Where = policy.Deny, nil, where
			r.Targets = r.Targets[:1]
		case d.percent(60):
			to := d.upTo(len(names)) // upwards only: circles do not load
			r.Targets, r.ExchangeFrom = names[to:to+1], slices.Compact(d.some(names[:to+1], 1))
		default:
			r.Workloads.Where = where
		}
		if r.Effect == policy.Allow && d.percent(50) {
			r.Lifetime = time.Duration(1+d.upTo(60)) * time.Second
		}
		c.Rules = append(c.Rules, r)
	}
	// So that there is something to ask with, and something to begin with.
	c.Rules = append(c.Rules, allow("gateway", "prod.example", "cluster", "gateway", sts.IntrospectionTarget, 0),
		allow("base", "prod.example", "cluster", "red", "t0", 0, words...), onward("base-onward", "t0", "t0", "a", "b"))
	return loadable(c)
}

// loadable drops the rules that the load refuses.
func loadable(c policy.Config) policy.Config {
	for {
		_, problems := policy.New(c)
		if len(problems) == 0 {
			return c
		}
		bad := map[int]bool{}
		for _, p := range problems {
			bad[p.Index] = p.Part == "rule"
		}
		var good []policy.Rule
		for i, r := range c.Rules {
			if !bad[i] {
				good = append(good, r)
			}
		}
		c.Rules = good
	}
}

// attempt draws a request: mostly one that some rule is about.
func (d draw) attempt(c policy.Config, living []*node) attempt {
	a := attempt{domain: "prod.example", issuer: []string{"cluster", "ci"}[d.upTo(2)], team: teams[d.upTo(2)], target: fmt.Sprintf("t%d", d.upTo(3))}
	if len(living) > 0 && d.percent(60) {
		a.from = living[d.upTo(len(living))]
		a.domain, a.issuer, a.team = a.from.domain, a.from.issuer, ""
	}
	var about []policy.Rule
	for _, r := range c.Rules {
		if r.Effect == policy.Allow && r.Name != "gateway" && (a.from == nil && len(r.ExchangeFrom) == 0 || a.from != nil && slices.Contains(r.ExchangeFrom, a.from.target)) {
			about = append(about, r)
		}
	}
	if len(about) > 0 && d.percent(85) {
		r := about[d.upTo(len(about))]
		a.target = r.Targets[d.upTo(len(r.Targets))]
		if a.from == nil {
			a.domain, a.issuer = r.Workloads.TrustDomain, r.Workloads.Issuer
			a.team = r.Workloads.Where["team"].OneOf[0].Any().(string)
		}
		if len(r.Scopes) > 0 && d.percent(50) {
			a.scopes = slices.Compact(slices.Sorted(slices.Values(d.some(r.Scopes, 1))))
		}
	} else if d.percent(50) {
		a.scopes = slices.Compact(slices.Sorted(slices.Values(d.some(words, 1))))
	}
	return a
}

// try runs one attempt and holds what comes back to the model. It returns the new node, or nil.
func (d *deployment) try(rt *rapid.T, c policy.Config, a attempt, life time.Duration) *node {
	now := d.clock.now()
	n := &node{parent: a.from, domain: a.domain, issuer: a.issuer, target: a.target, subject: now.Add(life)}
	var raw string
	if a.from != nil {
		raw, n.subject = a.from.token, a.from.subject
	} else {
		iss := map[string]*federationtest.Issuer{"prod.example/cluster": d.cluster, "prod.example/ci": d.ci, "partner.example/cluster": d.partner}[a.domain+"/"+a.issuer]
		raw = d.sign(iss, "w/"+a.team, a.team, set("exp", n.subject.Unix()))
	}
	form := te(raw, "audience", a.target)
	if len(a.scopes) > 0 {
		form.Set("scope", strings.Join(a.scopes, " "))
	}
	got := d.exchange(form)
	rule, code := oracle(c, a)
	if code != "" {
		var body map[string]string
		if json.Unmarshal([]byte(got.body), &body) != nil || got.status != 400 || body["error"] != code || body["access_token"] != "" {
			rt.Fatalf("%+v: %d %s, want %s", a, got.status, redact(got.body), code)
		}
		return nil
	}
	if got.status != 200 {
		rt.Fatalf("%+v: %d %s, want a token by rule %s; recorded %+v", a, got.status, got.body, rule.Name, d.recorder.of(got.decision()))
	}
	n.minted = d.issued(got)
	n.scopes = granted(a, rule)
	// Not wider.
	if scope, _ := n.claims["scope"].(string); scope != strings.Join(n.scopes, " ") {
		rt.Fatalf("%+v: scope %q, want %v", a, scope, n.scopes)
	}
	// Not longer than rule, target and whatever it was exchanged from.
	target, _ := d.state.Policy.Target(a.target)
	most := now.Add(target.MaxLifetime)
	if rule.Lifetime > 0 && now.Add(rule.Lifetime).Before(most) {
		most = now.Add(rule.Lifetime)
	}
	for _, limit := range []time.Time{n.subject, a.from.expOr(n.subject)} {
		if limit.Before(most) {
			most = limit
		}
	}
	if n.exp().After(most) {
		rt.Fatalf("%+v: lives %s longer than allowed", a, n.exp().Sub(most))
	}
	if left := n.exp().Sub(now).Seconds(); math.Abs(left-n.response["expires_in"].(float64)) > 1 {
		rt.Fatalf("%+v: expires_in %v, %v left", a, n.response["expires_in"], left)
	}
	// Not for another, not by another name.
	want := "spiffe://" + a.domain + "/" + a.issuer + "/w/" + a.team
	if a.from != nil {
		want, _ = a.from.claims["sub"].(string)
	}
	if n.claims["aud"] != a.target || n.claims["sub"] != want || n.claims["client_id"] != "workload" {
		rt.Fatalf("%+v: aud %v, sub %v, client_id %v", a, n.claims["aud"], n.claims["sub"], n.claims["client_id"])
	}
	family, ancestors := lineageOf(n.minted)
	var line []string
	for p := a.from; p != nil; p = p.parent {
		line = append([]string{p.decision}, line...)
	}
	if root := append(line[:len(line):len(line)], n.decision)[0]; family != root || !slices.Equal(ancestors, line) {
		rt.Fatalf("%+v: family %s, ancestors %v, want %s, %v", a, family, ancestors, root, line)
	}
	return n
}

func (n *node) expOr(t time.Time) time.Time {
	if n == nil {
		return t
	}
	return n.exp()
}

// Whatever the policy and the request: what comes out is never wider, longer or for somebody else than one rule
// and the subject token allow, and what the rules refuse is refused. // failures 15
func TestExchangeNeverAmplifies(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	allowed, all := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := draw{rt}
		c := r.policy(d.world)
		d.swapPolicy(c)
		var tree []*node
		for range 12 {
			life := time.Duration(2+r.upTo(3598)) * time.Second
			all++
			if n := d.try(rt, c, r.attempt(c, tree), life); n != nil {
				allowed++
				tree = append(tree, n)
			}
		}
	})
	share := 100 * allowed / max(all, 1)
	t.Logf("%d of %d attempts were allowed: %d %%", allowed, all, share)
	if share < 30 {
		t.Errorf("only %d %% of the attempts are allowed: the test looks at refusals", share)
	}
}

// Random trees, random revocations: dead is exactly what was revoked and what descends from it.
func TestDeadIsExactlyRevokedAndBelow(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	live, killed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := draw{rt}
		c := r.policy(d.world)
		for i := range c.Rules {
			c.Rules[i].Lifetime = 0 // nothing expires while the test runs
		}
		d.swapPolicy(c)
		var tree []*node
		for range 20 {
			if len(tree) > 0 && r.percent(12) {
				n := tree[r.upTo(len(tree))]
				if a := d.revoke(n.token); a.status != 200 {
					rt.Fatalf("revoking: %d", a.status)
				}
				n.revoked = true
				continue
			}
			if n := d.try(rt, c, r.attempt(c, tree), 30*time.Minute); n != nil {
				tree = append(tree, n)
			}
		}
		caller := d.gateway()
		for _, n := range tree {
			if n.dead() {
				killed++
			} else {
				live++
			}
			if d.active(caller, n.token) == n.dead() {
				rt.Fatalf("token %s is dead by the model: %v; the server disagrees", n.decision, n.dead())
			}
		}
	})
	t.Logf("%d tokens lived, %d were dead", live, killed)
	if live < killed/10 || killed < live/10 {
		t.Error("nearly all tokens met one fate: the test shows little")
	}
}

func (d *deployment) swapPolicy(c policy.Config) {
	w := *d.world
	w.policy = c
	d.state = d.build(&w, "random")
	d.exchanger.Swap(d.state)
}
