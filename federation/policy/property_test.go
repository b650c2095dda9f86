package policy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// scenario is one policy and one request, as data.
type scenario struct {
	Rules          []policy.Rule
	Extra          policy.Rule // a deny rule to be added
	Subject, Actor token
	HasActor       bool
	Target         string
	Scopes         []string
	Drop           string // attribute to be taken away from the subject
}

// token is what a generated token says.
type token struct {
	Claims  string // key of claimSets
	Expires time.Duration
	Age     time.Duration
	Own     bool // minted here, for gateway
}

// claimSets are the attributes that generated workloads have. Few, so that rules meet them.
var claimSets = map[string]map[string]any{
	"full":     {"repo": "shop", "ref": "refs/heads/main", "id": 1, "protected": true, "groups": []string{"dev", "release"}},
	"branch":   {"repo": "shop", "ref": "refs/heads/feature/x", "id": 1, "protected": false, "groups": []string{"dev"}},
	"edge":     {"repo": "edge", "ref": "refs/heads/main", "id": 2, "groups": []string{"release"}},
	"no ref":   {"repo": "shop", "id": 1, "protected": true},
	"no repo":  {"ref": "refs/heads/main", "id": 1, "groups": []string{"dev"}},
	"bare":     {},
	"stranger": {"repo": "other", "ref": "refs/pull/7", "id": 3, "protected": false, "groups": []string{}},
}

// generatedMatchers are what rules ask for, by attribute.
var generatedMatchers = map[string][]policy.Matcher{
	"repo":      {is(federation.String("shop")), is(federation.String("edge")), is(federation.String("shop"), federation.String("edge"))},
	"ref":       {is(federation.String("refs/heads/main")), {Prefix: "refs/heads"}, {Prefix: "refs/"}, {Prefix: "refs/heads/feature"}},
	"id":        {is(federation.Int(1)), is(federation.Int(1), federation.Int(2), federation.Int(3)), is(federation.Int(9))},
	"protected": {is(federation.Bool(true))},
	"groups":    {element("dev"), element("release")},
}

func element(s string) policy.Matcher {
	v := federation.String(s)
	return policy.Matcher{Contains: &v}
}

// conditions with what they mean, written a second time in Go: yes, and whether all that they name is there.
var conditions = []struct {
	text string
	mean func(w federation.Workload, scopes []string) (yes, known bool)
}{
	{"", func(federation.Workload, []string) (bool, bool) { return true, true }},
	{"workload.attr.id == 1 || workload.attr.ref == 'refs/heads/main'", func(w federation.Workload, _ []string) (bool, bool) {
		id, a := w.Attribute("id")
		ref, b := w.Attribute("ref")
		return id.Any() == int64(1) || ref.Any() == "refs/heads/main", a && b
	}},
	{"workload.attr.id < 3 && request.scopes.all(s, s == 'read')", func(w federation.Workload, scopes []string) (bool, bool) {
		id, ok := w.Attribute("id")
		n, _ := id.Any().(int64)
		return n < 3 && !slices.ContainsFunc(scopes, func(s string) bool { return s != "read" }), ok
	}},
	{"'dev' in workload.attr.groups ? workload.attr.id != 9 : true", func(w federation.Workload, _ []string) (bool, bool) {
		groups, a := w.Attribute("groups")
		id, b := w.Attribute("id")
		list, _ := groups.Any().([]string)
		return !slices.Contains(list, "dev") || id.Any() != int64(9), a && b
	}},
}

func drawWhere(t *rapid.T, label string, least int) map[string]policy.Matcher {
	names := slices.Sorted(maps.Keys(generatedMatchers))
	out := map[string]policy.Matcher{}
	for range max(least, rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3}).Draw(t, label+" attributes")) {
		name := rapid.SampledFrom(names).Draw(t, label+" attribute")
		out[name] = rapid.SampledFrom(generatedMatchers[name]).Draw(t, label+" matcher")
	}
	return out
}

