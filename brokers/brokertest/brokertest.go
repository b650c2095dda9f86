// Package brokertest is the one suite that every broker passes, and the orders it is tested with. An order
// here is a real one: its workload was verified, its grant was decided.
package brokertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// Spec says what an order grants.
type Spec struct {
	Target   policy.Target
	Scopes   []string // of the target's
	Subject  string   // last segments of the workload's path; "" means "app"
	Lifetime time.Duration
	Lease    brokers.Lease // ID and Family default to "lease" and "family"
}

// NewOrder verifies a token, decides, and orders, all for real.
func NewOrder(t testing.TB, now time.Time, s Spec) brokers.Order {
	t.Helper()
	issuer := federationtest.NewNamed(t, "https://platform.example", jose.ES256)
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: "prod.example", Name: "platform", URL: issuer.URL(), Audiences: []string{"https://sts.example"},
		Algorithms: issuer.Algorithms(), Keys: issuer.KeySet(), Adapter: bySubject{},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	subject := s.Subject
	if subject == "" {
		subject = "app"
	}
	claims := issuer.Claims(now, subject, "https://sts.example").With("exp", now.Add(time.Hour).Unix())
	who, err := trust.Identify(context.Background(), issuer.Sign(claims), now)
	if err != nil {
		t.Fatal(err)
	}
	p, problems := policy.New(policy.Config{
		Issuers: []policy.Issuer{{TrustDomain: "prod.example", Name: "platform", Schema: bySubject{}.Schema()}},
		Targets: []policy.Target{s.Target},
		Rules: []policy.Rule{{
			Name: "grant", Effect: policy.Allow, Targets: []string{s.Target.Name}, Scopes: s.Scopes, Lifetime: s.Lifetime,
			Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "platform",
				Where: map[string]policy.Matcher{"subject": {OneOf: []federation.Value{federation.String(subject)}}}},
		}},
	})
	if len(problems) > 0 {
		t.Fatalf("the spec does not load: %v", problems)
	}
	grant, ok := p.Decide(policy.Facts{Workload: who, Want: policy.Want{Audiences: []string{s.Target.Name}}, Time: now}).Grant()
	if !ok {
		t.Fatal("the spec grants nothing")
	}
	lease := s.Lease
	if lease.ID == "" {
		lease.ID = "lease"
	}
	if lease.Family == "" {
		lease.Family = "family"
	}
	order, err := brokers.NewOrder(grant, lease, now)
	if err != nil {
		t.Fatal(err)
	}
	return order
}

type bySubject struct{}

func (bySubject) Schema() federation.Schema {
	return federation.Schema{{Name: "subject", Type: federation.TypeString}}
}

func (bySubject) Name(c federation.Claims) (federation.Naming, error) {
	var v struct {
		Sub string `json:"sub"`
	}
	if err := c.Decode(&v); err != nil {
		return federation.Naming{}, err
	}
	return federation.Naming{Path: v.Sub, Attributes: federation.Attributes{"subject": federation.String(v.Sub)}}, nil
}

// Run runs the suite against the broker of a target that defines the scopes read and write.
func Run(t *testing.T, target policy.Target, b brokers.Broker) { run(t, target, b, time.Second) }

// run allows credentials to end early by so much.
func run(t *testing.T, target policy.Target, b brokers.Broker, early time.Duration) {
	ctx, now := context.Background(), time.Now().Truncate(time.Second)
	t.Run("the zero order is refused", func(t *testing.T) {
		if c, err := b.Mint(ctx, brokers.Order{}); !errors.Is(err, brokers.ErrZeroOrder) || !c.Value.IsZero() {
			t.Errorf("Mint made something of nothing (%v), want ErrZeroOrder", err)
		}
	})
	t.Run("a credential is what was ordered and no more", func(t *testing.T) {
		least := max(target.MinLifetime, time.Minute)
		for _, lifetime := range []time.Duration{least, least + 30*time.Second + 400*time.Millisecond, least + 5*time.Minute} {
			o := NewOrder(t, now, Spec{Target: target, Scopes: []string{"read"}, Lifetime: lifetime})
			c, err := b.Mint(ctx, o)
			if err != nil {
				t.Fatalf("lifetime %s: %v", lifetime, err)
			}
			if c.Value.IsZero() || c.Type == "" || c.TokenType == "" || c.Audience == "" {
				t.Errorf("lifetime %s: the credential lacks its value, type or audience: %+v", lifetime, c)
			}
			if c.Expires.After(o.Grant().Expires()) || c.Expires.Before(o.Grant().Expires().Add(-early)) {
				t.Errorf("lifetime %s: it expires at %s, the grant at %s", lifetime, c.Expires, o.Grant().Expires())
			}
			if !slices.Equal(c.Scopes, []string{"read"}) {
				t.Errorf("lifetime %s: scopes are %v, want read alone", lifetime, c.Scopes)
			}
		}
	})
	t.Run("two leases are two credentials", func(t *testing.T) {
		first, err := b.Mint(ctx, NewOrder(t, now, Spec{Target: target, Scopes: []string{"read"}, Lease: brokers.Lease{ID: "one"}}))
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.Mint(ctx, NewOrder(t, now, Spec{Target: target, Scopes: []string{"read"}, Lease: brokers.Lease{ID: "two"}}))
		if err != nil {
			t.Fatal(err)
		}
		if first.Value.Equal(second.Value) {
			t.Error("two leases share one credential")
		}
	})
}
