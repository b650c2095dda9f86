// Package rehearsal answers cases of a policy before anybody asks for real: token claims in, decision out. A case
// takes the way of an exchange up to the decision: its claims are signed by a key that lives for one run and
// stands in for the issuer's, then door one verifies and names, and door two decides. Nothing is minted, marked
// or recorded, and nobody is contacted.
package rehearsal

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/config"
)

// Outcome is an answer: a grant of a rule, or a refusal.
type Outcome struct {
	Rule     string        `json:"rule,omitempty"`
	Scopes   []string      `json:"scopes,omitempty"`
	Lifetime time.Duration `json:"lifetime,omitempty"` // nanoseconds
	Refused  string        `json:"refused,omitempty"`  // the error code
	Why      string        `json:"why,omitempty"`
	Near     *policy.Near  `json:"near,omitempty"`
}

// Result is how one case went.
type Result struct {
	Case    config.Case
	Got     Outcome
	Differs []string // what is not as expected: "allow", "scopes", "lifetime", "refuse"; none: the case passes
}

// OK reports whether the case passes.
func (r Result) OK() bool { return len(r.Differs) == 0 }

// Run answers every case. The error is about the set as a whole and never about a case.
func Run(ctx context.Context, set *config.Set, cases []config.Case) ([]Result, error) {
	s, err := newStage(set)
	if err != nil {
		return nil, err
	}
	out := make([]Result, len(cases))
	for i, c := range cases {
		got, err := s.play(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Source, err)
		}
		out[i] = Result{Case: c, Got: got, Differs: compare(c.Expect, got)}
	}
	return out, nil
}

// stage is a set whose issuers all sign with one key of ours.
type stage struct {
	set   *config.Set
	trust *federation.Trust
	key   *ecdsa.PrivateKey
}

func newStage(set *config.Set) (*stage, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for the cases: %w", err)
	}
	list := make([]federation.Issuer, len(set.Issuers))
	for i, is := range set.Issuers {
		list[i] = is.Issuer
		list[i].Keys, list[i].Algorithms = verifier{key}, []jose.SignatureAlgorithm{jose.ES256}
	}
	trust, err := federation.NewTrust(list, nil)
	if err != nil {
		return nil, fmt.Errorf("compiling the issuers: %w", err)
	}
	return &stage{set, trust, key}, nil
}

// verifier is the key set of every issuer on the stage.
type verifier struct{ key *ecdsa.PrivateKey }

// VerifySignature implements oidc.KeySet.
func (v verifier) VerifySignature(_ context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	return jws.Verify(v.key.Public())
}

func (s *stage) play(ctx context.Context, c config.Case) (Outcome, error) {
	f := policy.Facts{Want: c.Want, Time: c.Time, Address: c.Address}
	for _, t := range []struct {
		token *config.CaseToken
		who   *federation.Workload
		role  string
	}{{&c.Subject, &f.Workload, "subject token"}, {c.Actor, &f.Actor, "actor token"}} {
		if t.token == nil {
			continue
		}
		raw, err := s.sign(*t.token, c.Time)
		if err != nil {
			return Outcome{}, err
		}
		who, err := s.trust.Identify(ctx, raw, c.Time)
		if rejected := (*federation.RejectedError)(nil); errors.As(err, &rejected) {
			return Outcome{Refused: config.RefuseRequest, Why: t.role + ": " + rejected.Error()}, nil
		}
		if err != nil {
			return Outcome{}, err
		}
		*t.who = who
	}
	d := s.set.Policy.Decide(f)
	out := Outcome{Why: strings.Join(d.Reasons(), "; ")}
	if g, ok := d.Grant(); ok {
		life := g.Expires().Sub(c.Time)
		if t, _ := s.set.Policy.Target(g.Target()); life < t.MinLifetime {
			return Outcome{Refused: config.RefuseRequest, Why: fmt.Sprintf("rule %s grants %s, which ends with the token; a credential for %s lives %s at least: the token has to live longer, or the rule to open outlives_subject", g.Rule(), life, g.Target(), t.MinLifetime)}, nil
		}
		out.Rule, out.Scopes, out.Lifetime = g.Rule(), g.Scopes(), life
		return out, nil
	}
	out.Refused = config.RefuseTarget
	if d.Refusal() == policy.RefusedScope {
		out.Refused = config.RefuseScope
	}
	if near, ok := d.Near(); ok {
		out.Near = &near
	}
	return out, nil
}

// sign makes the token of a case. Claims that the case does not set follow from its time.
func (s *stage) sign(t config.CaseToken, now time.Time) (secret.Value, error) {
	is := s.set.Issuers[t.Issuer]
	claims := map[string]json.RawMessage{}
	if err := json.Unmarshal(t.Claims, &claims); err != nil {
		return secret.Value{}, fmt.Errorf("reading claims: %w", err)
	}
	issued := now.Add(-t.Age)
	expires := issued.Add(is.MaxLifetime)
	if t.ExpiresIn > 0 {
		expires = now.Add(t.ExpiresIn)
	}
	for name, value := range map[string]any{"iat": issued.Unix(), "exp": expires.Unix(), "jti": "case"} {
		if _, ok := claims[name]; !ok {
			claims[name], _ = json.Marshal(value) // a number or a plain string
		}
	}
	maps.DeleteFunc(claims, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	payload, err := json.Marshal(claims)
	if err != nil {
		return secret.Value{}, fmt.Errorf("writing claims: %w", err)
	}
	options := &jose.SignerOptions{}
	if typ := typeOf(is.Types); typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, options)
	if err != nil {
		return secret.Value{}, fmt.Errorf("signing: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return secret.Value{}, fmt.Errorf("signing: %w", err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		return secret.Value{}, fmt.Errorf("signing: %w", err)
	}
	return secret.New(raw), nil
}

// typeOf is a typ that the issuer's tokens have.
func typeOf(types []string) string {
	if len(types) == 0 {
		return "JWT"
	}
	return types[0]
}

func compare(want config.Expectation, got Outcome) []string {
	var out []string
	if want.Allow != got.Rule {
		out = append(out, "allow")
	}
	if want.Refuse != got.Refused {
		out = append(out, "refuse")
	}
	if want.Scopes != nil && !slices.Equal(want.Scopes, got.Scopes) {
		out = append(out, "scopes")
	}
	if want.Lifetime != 0 && want.Lifetime != got.Lifetime {
		out = append(out, "lifetime")
	}
	return out
}
