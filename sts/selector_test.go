package sts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// responder is an admin listener, asked by uid 0.
type responder struct {
	t   testing.TB
	ask func(method, path string, body ...string) answer
}

func operate(t testing.TB, d *deployment) responder {
	_, ask := d.adminListener("uid=0 pid=1", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	return responder{t, ask}
}

// does sends a revocation; more are members of its body.
func (o responder) does(more string, terms ...string) map[string]any {
	o.t.Helper()
	list, _ := json.Marshal(terms)
	body := `{"selector":` + string(list)
	if more != "" {
		body += "," + more
	}
	a := o.ask("POST", "/admin/v1/revocations", body+"}")
	if a.status != 200 {
		o.t.Fatalf("%s %v: %d %s", more, terms, a.status, a.body)
	}
	return object(o.t, a.body)
}

func (o responder) revokes(terms ...string) map[string]any { o.t.Helper(); return o.does("", terms...) }

// Each way to name something kills the token that it names, and its child, and leaves that of another workload alone.
func TestEverySelectorKillsWhatItNamesAndNothingElse(t *testing.T) {
	t.Parallel()
	const me = "spiffe://prod.example/cluster/checkout/api"
	for name, of := range map[string]func(d *deployment, subject string, m minted) []string{
		"lease":        func(_ *deployment, _ string, m minted) []string { return []string{"lease=" + m.decision} },
		"family":       func(_ *deployment, _ string, m minted) []string { return []string{"family=" + m.decision} },
		"subject":      func(*deployment, string, minted) []string { return []string{"subject=" + me} },
		"an attribute": func(*deployment, string, minted) []string { return []string{"attr.team=checkout"} },
		"issuer":       func(*deployment, string, minted) []string { return []string{"issuer=prod.example/cluster"} },
		"issuer's key": func(d *deployment, _ string, _ minted) []string {
			return []string{"key=prod.example/cluster/" + d.cluster.Key().ID}
		},
		"trust domain": func(*deployment, string, minted) []string { return []string{"trust_domain=prod.example"} },
		"target":       func(*deployment, string, minted) []string { return []string{"target=orders"} },
		"rule":         func(*deployment, string, minted) []string { return []string{"rule=checkout-orders"} },
		"policy":       func(*deployment, string, minted) []string { return []string{"policy=config-1"} },
		"our key": func(d *deployment, _ string, m minted) []string {
			return []string{"signing_key=" + headerOf(d, m.token, "kid")}
		},
		"subject token": func(_ *deployment, s string, _ minted) []string { return []string{"token=" + fingerprint(t, s)} },
		"its own token": func(_ *deployment, _ string, m minted) []string { return []string{"token=" + fingerprint(t, m.token)} },
		"jti": func(d *deployment, s string, _ minted) []string {
			return []string{"jti=https://cluster.example/" + claimOf(d, s, "jti")}
		},
		"two terms": func(*deployment, string, minted) []string { return []string{"subject=" + me, "target=orders"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, func(w *world) {
				w.policy.Rules = append(w.policy.Rules, allow("partner-plain", "partner.example", "cluster", "checkout", "plain", 0))
				again := onward("partner-again", "plain", "archive")
				again.Workloads = policy.Workloads{TrustDomain: "partner.example", Issuer: "cluster"}
				w.policy.Rules = append(w.policy.Rules, again)
			})
			caller := d.gateway()
			if name == "trust domain" || name == "issuer" || name == "our key" || name == "issuer's key" || name == "policy" {
				caller = "" // it dies as well
			}
			subject := d.checkout()
			m := d.mint(subject, "orders")
			child := d.mint(m.token, "billing")
			other := d.mint(d.sign(d.partner, "checkout/api", "checkout"), "plain")
			operate(t, d).revokes(of(d, subject, m)...)
			for what, token := range map[string]string{"the token": m.token, "its child": child.token} {
				d.refused(what, 400, "invalid_request", func() answer { return d.exchange(te(token, "audience", "billing")) })
				if caller != "" && d.active(caller, token) {
					t.Errorf("%s is active", what)
				}
			}
			// That of another workload: dead only for those that name what it shares.
			shares := name == "policy" || name == "our key" || name == "an attribute"
			if a := d.exchange(te(other.token, "audience", "archive")); (a.status != 200) != shares {
				t.Errorf("another's token is exchanged with %d %s", a.status, a.body)
			}
		})
	}
}