func drawRule(t *rapid.T, i int) policy.Rule {
	label := fmt.Sprint("rule ", i)
	r := policy.Rule{Name: fmt.Sprint("r", i), Source: fmt.Sprint("p.yaml:", i), Effect: policy.Allow}
	c := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(t, label+" condition")
	r.When = conditions[c].text
	if rapid.IntRange(0, 11).Draw(t, label+" deny") == 6 {
		return drawDeny(t, r, label)
	}
	r.Workloads = where(drawWhere(t, label, 1))
	r.Targets = rapid.SampledFrom([][]string{{"orders"}, {"orders"}, {"orders", "gateway"}, {"gateway"}}).Draw(t, label+" targets")
	r.Scopes = rapid.SampledFrom([][]string{{"read"}, {"read"}, nil}).Draw(t, label+" scopes")
	if len(r.Targets) == 1 && r.Targets[0] == "orders" && rapid.Bool().Draw(t, label+" wide") {
		r.Scopes = []string{"read", "write"}
	}
	r.Lifetime = rapid.SampledFrom([]time.Duration{0, 0, 3 * time.Minute, 6 * time.Minute}).Draw(t, label+" lifetime")
	r.Require.Fresh = rapid.SampledFrom([]time.Duration{0, 0, 0, 5 * time.Minute}).Draw(t, label+" fresh")
	r.Require.SingleUse = rapid.Bool().Draw(t, label+" once")
	switch rapid.IntRange(0, 7).Draw(t, label+" kind") {
	case 0:
		r.Targets, r.Workloads.Where, r.ExchangeFrom, r.When = []string{"orders"}, nil, []string{"gateway"}, ""
	case 1:
		r.OutlivesSubject = true
	}
	if rapid.IntRange(0, 2).Draw(t, label+" actors") == 0 {
		r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: drawWhere(t, label+" actor", 1)}
	}
	return r
}

func drawDeny(t *rapid.T, r policy.Rule, label string) policy.Rule {
	r.Effect = policy.Deny
	r.Workloads = rapid.SampledFrom([]policy.Workloads{
		{TrustDomain: "prod.example", Issuer: "ci"}, {TrustDomain: "prod.example", Issuer: "ci"}, {TrustDomain: "prod.example"},
		{TrustDomain: "prod.example", Issuer: "other"}, {TrustDomain: "dev.example"},
	}).Draw(t, label+" workloads")
	if r.Workloads.Issuer == "" {
		r.When = ""
	}
	r.Workloads.Where = drawWhere(t, label, 2)
	r.Targets = rapid.SampledFrom([][]string{nil, {"orders"}, {"gateway"}}).Draw(t, label+" targets")
	return r
}

func drawToken(t *rapid.T, label string) token {
	return token{
		Claims:  rapid.SampledFrom([]string{"full", "full", "full", "branch", "edge", "edge", "no ref", "no repo", "bare", "stranger"}).Draw(t, label+" claims"),
		Expires: rapid.SampledFrom([]time.Duration{time.Minute, 4 * time.Minute, 12 * time.Minute, 30 * time.Minute, 30 * time.Minute}).Draw(t, label+" expires"),
		Age:     rapid.SampledFrom([]time.Duration{0, time.Minute, 20 * time.Minute}).Draw(t, label+" age"),
	}
}

var scenarios = rapid.Custom(func(t *rapid.T) scenario {
	s := scenario{
		Subject:  drawToken(t, "subject"),
		HasActor: rapid.IntRange(0, 4).Draw(t, "actor") < 2,
		Target:   rapid.SampledFrom([]string{"orders", "orders", "orders", "orders", "gateway", "gateway", "gateway", "vault", "nothing"}).Draw(t, "target"),
		Scopes:   rapid.SampledFrom([][]string{nil, nil, {"read"}, {"read"}, {"write"}, {"read", "write"}}).Draw(t, "scopes"),
		Drop:     rapid.SampledFrom(slices.Sorted(maps.Keys(generatedMatchers))).Draw(t, "drop"),
	}
	s.Subject.Own = rapid.IntRange(0, 9).Draw(t, "own") == 0
	if s.HasActor {
		s.Actor = drawToken(t, "actor")
		s.Actor.Expires = rapid.SampledFrom([]time.Duration{30 * time.Second, 2 * time.Minute, 5 * time.Minute}).Draw(t, "actor expires")
	}
	for i := range rapid.IntRange(1, 10).Draw(t, "rules") {
		s.Rules = append(s.Rules, drawRule(t, i))
	}
	if rapid.IntRange(0, 9).Draw(t, "fitting") > 0 { // left to chance, nearly everything is refused
		s.fit(t)
	}
	s.Extra = drawDeny(t, policy.Rule{Name: "extra", Source: "z.yaml:1"}, "extra")
	return s
})

