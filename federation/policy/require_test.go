package policy_test

import (
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

func TestFreshIsMeasuredFromIssuing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := allow("fresh", []string{"orders"}, []string{"read"}, anyRepo)
	r.Require.Fresh = 5 * time.Minute
	p := compile(t, r)
	for _, tc := range []struct {
		name  string
		iat   any
		want  bool
		found string
	}{
		{"just issued", w.now.Unix(), true, ""},
		{"at the edge", w.now.Add(-5 * time.Minute).Unix(), true, ""},
		{"a second past it", w.now.Add(-5*time.Minute - time.Second).Unix(), false, "issued 5m1s ago"},
		{"within the skew of a clock ahead", w.now.Add(10 * time.Second).Unix(), true, ""},
	} {
		d := p.Decide(w.facts(w.workload(map[string]any{"repo": "shop", "iat": tc.iat}), "orders"))
		near, _ := d.Near()
		if d.Allowed() != tc.want || near.Found != tc.found {
			t.Errorf("%s: allowed is %v, found %q; want %v, %q", tc.name, d.Allowed(), near.Found, tc.want, tc.found)
		}
		if !tc.want && (near.Claim != "fresh" || near.Expected != "issued at most 5m0s ago" || d.Refusal() != policy.RefusedTarget) {
			t.Errorf("%s: nearest is %+v, refusal %v", tc.name, near, d.Refusal())
		}
	}
	silent := w.without("iat", map[string]any{"repo": "shop"})
	if d := p.Decide(w.facts(silent, "orders")); d.Allowed() {
		t.Error("a token that does not say when it was issued is fresh")
	} else if near, _ := d.Near(); near.Found != "no iat" {
		t.Errorf("found is %q, want no iat", near.Found)
	}
}

func TestSingleUseIsTheWordOfTheIssuerOrOfTheRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.workload(map[string]any{"repo": "shop"})
	for _, once := range []bool{false, true} {
		r := allow("a", []string{"orders"}, nil, anyRepo)
		r.Require.SingleUse = once
		if g, ok := compile(t, r).Decide(w.facts(who, "orders")).Grant(); !ok || g.SingleUse() != once {
			t.Errorf("single use is %v, want %v", g.SingleUse(), once)
		}
	}
}

func TestOnlyAnOpeningOutlivesThePlatformsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := allow("a", []string{"orders"}, []string{"read"}, anyRepo)
	r.Lifetime = 8 * time.Minute
	brief := w.workload(map[string]any{"repo": "shop", "exp": w.now.Add(time.Minute).Unix()})
	for open, want := range map[bool]time.Duration{false: time.Minute, true: 8 * time.Minute} {
		r.OutlivesSubject = open
		g, ok := compile(t, r).Decide(w.facts(brief, "orders")).Grant()
		if got := g.Expires().Sub(w.now); !ok || got != want {
			t.Errorf("outlives_subject %v: the grant lives %s, want %s", open, got, want)
		}
	}
}

func TestDemandsThatCannotBeMetDoNotLoad(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]func(*policy.Rule){
		"require.bound": func(r *policy.Rule) { r.Require.Bound = true },
		"require.fresh": func(r *policy.Rule) { r.Require.Fresh = time.Millisecond },
		"outlives_subject": func(r *policy.Rule) {
			r.OutlivesSubject, r.ExchangeFrom, r.Workloads.Where = true, []string{"gateway"}, nil
		},
		"actors.where":        func(r *policy.Rule) { r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"} },
		"actors.issuer":       func(r *policy.Rule) { r.Actors = &policy.Workloads{TrustDomain: "prod.example"} },
		"actors.trust_domain": func(r *policy.Rule) { r.Actors = &policy.Workloads{TrustDomain: "prd.example", Issuer: "ci"} },
		"actors.where.rep": func(r *policy.Rule) {
			r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci", Where: map[string]policy.Matcher{"rep": is(federation.String("x"))}}
		},
		"effect": func(r *policy.Rule) {
			r.Effect, r.Scopes, r.Actors = policy.Deny, nil, &policy.Workloads{TrustDomain: "prod.example", Issuer: "ci"}
		},
	} {
		r := allow("a", []string{"orders"}, nil, anyRepo)
		change(&r)
		_, problems := policy.New(policy.Config{Issuers: issuers(), Targets: targets(), Rules: []policy.Rule{r}})
		if len(problems) == 0 || problems[0].Path != path {
			t.Errorf("problems are %v, want one at %s", problems, path)
		}
	}
}

// A name on a platform that many customers share can be somebody else's tomorrow, for those who act as well.
func TestActorsOfASharedIssuerNeedAnAnchor(t *testing.T) {
	t.Parallel()
	shared := issuers()
	shared[1].MultiTenant = true // prod.example/other
	for anchor, loads := range map[string]bool{"id": true, "ref": false} {
		r := allow("a", []string{"orders"}, nil, anyRepo)
		v := federation.String("refs/heads/main")
		if anchor == "id" {
			v = federation.Int(7)
		}
		r.Actors = &policy.Workloads{TrustDomain: "prod.example", Issuer: "other", Where: map[string]policy.Matcher{anchor: is(v)}}
		_, problems := policy.New(policy.Config{Issuers: shared, Targets: targets(), Rules: []policy.Rule{r}})
		if (len(problems) == 0) != loads {
			t.Errorf("actors by %s: problems are %v, want loading to be %v", anchor, problems, loads)
		}
	}
}