func headerOf(d *deployment, token, name string) string {
	var h map[string]any
	decodePart(d, token, 0, &h)
	s, _ := h[name].(string)
	return s
}

func claimOf(d *deployment, token, name string) string {
	var c map[string]any
	decodePart(d, token, 1, &c)
	s, _ := c[name].(string)
	return s
}

// All terms hold of one exchange, or nothing dies: the terms of two exchanges of one line do not add up.
func TestTermsOfTwoExchangesDoNotAddUp(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller := d.gateway()
	m := d.mint(d.checkout(), "orders")
	child := d.mint(m.token, "billing")
	grandchild := d.mint(child.token, "archive")
	operate(t, d).revokes("target=archive", "rule=checkout-orders")
	if !d.active(caller, grandchild.token) || !d.active(caller, m.token) {
		t.Error("a selector whose terms hold of no one exchange kills")
	}
	operate(t, d).revokes("target=archive", "rule=billing-archive")
	if d.active(caller, grandchild.token) || !d.active(caller, m.token) {
		t.Error("the terms of one exchange do not kill it, or kill its ancestor")
	}
}

// What is decided after a revocation lives: order is by position. A token of the platform that was issued before it is
// refused, one that was issued after it is not.
func TestRevocationIsAboutWhatWasBefore(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller, old := d.gateway(), d.checkout()
	before := d.mint(old, "orders")
	operate(t, d).revokes("subject=spiffe://prod.example/cluster/checkout/api")
	d.refused("an older token of the platform", 400, "invalid_request", func() answer { return d.exchange(te(old, "audience", "orders")) })
	d.refused("one that does not say when it was issued", 400, "invalid_request", func() answer {
		return d.exchange(te(d.checkout(without("iat")), "audience", "orders"))
	})
	d.clock.advance(3 * time.Second)
	after := d.mint(d.checkout(), "orders")
	if d.active(caller, before.token) || !d.active(caller, after.token) {
		t.Errorf("before: active %v, after: active %v; want false and true", d.active(caller, before.token), d.active(caller, after.token))
	}
	child := d.mint(after.token, "billing")
	if a := d.exchange(te(child.token, "audience", "archive")); a.status != 200 {
		t.Errorf("what descends from what came after: %d %s", a.status, a.body)
	}
}

// A lock stands: what it matches is answered as what no rule allows, until it is lifted; what it killed stays dead.
func TestLockRefusesUntilItIsLifted(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := operate(t, d)
	caller := d.gateway()
	before := d.mint(d.checkout(), "orders")
	lock := o.does(`"lock":true,"reason":"runner taken over","ticket":"INC-7"`, "attr.team=checkout")
	id, _ := lock["id"].(string)
	d.clock.advance(time.Minute)
	unknown := d.exchange(te(d.checkout(), "audience", "no-such-target"))
	locked := d.exchange(te(d.checkout(), "audience", "orders"))
	if locked.status != unknown.status || object(t, locked.body)["error"] != object(t, unknown.body)["error"] {
		t.Errorf("a lock is answered with %d %s, an unknown target with %d %s", locked.status, locked.body, unknown.status, unknown.body)
	}
	if d.active(caller, before.token) {
		t.Error("a token that a lock matches is active")
	}
	if rec := d.recorder.of(locked.decision())[0]; !strings.Contains(rec.Reason, id) {
		t.Errorf("the record of the refusal says %q and not which lock", rec.Reason)
	}
	list := o.ask("GET", "/admin/v1/locks")
	if !strings.Contains(list.body, id) || !strings.Contains(list.body, "[INC-7] runner taken over") || !strings.Contains(list.body, "uid=0 pid=1") {
		t.Errorf("locks: %s", list.body)
	}
	// A lock on a target is about what is asked for, not about the token.
	other := o.does(`"lock":true,"ttl_seconds":60`, "target=plain")
	if a := o.ask("DELETE", "/admin/v1/locks/"+id+"?reason=rebuilt"); a.status != 200 {
		t.Fatalf("unlocking: %d %s", a.status, a.body)
	}
	after := d.mint(d.checkout(), "orders")
	if d.active(caller, before.token) || !d.active(caller, after.token) {
		t.Error("after the lock: what it killed lives again, or what came after is dead")
	}
	d.refused("the locked target", 400, "invalid_target", func() answer { return d.exchange(te(d.checkout(), "audience", "plain")) })
	if a := o.ask("DELETE", "/admin/v1/locks/"+id); a.status != 404 {
		t.Errorf("unlocking once more: %d", a.status)
	}
	d.clock.advance(2 * time.Minute) // the other one's time is over
	if err := d.revocations.Prune(t.Context(), d.clock.now()); err != nil {
		t.Fatal(err)
	}
	d.mint(d.checkout(), "plain")
	if a := o.ask("GET", "/admin/v1/locks"); strings.Contains(a.body, other["id"].(string)) {
		t.Errorf("a lock whose time is over is listed: %s", a.body)
	}
}