// fit adds a rule that is about the request, but for what is drawn on top of it.
func (s *scenario) fit(t *rapid.T) {
	r := drawRule(t, len(s.Rules))
	if r.Effect == policy.Deny || s.Subject.Own != (r.ExchangeFrom != nil) {
		return
	}
	if !s.Subject.Own {
		r.Workloads.Where = s.Subject.where()
	}
	if r.Actors = nil; s.HasActor {
		r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: s.Actor.where()}
	}
	if s.Target == "orders" || s.Target == "gateway" && !slices.Contains(r.Scopes, "write") {
		r.Targets = []string{s.Target}
	}
	s.Rules = slices.Insert(s.Rules, rapid.IntRange(0, len(s.Rules)).Draw(t, "place"), r)
}

// where asks for something that the token has, or that no token has.
func (t token) where() map[string]policy.Matcher {
	if id, ok := claimSets[t.Claims]["id"].(int); ok {
		return map[string]policy.Matcher{"id": is(federation.Int(int64(id)))}
	}
	return map[string]policy.Matcher{"id": is(federation.Int(9))}
}

// people makes each workload once: signing is what takes time here.
type people struct {
	*world
	mu   sync.Mutex
	made map[string]federation.Workload
}

func (p *people) get(sub string, t token, drop string) federation.Workload {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := fmt.Sprint(sub, t, drop)
	if w, ok := p.made[k]; ok {
		return w
	}
	var w federation.Workload
	if t.Own {
		w = p.ownWorkload("gateway", "call read")
	} else {
		claims := maps.Clone(claimSets[t.Claims])
		delete(claims, drop)
		claims["sub"], claims["iat"], claims["exp"] = sub, p.now.Add(-t.Age).Unix(), p.now.Add(t.Expires).Unix()
		w = p.workload(claims)
	}
	p.made[k] = w
	return w
}

func (p *people) request(s scenario, drop string) policy.Facts {
	f := p.facts(p.get("app", s.Subject, drop), s.Target, s.Scopes...)
	if s.HasActor {
		f.Actor = p.get("gateway", s.Actor, "")
	}
	return f
}

// policyOf compiles the rules of a scenario; rules that do not go together (New says which) make it none.
func policyOf(rules []policy.Rule) (*policy.Policy, bool) {
	p, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: rules})
	return p, len(problems) == 0
}

// check holds one scenario against every property, and returns the decision.
func (p *people) check(t interface{ Fatalf(string, ...any) }, s scenario) (policy.Decision, *policy.Rule, bool) {
	compiled, ok := policyOf(s.Rules)
	if !ok {
		return policy.Decision{}, nil, false
	}
	f := p.request(s, "")
	d := compiled.Decide(f)
	g, allowed := d.Grant()

	want := reference(s.Rules, f)
	if allowed != (want.rule != nil) || !allowed && d.Refusal() != want.refusal {
		t.Fatalf("by index: allowed %v, refusal %v (%v); by reading every rule: %+v\n%+v", allowed, d.Refusal(), d.Reasons(), want, s)
	}
	if allowed {
		if g.Rule() != want.rule.Name {
			t.Fatalf("by index rule %s decides, by reading every rule %s\n%+v", g.Rule(), want.rule.Name, s)
		}
		p.bounded(t, g, want.rule, f, s)
	}
	p.reached(t, compiled, f, g, allowed, s)

	if extended, ok := policyOf(append(slices.Clone(s.Rules), s.Extra)); ok { // deny wins
		after, still := extended.Decide(f).Grant()
		if still && (!allowed || after.Rule() != g.Rule() || !after.Expires().Equal(g.Expires()) || !slices.Equal(after.Scopes(), g.Scopes())) {
			t.Fatalf("a deny rule more allows more\n%+v", s)
		}
		if still && refuses(&s.Extra, f, g.Scopes()) {
			t.Fatalf("a deny rule matches and %s allows\n%+v", after.Rule(), s)
		}
	}

	grants := slices.DeleteFunc(slices.Clone(s.Rules), func(r policy.Rule) bool { return r.Effect == policy.Deny }) // absence denies
	if only, ok := policyOf(grants); ok && !only.Decide(f).Allowed() && only.Decide(p.request(s, s.Drop)).Allowed() {
		t.Fatalf("taking %s away turned a refusal into an allow\n%+v", s.Drop, s)
	}
	return d, want.rule, true
}

