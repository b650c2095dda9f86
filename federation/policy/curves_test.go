package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// BenchmarkRules is a decision among more and more rules: of one target each, of one target and told apart by two
// attributes, and refused there.
func BenchmarkRules(b *testing.B) {
	w := newWorld(b)
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint("spread/", n), func(b *testing.B) {
			cfg, target := spread(n)
			benchmark(b, mustCompile(b, cfg), w.facts(w.workload(map[string]any{"repo": "shop"}), target))
		})
		b.Run(fmt.Sprint("crowded/", n), func(b *testing.B) {
			benchmark(b, mustCompile(b, crowded(n)), w.facts(last(w), "orders"))
		})
		b.Run(fmt.Sprint("refused/", n), func(b *testing.B) {
			p, f := mustCompile(b, crowded(n)), w.facts(w.workload(map[string]any{"repo": "stranger"}), "orders")
			b.ReportAllocs()
			for b.Loop() {
				if p.Decide(f).Allowed() {
					b.Fatal("allowed")
				}
			}
		})
	}
}

// BenchmarkRulesUnlucky is a refusal by rules that nothing tells apart: without conditions, and with conditions that read
// all of a thousand groups.
func BenchmarkRulesUnlucky(b *testing.B) {
	w := newWorld(b)
	var groups []string
	for i := range 1000 {
		groups = append(groups, fmt.Sprint("g", i))
	}
	for name, when := range map[string]string{"plain": "", "groups": "workload.attr.groups.exists(g, g == 'nobody')"} {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				p := mustCompile(b, policy.Config{Issuers: issuers(), Targets: targets(), Rules: alike(n, policy.Allow, when)})
				f := w.facts(w.workload(map[string]any{"repo": "shop", "groups": groups}), "orders", "write")
				for b.Loop() {
					if p.Decide(f).Allowed() {
						b.Fatal("allowed")
					}
				}
			})
		}
	}
}

func benchmark(b *testing.B, p *policy.Policy, f policy.Facts) {
	b.ReportAllocs()
	for b.Loop() {
		if !p.Decide(f).Allowed() {
			b.Fatal("refused")
		}
	}
}

// shared is how many issuers call themselves the same in BenchmarkIssuers: only the audience tells them apart.
const shared = 4

// crowd is n issuers with a key and a rule each, and tokens of some of them.
type crowd struct {
	trust  *federation.Trust
	policy *policy.Policy
	tokens []secret.Value
	other  secret.Value // by one of the issuers, for the audience of none
	now    time.Time
}

func newCrowd(b *testing.B, n int) *crowd {
	const most = 256 // tokens
	c := &crowd{now: time.Now().Truncate(time.Second)}
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	b.Cleanup(cache.Close)
	cfg := policy.Config{Targets: []policy.Target{{Name: "orders", Scopes: []string{"read"}}}}
	var list []federation.Issuer
	for i := range n {
		name, aud := fmt.Sprint("issuer-", i), fmt.Sprint("https://sts.example/", i%shared)
		iss := federationtest.NewNamed(b, fmt.Sprintf("https://platform-%d.example", i/shared), jose.ES256)
		keys, err := cache.Source(federation.KeySpec{Issuer: iss.URL(), Inline: iss.JWKS(), Algorithms: iss.Algorithms()})
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, federation.Issuer{
			TrustDomain: "prod.example", Name: name, URL: iss.URL(), Audiences: []string{aud},
			Algorithms: iss.Algorithms(), Keys: keys, Adapter: platform{},
		})
		cfg.Issuers = append(cfg.Issuers, policy.Issuer{TrustDomain: "prod.example", Name: name, Schema: schema})
		cfg.Rules = append(cfg.Rules, policy.Rule{
			Name: fmt.Sprint("rule-", i), Effect: policy.Allow, Targets: []string{"orders"}, Scopes: []string{"read"},
			Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: name, Where: anyRepo},
		})
		if i%max(n/most, 1) == 0 || i == n-1 {
			c.tokens = append(c.tokens, iss.Sign(iss.Claims(c.now, "app", aud).With("repo", "shop")))
			c.other = iss.Sign(iss.Claims(c.now, "app", "https://sts.example/none").With("repo", "shop"))
		}
	}
	var err error
	if c.trust, err = federation.NewTrust(list, nil); err != nil {
		b.Fatal(err)
	}
	c.policy = mustCompile(b, cfg)
	return c
}

// BenchmarkIssuers is a token verified and a decision about it, among more and more issuers: with its signature, with one
// that was verified before, and refused because no issuer is for that audience.
func BenchmarkIssuers(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		c := newCrowd(b, n)
		decide := func(b *testing.B, trust *federation.Trust) {
			i := 0
			for b.Loop() {
				who, err := trust.Identify(context.Background(), c.tokens[i%len(c.tokens)], c.now)
				if err != nil {
					b.Fatal(err)
				}
				if d := c.policy.Decide(policy.Facts{Workload: who, Want: policy.Want{Audiences: []string{"orders"}}, Time: c.now}); !d.Allowed() {
					b.Fatal(d.Reasons())
				}
				i++
			}
		}
		b.Run(fmt.Sprint("verified/", n), func(b *testing.B) { decide(b, c.trust) })
		b.Run(fmt.Sprint("again/", n), func(b *testing.B) {
			trust := c.trust.Caching()
			for range 2 {
				for _, raw := range c.tokens {
					if _, err := trust.Identify(context.Background(), raw, c.now); err != nil {
						b.Fatal(err)
					}
				}
			}
			decide(b, trust)
		})
		b.Run(fmt.Sprint("refused/", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := c.trust.Identify(context.Background(), c.other, c.now); !errors.Is(err, federation.ErrAudience) {
					b.Fatal(err)
				}
			}
		})
	}
}