// A lock that ends lets new tokens through. What it killed stays dead: our tokens and the platform's outlive a short lock.
func TestWhatALockKilledStaysDeadWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller, stolen := d.gateway(), d.checkout()
	before := d.mint(stolen, "orders")
	operate(t, d).does(`"lock":true,"ttl_seconds":60`, "attr.team=checkout")
	d.clock.advance(2 * time.Minute)
	if err := d.revocations.Prune(t.Context(), d.clock.now()); err != nil {
		t.Fatal(err)
	}
	if d.active(caller, before.token) {
		t.Error("a token that the lock killed is active again")
	}
	d.refused("a platform's token that the lock killed", 400, "invalid_request", func() answer { return d.exchange(te(stolen, "audience", "orders")) })
	if after := d.mint(d.checkout(), "orders"); !d.active(caller, after.token) {
		t.Error("what came after the lock is dead")
	}
}

// A token that is named stays dead although its lock ended long ago: one that does not say when it was issued can live on.
func TestNamedTokenStaysDeadAfterItsLock(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout(without("iat"), set("exp", d.clock.now().Add(50*time.Hour).Unix()))
	operate(t, d).does(`"lock":true,"ttl_seconds":60`, "token="+fingerprint(t, subject))
	d.clock.advance(49 * time.Hour)
	if err := errors.Join(d.keys.Refresh(t.Context()), d.revocations.Prune(t.Context(), d.clock.now())); err != nil {
		t.Fatal(err)
	}
	a := d.refused("after two days", 400, "invalid_request", func() answer { return d.exchange(te(subject, "audience", "orders")) })
	if rec := d.recorder.of(a.decision())[0]; !strings.Contains(rec.Reason, "revoked") {
		t.Errorf("refused for another reason: %s", rec.Reason)
	}
}

// A lock does not use up a token that may be used once: after it the same token is good.
func TestLockUsesUpNoToken(t *testing.T) {
	t.Parallel()
	d := deploy(t, func(w *world) { w.policy.Rules[0].Require.SingleUse = true })
	o := operate(t, d)
	subject := d.checkout()
	lock := o.does(`"lock":true`, "target=orders")
	d.refused("while the lock stands", 400, "invalid_target", func() answer { return d.exchange(te(subject, "audience", "orders")) })
	if a := o.ask("DELETE", "/admin/v1/locks/"+lock["id"].(string)); a.status != 200 {
		t.Fatal(a.body)
	}
	d.mint(subject, "orders")
	d.refused("used", 400, "invalid_request", func() answer { return d.exchange(te(subject, "audience", "orders")) })
}

// An actor is named wherever it stands in a chain, and by what its own token says.
func TestSelectorFindsAnActorAnywhere(t *testing.T) {
	t.Parallel()
	for name, terms := range map[string][]string{
		"by its id":              {"actor=spiffe://prod.example/ci/agent/a"},
		"by what its token says": {"subject=spiffe://prod.example/ci/agent/a"},
		"by an attribute":        {"attr.team=agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, delegating)
			a := d.acted(d.checkout(), d.agent("a"), "orders")
			m := d.issued(a)
			alone := d.mint(d.checkout(), "orders")
			operate(t, d).revokes(terms...)
			caller := d.gateway()
			if d.active(caller, m.token) || !d.active(caller, alone.token) {
				t.Errorf("acted for: active %v, not acted for: active %v", d.active(caller, m.token), d.active(caller, alone.token))
			}
		})
	}
}