// reached holds Reach to what is decided: an upper bound, tight where nothing is open, and wider the less is known.
func (p *people) reached(t interface{ Fatalf(string, ...any) }, compiled *policy.Policy, f policy.Facts, g policy.Grant, allowed bool, s scenario) {
	known := policy.KnownOf(f.Workload)
	reach := compiled.Reach(known)
	has := func(list []policy.Reachable, rule, target string) bool {
		return slices.ContainsFunc(list, func(r policy.Reachable) bool { return r.Rule == rule && r.Target == target })
	}
	if allowed && !has(reach, g.Rule(), g.Target()) {
		t.Fatalf("rule %s allows, and is not in reach: %+v\n%+v", g.Rule(), reach, s)
	}
	for _, r := range reach {
		if len(r.Needs) > 0 || len(r.Unless) > 0 || len(r.From) > 0 && !slices.Contains(r.From, known.Own) {
			continue
		}
		alone := f
		alone.Actor, alone.Want = federation.Workload{}, policy.Want{Audiences: []string{r.Target}}
		if d := compiled.Decide(alone); !d.Allowed() {
			t.Fatalf("rule %s is in reach of target %s, and nothing is open, and it is refused: %v\n%+v", r.Rule, r.Target, d.Reasons(), s)
		}
	}
	less := known
	less.Complete, less.Issuer, less.Attributes = false, "", maps.Clone(known.Attributes)
	delete(less.Attributes, s.Drop)
	wider := compiled.Reach(less)
	for _, r := range reach {
		if !has(wider, r.Rule, r.Target) {
			t.Fatalf("rule %s is in reach, and not when less is known: %+v\n%+v", r.Rule, wider, s)
		}
	}
}

// bounded is non-amplification: no grant exceeds its rule, its target, its subject token or its actor token.
func (p *people) bounded(t interface{ Fatalf(string, ...any) }, g policy.Grant, r *policy.Rule, f policy.Facts, s scenario) {
	most := maxLifetime(s.Target)
	if r.Lifetime > 0 {
		most = min(most, r.Lifetime)
	}
	switch {
	case g.Expires().After(f.Time.Add(most)):
		t.Fatalf("the grant lives %s, rule and target give %s\n%+v", g.Expires().Sub(f.Time), most, s)
	case g.Expires().After(f.Workload.Token().Expires()) && (!r.OutlivesSubject || s.Subject.Own):
		t.Fatalf("the grant outlives its subject token\n%+v", s)
	case s.HasActor && g.Expires().After(f.Actor.Token().Expires()):
		t.Fatalf("the grant outlives its actor token\n%+v", s)
	case g.Target() != s.Target || !slices.Contains(r.Targets, g.Target()):
		t.Fatalf("the grant is for %s\n%+v", g.Target(), s)
	case g.Actor().ID() != f.Actor.ID() || s.HasActor != (r.Actors != nil):
		t.Fatalf("the grant is for actor %s\n%+v", g.Actor().ID(), s)
	case r.Require.SingleUse && !g.SingleUse():
		t.Fatalf("the grant forgets single use\n%+v", s)
	}
	for _, scope := range g.Scopes() {
		if !slices.Contains(r.Scopes, scope) || len(s.Scopes) > 0 && !slices.Contains(s.Scopes, scope) {
			t.Fatalf("the grant has scope %s\n%+v", scope, s)
		}
	}
}

func maxLifetime(target string) time.Duration {
	if target == "orders" {
		return 10 * time.Minute
	}
	return policy.DefaultLifetime
}

// verdict is what reading every rule in turn comes to.
type verdict struct {
	rule    *policy.Rule
	refusal policy.Refusal
}

// reference decides by reading every rule in file order. It shares no code with what it is compared to.
func reference(rules []policy.Rule, f policy.Facts) verdict {
	target := f.Want.Audiences[0]
	if target == "nothing" {
		return verdict{refusal: policy.RefusedTarget}
	}
	var winner *policy.Rule
	refusal := policy.RefusedTarget
	for i := range rules {
		r := &rules[i]
		scopes := f.Want.Scopes
		if len(scopes) == 0 {
			scopes = r.Scopes
		}
		if winner != nil || r.Effect != policy.Allow || !slices.Contains(r.Targets, target) || !fitsAll(r, f) {
			continue
		}
		if yes, known := meaning(r.When)(f.Workload, scopes); !yes || !known {
			continue
		}
		if slices.ContainsFunc(f.Want.Scopes, func(s string) bool { return !slices.Contains(r.Scopes, s) }) {
			refusal = policy.RefusedScope
			continue
		}
		winner = r
	}
	scopes := f.Want.Scopes
	if winner != nil && len(scopes) == 0 {
		scopes = winner.Scopes
	}
	for i := range rules {
		if rules[i].Effect == policy.Deny && refuses(&rules[i], f, scopes) {
			return verdict{refusal: policy.RefusedTarget}
		}
	}
	if winner != nil {
		return verdict{rule: winner}
	}
	return verdict{refusal: refusal}
}

