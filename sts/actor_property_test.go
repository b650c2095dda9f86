package sts_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// leaf is one token of a random tree with two kinds of edges: to what it was exchanged from, and to what the actor
// showed.
type leaf struct {
	minted
	target         string
	subject, actor *leaf    // nil: a platform's token, or nobody
	chain          []string // who acts, current first
	revoked        bool
	acts           bool // somebody presented an actor token
}

func (l *leaf) dead() bool { return l != nil && (l.revoked || l.subject.dead() || l.actor.dead()) }

// bySubject: dead by its own revocation or by the edges to subjects alone.
func (l *leaf) bySubject() bool { return l != nil && (l.revoked || l.subject.bySubject()) }

func (l *leaf) depth() int {
	if l == nil {
		return 0
	}
	return 1 + max(l.subject.depth(), l.actor.depth())
}

func (l *leaf) ancestors(into map[string]bool) map[string]bool {
	for _, parent := range []*leaf{l.subject, l.actor} {
		if parent != nil {
			into[parent.decision] = true
			parent.ancestors(into)
		}
	}
	return into
}

// crowd adds rules by which everybody may act for everybody: what is refused is refused by the tokens themselves.
func crowd(w *world) {
	all := map[string]policy.Matcher{"team": {OneOf: []federation.Value{federation.String("crowd")}}}
	w.policy.Targets = append(w.policy.Targets, policy.Target{Name: badge, ResourceServers: []string{"spiffe://prod.example/cluster/gateway/*"}})
	w.policy.Rules = []policy.Rule{allow("gateway", "prod.example", "cluster", "gateway", "introspection", 0)}
	add := func(name string, r policy.Rule) {
		r.Name, r.Source, r.Effect = name, "policy/crowd.yaml:1", policy.Allow
		r.Workloads.TrustDomain, r.Workloads.Issuer = "prod.example", "cluster"
		if r.ExchangeFrom == nil {
			r.Workloads.Where = all
		}
		w.policy.Rules = append(w.policy.Rules, r)
	}
	add("badge", policy.Rule{Targets: []string{badge}})
	add("badge-again", policy.Rule{Targets: []string{badge}, ExchangeFrom: []string{badge}})
	for name, from := range map[string][]string{"": nil, "-again": {"orders"}} {
		add("orders"+name, policy.Rule{Targets: []string{"orders"}, ExchangeFrom: from})
		add("acted"+name, policy.Rule{Targets: []string{"orders"}, ExchangeFrom: from, Actors: &policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster", Where: all}})
		add("badged"+name, policy.Rule{Targets: []string{"orders"}, ExchangeFrom: from, Actors: &policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster"}, ActorsFrom: []string{badge}})
	}
	add("carried", policy.Rule{Targets: []string{"orders"}, ExchangeFrom: []string{"orders"}, Actors: &policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster"}})
}

// parts is of how many exchanges and parties a token has to tell: whoever presents one to get it, and what is told of those.
func (l *leaf) parts() int {
	if l == nil {
		return 0
	}
	n := 1 + l.subject.parts() + l.actor.parts()
	if l.acts {
		n++
	}
	return n
}

// grow makes one random exchange, holds the answer to the model, and returns the new token or nil.
func (d *deployment) grow(rt *rapid.T, r draw, tree []*leaf) *leaf {
	of := func(target string) []*leaf {
		alive := r.percent(90)
		return slices.DeleteFunc(slices.Clone(tree), func(l *leaf) bool { return l.target != target || alive && l.dead() })
	}
	name := func() string { return string(rune('a' + r.upTo(6))) }
	l := &leaf{target: "orders"}
	if r.percent(30) {
		l.target = badge
	}
	subject, actor, shows := "", "", ""
	if old := of(l.target); len(old) > 0 && r.percent(65) {
		l.subject = old[r.upTo(len(old))]
		subject, l.chain = l.subject.token, l.subject.chain
	} else {
		subject = d.sign(d.cluster, name(), "crowd")
	}
	if l.target == "orders" && r.percent(60) {
		if badges := of(badge); len(badges) > 0 && r.percent(70) {
			l.actor = badges[r.upTo(len(badges))]
			actor, shows = l.actor.token, l.actor.claims["sub"].(string)
		} else {
			who := name()
			actor, shows = d.sign(d.cluster, who, "crowd"), "spiffe://prod.example/cluster/"+who
		}
	}
	l.acts = actor != ""
	current := len(l.chain) > 0 && l.chain[0] == shows
	code := ""
	switch {
	case l.subject.dead() || l.actor.dead():
		code = "invalid_request"
	case shows != "" && !current && slices.Contains(l.chain, shows), shows != "" && !current && len(l.chain) >= federation.MaxActors:
		code = "invalid_request"
	case l.subject.depth() >= policy.MaxDepth:
		code = "invalid_target"
	case l.depth() > policy.MaxDepth, l.parts() > revocation.MaxParts:
		code = "invalid_request"
	}
	if shows != "" && !current {
		l.chain = append([]string{shows}, l.chain...)
	}
	a := d.acted(subject, actor, l.target)
	if code != "" {
		d.wantRefusal("refused by the model", a, 400, code)
		return nil
	}
	if a.status != 200 {
		rt.Fatalf("%d %s; recorded %+v", a.status, redact(a.body), d.recorder.of(a.decision()))
	}
	l.minted = d.issued(a)
	var chain []string
	for act, _ := l.claims["act"].(map[string]any); act != nil; act, _ = act["act"].(map[string]any) {
		chain = append(chain, act["sub"].(string))
	}
	_, ancestors := lineageOf(l.minted)
	if want := l.ancestors(map[string]bool{}); !slices.Equal(chain, l.chain) || len(ancestors) != len(want) || slices.ContainsFunc(ancestors, func(id string) bool { return !want[id] }) {
		rt.Fatalf("acting %v, ancestors %v; want %v, %v", chain, ancestors, l.chain, want)
	}
	return l
}

// Random trees in which anybody acts for anybody, random revocations: dead is exactly what was revoked and what
// descends from it, whether by what was exchanged or by what an actor showed. // standards 1.45, failures 16, 18
func TestDeadIsExactlyRevokedAndBelowOverBothEdges(t *testing.T) {
	t.Parallel()
	d := deploy(t, crowd)
	live, killed, byActor, refused := 0, 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := draw{rt}
		var tree []*leaf
		revoke := func() {
			if len(tree) > 0 {
				l := tree[r.upTo(len(tree))]
				d.killed(l.token)
				l.revoked = true
			}
		}
		for range 24 {
			if r.percent(5) {
				revoke()
			} else if l := d.grow(rt, r, tree); l != nil {
				tree = append(tree, l)
			} else {
				refused++
			}
		}
		revoke()
		caller := d.gateway()
		for _, l := range tree {
			switch dead := l.dead(); {
			case dead && !l.bySubject():
				byActor++
				fallthrough
			case dead:
				killed++
			default:
				live++
			}
			if d.active(caller, l.token) == l.dead() {
				rt.Fatalf("token %s is dead by the model: %v; the server disagrees", l.decision, l.dead())
			}
		}
	})
	all := live + killed
	t.Logf("%d tokens lived, %d were dead, %d of them by an actor's token alone; %d attempts were refused", live, killed, byActor, refused)
	if live*10 < all || killed*10 < all || byActor*50 < killed {
		t.Error("nearly all tokens met one fate: the test shows little")
	}
}