// A dry run does nothing, and counts what would die by workload, target and rule, descendants too.
func TestDryRunSaysWhatWouldDie(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	_, ask := d.adminListener("uid=0", append(d.exchanger.RevocationRoutes(d.recorder.scan), sts.LeasesRoute(d.keeper.Store.Each, d.revocations.Hasher()))...)
	o := responder{t, ask}
	m := d.mint(d.checkout(), "orders")
	d.mint(m.token, "billing")
	_, fruit := d.pick(m.token)
	d.mint(d.sign(d.partner, "checkout/api", "checkout"), "orders")
	out := o.does(`"dry_run":true`, "attr.team=checkout", "issuer=prod.example/cluster")
	tokens, _ := out["tokens"].(map[string]any)
	if tokens["living"] != 2.0 || mustJSON(tokens["targets"]) != `{"billing":1,"orders":1}` || mustJSON(tokens["workloads"]) != `{"spiffe://prod.example/cluster/checkout/api":2}` {
		t.Errorf("tokens that would die: %v", tokens)
	}
	if counts, _ := out["counts"].(map[string]any); counts["live"] != 1.0 {
		t.Errorf("leases that would die: %v", out)
	}
	if a := ask("GET", "/admin/v1/leases?attr.team=checkout"); !strings.Contains(a.body, fruit.decision()) {
		t.Errorf("listing by an attribute: %s", a.body)
	}
	if out["id"] != nil || !d.active(d.gateway(), m.token) || d.orchard.count() != 1 {
		t.Error("a dry run did something")
	}
	out = o.revokes("attr.team=checkout", "issuer=prod.example/cluster")
	if counts, _ := out["counts"].(map[string]any); counts["dead"] != 1.0 || d.orchard.count() != 0 {
		t.Errorf("revoking: %v", out)
	}
	rec := d.recorder.of(out["id"].(string))[0]
	if rec.Revocation == nil || rec.Revocation.Action != "revoke" || !slices.Equal(rec.Revocation.Selector, []string{"attr.team=checkout", "issuer=prod.example/cluster"}) || len(rec.Revocation.Receipts) != 1 {
		t.Errorf("recorded %+v", rec.Revocation)
	}
}

// What a selector matches while its mint runs is withdrawn, and killed outside.
func TestSelectorReachesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	o := responder{t, nil}
	_, o.ask = d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	m := d.mint(d.checkout(), "orders")
	d.orchard.set(func() {
		d.orchard.during = func(brokers.Order) {
			d.orchard.set(func() { d.orchard.during = nil })
			if a := o.ask("POST", "/admin/v1/revocations", `{"selector":["target=fruit"],"wait_seconds":1}`); a.status != 200 {
				t.Errorf("revoking while a mint runs: %d %s", a.status, a.body)
			}
		}
	})
	a := d.exchange(te(m.token, "audience", "fruit"))
	if a.status == 200 {
		t.Fatal("handed out after a revocation that matches it")
	}
	d.nothing()
	if rec := d.recorder.of(a.decision())[0]; rec.Outcome != audit.Withdrawn {
		t.Errorf("recorded as %s: %s", rec.Outcome, rec.Reason)
	}
}

func TestSelectorsThatAreRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := operate(t, d)
	for name, body := range map[string]string{
		"nothing": `{}`, "no term": `{"selector":[]}`, "no value": `{"selector":["subject="]}`, "no key": `{"selector":["x"]}`, "unknown key": `{"selector":["colour=red"]}`,
		"an attribute without a name": `{"selector":["attr.=x"]}`, "a lease and more": `{"selector":["lease=aaaaaaaaaaaaaaaaaaaaaaaaaa","target=orders"]}`,
		"a lease that is no id": `{"selector":["lease=*"]}`, "a locked lease": `{"selector":["lease=aaaaaaaaaaaaaaaaaaaaaaaaaa"],"lock":true}`, "twice": `{"selector":["rule=a","rule=a"]}`,
		"a time without a lock": `{"selector":["rule=a"],"ttl_seconds":5}`, "control characters": `{"selector":["rule=a\u0007"]}`, "too many": `{"selector":["rule=a","rule=b","rule=c","rule=d","rule=e","rule=f","rule=g","rule=h","rule=i"]}`,
		"too long": `{"selector":["rule=` + strings.Repeat("a", 600) + `"]}`, "something else": `{"selector":["rule=a"],"force":true}`,
		"a workload that is none": `{"selector":["subject=checkout"]}`, "an issuer by its URL": `{"selector":["issuer=https://cluster.example"]}`, "a key alone": `{"selector":["key=abc"]}`,
		"a jti alone": `{"selector":["jti=abc"]}`, "a short fingerprint": `{"selector":["token=abc"]}`, "capitals": `{"selector":["token=` + strings.Repeat("AB", 32) + `"]}`,
	} {
		if a := o.ask("POST", "/admin/v1/revocations", body); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if d.revocations.Len() != 0 {
		t.Error("a refused selector revokes")
	}
	// A slip of the pen is said, and done all the same: it may be a name of an older configuration.
	if out := o.does(`"dry_run":true`, "attr.taem=checkout", "target=order", "rule=checkout-orders"); !strings.HasPrefix(mustJSON(out["warnings"]), `["the configuration in force has no attribute taem; did you mean team?","the configuration in force has no target order; did you mean orders?","nothing that lives matches`) {
		t.Errorf("warnings: %v", out["warnings"])
	}
	// A value is never a pattern.
	m := d.mint(d.checkout(), "orders")
	o.revokes("subject=spiffe://prod.example/cluster/checkout/*")
	o.revokes("subject=spiffe://prod.example/cluster/checkout/API")
	if !d.active(d.gateway(), m.token) {
		t.Error("a selector is taken for a pattern")
	}
}