func meaning(when string) func(federation.Workload, []string) (bool, bool) {
	for _, c := range conditions {
		if c.text == when {
			return c.mean
		}
	}
	panic("no such condition: " + when)
}

func fitsAll(r *policy.Rule, f policy.Facts) bool {
	own := !f.Workload.Token().Lineage().IsZero()
	if own != (len(r.ExchangeFrom) > 0) {
		return false
	}
	for name, m := range r.Workloads.Where {
		if holds(m, f.Workload, name) != "yes" {
			return false
		}
	}
	if (r.Actors != nil) == f.Actor.IsZero() {
		return false
	}
	if r.Actors != nil {
		for name, m := range r.Actors.Where {
			if holds(m, f.Actor, name) != "yes" {
				return false
			}
		}
	}
	return r.Require.Fresh == 0 || f.Time.Sub(f.Workload.Token().IssuedAt()) <= r.Require.Fresh
}

// refuses reports whether a deny rule is about the subject or the actor.
func refuses(r *policy.Rule, f policy.Facts, scopes []string) bool {
	if len(r.Targets) > 0 && !slices.Contains(r.Targets, f.Want.Audiences[0]) {
		return false
	}
people:
	for _, w := range []federation.Workload{f.Workload, f.Actor} {
		if w.IsZero() || r.Workloads.TrustDomain != w.TrustDomain() || r.Workloads.Issuer != "" && r.Workloads.Issuer != w.Issuer() {
			continue
		}
		for name, m := range r.Workloads.Where {
			if holds(m, w, name) == "no" {
				continue people
			}
		}
		if yes, known := meaning(r.When)(w, scopes); yes || !known {
			return true
		}
	}
	return false
}

// holds is "yes", "no" or "absent".
func holds(m policy.Matcher, w federation.Workload, name string) string {
	v, ok := w.Attribute(name)
	if !ok {
		return "absent"
	}
	yes := false
	switch x := v.Any().(type) {
	case string:
		yes = m.Prefix != "" && (x == m.Prefix || strings.HasPrefix(x+"/", strings.TrimRight(m.Prefix, "/")+"/"))
	case []string:
		yes = m.Contains != nil && slices.Contains(x, m.Contains.Any().(string))
	}
	for _, o := range m.OneOf {
		yes = yes || o.Any() == v.Any()
	}
	if yes {
		return "yes"
	}
	return "no"
}

func TestDecisionsKeepTheirPropertiesWhateverIsDrawn(t *testing.T) {
	t.Parallel()
	p := &people{world: newWorld(t), made: map[string]federation.Workload{}}
	rapid.Check(t, func(t *rapid.T) { p.check(t, scenarios.Draw(t, "scenario")) })
}

// The same properties over scenarios that are the same on every run, with a count of what they are about: a
// generator that stopped meeting the limits would prove nothing.
func TestGeneratedScenariosMeetEveryLimit(t *testing.T) {
	t.Parallel()
	const n = 600
	p := &people{world: newWorld(t), made: map[string]federation.Workload{}}
	count := map[string]int{}
	total := 0
	for i := range n {
		s := scenarios.Example(i)
		d, rule, ok := p.check(t, s)
		if !ok {
			continue
		}
		total++
		g, allowed := d.Grant()
		switch {
		case !allowed && d.Refusal() == policy.RefusedScope:
			count["scopes"]++
		case allowed:
			count["allowed"]++
			count[limit(p, g, rule, s)]++
			if len(s.Scopes) > 0 && len(s.Scopes) < len(rule.Scopes) {
				count["scopes"]++
			}
		}
	}
	for what, least := range map[string]int{"allowed": 30, "rule lifetime": 5, "target lifetime": 5, "subject token": 5, "actor token": 5, "scopes": 5} {
		if count[what]*100 < least*total {
			t.Errorf("%s: %d of %d scenarios, want at least %d %%", what, count[what], total, least)
		}
	}
	t.Logf("%d scenarios: %v", total, count)
}

// limit names what a grant ends by.
func limit(p *people, g policy.Grant, r *policy.Rule, s scenario) string {
	switch life := g.Expires().Sub(p.now); {
	case s.HasActor && life == s.Actor.Expires:
		return "actor token"
	case !s.Subject.Own && life == s.Subject.Expires:
		return "subject token"
	case life == r.Lifetime:
		return "rule lifetime"
	case life == maxLifetime(s.Target):
		return "target lifetime"
	default:
		return "own token"
	}
}
