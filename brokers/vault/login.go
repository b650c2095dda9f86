package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// assertionLifetime bounds the JWT that is shown to Vault: it is used at once, and Vault allows a minute of skew beyond.
const assertionLifetime = 60 * time.Second

// assertion is the JWT that we show to Vault. Its subject is the target, not the workload, so that a role can be bound to
// it exactly; who it is for stands beside, for Vault's audit log (claim_mappings).
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
	For      origin `json:"sallyport"`
}

// origin says for whom a login is. The revoker's has a lease and no workload.
type origin struct {
	Lease    string `json:"lease,omitempty"`
	Family   string `json:"family,omitempty"`
	Workload string `json:"workload,omitempty"`
}

// Subject is the sub of the JWT that is shown for a target.
func Subject(target string) string { return "sallyport:" + target }

// token is one that Vault gave to us.
type token struct {
	value    secret.Value
	accessor string // "" for a batch token
	life     time.Duration
	ends     time.Time // not later than it does
}

// login shows an assertion to Vault and returns the token of the role.
func (b *Broker) login(ctx context.Context, role, id string, who origin, batch bool) (token, error) {
	now := b.deps.Now()
	jwt, err := b.deps.Assertions.Sign(ctx, brokers.Header{Type: "JWT"}, assertion{
		Issuer:   b.deps.Issuer + brokers.AssertionsPath,
		Subject:  Subject(b.target.Name),
		Audience: b.settings.Audience,
		IssuedAt: now.Unix(),
		Expires:  now.Add(assertionLifetime).Unix(),
		ID:       id,
		For:      who,
	})
	if err != nil {
		return token{}, fmt.Errorf("%w: signing the assertion for Vault: %w", brokers.ErrUnavailable, err)
	}
	a, err := b.vault.do(ctx, call{what: "logging in", path: "auth/" + b.settings.mount() + "/login", body: map[string]string{"role": role, "jwt": jwt}})
	t, wrong := a.token(now)
	if err == nil {
		err = wrong
	}
	if err == nil {
		err = a.isOf(batch)
	}
	if err != nil {
		return token{}, b.abandon(ctx, t, err)
	}
	return t, nil
}

// token takes the token out of an answer. What it returns with an error is only good for dropping it.
func (a answer) token(asked time.Time) (token, error) {
	if a.Auth == nil || !printable(a.Auth.ClientToken) {
		return token{}, fmt.Errorf("%w: the answer holds no token", brokers.ErrUncertain)
	}
	life := time.Duration(a.Auth.LeaseDuration) * time.Second
	t := token{secret.New(a.Auth.ClientToken), a.Auth.Accessor, life, asked.Add(life)}
	switch {
	case a.WrapInfo != nil || a.LeaseID != "":
		return t, fmt.Errorf("%w: the answer holds a token and something else", brokers.ErrMisconfigured)
	case a.Auth.MFARequirement != nil:
		return t, fmt.Errorf("%w: the mount asks for a second factor", brokers.ErrMisconfigured)
	case a.Auth.LeaseDuration <= 0 || a.Auth.LeaseDuration > maxTokenTTL:
		return t, fmt.Errorf("%w: the token does not end; set token_explicit_max_ttl on the role", brokers.ErrMisconfigured)
	}
	return t, nil
}

// maxTokenTTL is the longest life of a login in seconds: a day beyond any grant.
const maxTokenTTL = 25 * 60 * 60

// isOf compares the token's type with what the configuration says.
func (a answer) isOf(batch bool) error {
	switch kind := a.Auth.TokenType; {
	case batch && (kind != "batch" || a.Auth.Accessor != "" || a.Auth.Renewable):
		return fmt.Errorf("%w: the role makes no batch tokens, and the scope says so; set token_type=batch", brokers.ErrMisconfigured)
	case !batch && kind != "service":
		return fmt.Errorf("%w: the role makes no service tokens, and nothing else can be revoked; set token_type=service, or say batch: true", brokers.ErrMisconfigured)
	case !batch && !printable(a.Auth.Accessor):
		return fmt.Errorf("%w: the token has no accessor, so it could not be revoked", brokers.ErrMisconfigured)
	}
	return nil
}

// dropTime is how long dropping a token may take when its caller has given up.
const dropTime = 3 * time.Second

// abandon drops a token that nobody will get, with whatever was made under it, and returns why. When it cannot be
// dropped, something may exist for as long as the token lives.
func (b *Broker) abandon(ctx context.Context, t token, why error) error {
	if t.value.IsZero() {
		return why
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	if _, err := b.vault.do(ctx, call{what: "dropping the token", path: "auth/token/revoke-self", token: t.value, body: struct{}{}}); err != nil {
		return fmt.Errorf("%w; and its token could not be dropped: %w", why, brokers.ErrUncertain)
	}
	if errors.Is(why, brokers.ErrUncertain) {
		return fmt.Errorf("%w: %s; its token was dropped, and what it had made", brokers.ErrUnavailable, why.Error())
	}
	return why
}

func printable(s string) bool {
	return s != "" && len(s) <= 4096 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