// Random trees, random selectors: after each revocation exactly those are dead that a model says, by parents and attributes.
func TestRandomTreesDieAsTheModelSays(t *testing.T) {
	t.Parallel()
	type leaf struct {
		minted
		parent *leaf
		facts  []string
		dead   bool
	}
	killedBefore, killedBelow := 0, 0
	for seed := range uint64(12) {
		d := deploy(t)
		r := rand.New(rand.NewPCG(seed, 7))
		o := operate(t, d)
		var tree []*leaf
		var dead func(l *leaf) bool
		depth := func(l *leaf) (n int) {
			for ; l != nil; l = l.parent {
				n++
			}
			return n
		}
		dead = func(l *leaf) bool { return l != nil && (l.dead || dead(l.parent)) }
		for range 40 {
			switch n := r.IntN(10); {
			case n < 3 || len(tree) == 0:
				d.clock.advance(3 * time.Second)
				name := fmt.Sprint("api", r.IntN(3))
				m := d.mint(d.sign(d.cluster, "checkout/"+name, "checkout"), "orders")
				tree = append(tree, &leaf{minted: m, facts: []string{
					"subject=spiffe://prod.example/cluster/checkout/" + name, "attr.team=checkout", "target=orders", "rule=checkout-orders", "family=" + m.decision,
				}})
			case n < 8:
				p := tree[r.IntN(len(tree))]
				target, rule := "orders", "orders-again"
				if r.IntN(2) == 0 {
					target, rule = "billing", "orders-billing"
				}
				if !slices.Contains(p.facts, "target=orders") || depth(p) >= 4 {
					continue
				}
				a := d.exchange(te(p.token, "audience", target))
				if dead(p) != (a.status != 200) {
					t.Fatalf("seed %d: exchanging %v onward: %d, the model says dead: %v", seed, p.facts, a.status, dead(p))
				}
				if a.status == 200 {
					m := d.issued(a)
					tree = append(tree, &leaf{minted: m, parent: p, facts: []string{p.facts[0], "target=" + target, "rule=" + rule, p.facts[len(p.facts)-1]}})
				}
			default:
				from := tree[r.IntN(len(tree))].facts
				terms := []string{from[r.IntN(len(from))]}
				if other := from[r.IntN(len(from))]; other != terms[0] {
					terms = append(terms, other)
				}
				o.revokes(terms...)
				for _, l := range tree {
					if !dead(l) && !slices.ContainsFunc(terms, func(term string) bool { return !slices.Contains(l.facts, term) }) {
						l.dead = true
						killedBefore++
					} else if !l.dead && dead(l.parent) {
						killedBelow++
					}
				}
			}
		}
		caller := d.gateway()
		for _, l := range tree {
			if !slices.Contains(l.facts, "target=orders") {
				continue // its resource server is another
			}
			if got := d.active(caller, l.token); got == dead(l) {
				t.Errorf("seed %d: %v is active %v, and the model says dead: %v", seed, l.facts, got, dead(l))
			}
		}
	}
	if killedBefore < 20 || killedBelow < 20 {
		t.Errorf("only %d were killed, and %d below those; the test looks at too little", killedBefore, killedBelow)
	}
}

func fingerprint(t testing.TB, token string) string {
	t.Helper()
	f, err := federation.FingerprintOf(secret.New(token))
	if err != nil {
		t.Fatal(err)
	}
	return f.String()
}
