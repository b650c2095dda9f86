package kubernetes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// login returns the bearer token of one request.
type login func(ctx context.Context) (secret.Value, error)

var (
	errNoLogin   = errors.New("the token that logs in to the API server cannot be used")
	errNotSigned = errors.New("the assertion that logs in to the API server could not be signed")
)

// assertionLife covers a request and clocks that differ by as much as we tolerate of others.
const assertionLife = 2 * time.Minute

// assertion is who we are to the API server (RFC 7519). Its issuer signs nothing that is handed out, so that no
// workload can have such a token.
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	IssuedAt int64  `json:"iat"`
	ID       string `json:"jti"`
}

// Subject returns the sub of the assertions of a target: each target is a user of its own, with rights of its own.
func Subject(target string) string { return "sallyport:" + target }

func newLogin(t brokers.Target, s Settings, d brokers.Deps) (login, error) {
	if d.Now == nil || d.Issuer == "" {
		return nil, fmt.Errorf("kubernetes broker of target %s needs a clock and an issuer", t.Name)
	}
	if s.Assertion == nil {
		if t.Secret == nil {
			return nil, fmt.Errorf("kubernetes broker of target %s needs its token", t.Name)
		}
		return func(context.Context) (secret.Value, error) { return readToken(t, s.Token) }, nil
	}
	if d.Assertions == nil {
		return nil, fmt.Errorf("kubernetes broker of target %s needs a signer of assertions", t.Name)
	}
	return func(ctx context.Context) (secret.Value, error) {
		now := d.Now()
		token, err := d.Assertions.Sign(ctx, brokers.Header{Type: "JWT"}, assertion{
			Issuer:   d.Issuer + brokers.AssertionsPath,
			Subject:  Subject(t.Name),
			Audience: s.Assertion.Audience,
			Expires:  now.Add(assertionLife).Unix(),
			IssuedAt: now.Unix(),
			ID:       rand.Text(),
		})
		if err != nil {
			return secret.Value{}, fmt.Errorf("%w: %w", errNotSigned, err)
		}
		return secret.New(token), nil
	}, nil
}

// readToken reads the token anew: the kubelet replaces it long before it ends.
func readToken(t brokers.Target, ref secret.Ref) (secret.Value, error) {
	v, err := t.Secret(ref)
	if err != nil {
		return secret.Value{}, fmt.Errorf("%w: %w", errNoLogin, err)
	}
	if v.IsZero() || strings.ContainsFunc(v.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return secret.Value{}, fmt.Errorf("%w: it is not one word of printable characters", errNoLogin)
	}
	return v, nil
}
