package github

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const (
	maxAnswer = 4 << 20 // bytes: five hundred repositories, each described at length

	// The App's JWT (RS256): it begins a minute back, for clocks, and lives less than the ten minutes that GitHub allows.
	jwtBack = time.Minute
	jwtLife = 9 * time.Minute
)

// api is GitHub's, or that of an Enterprise Server. Nothing else is contacted: no redirect is followed, and no proxy is taken
// from the environment.
type api struct {
	base string // without a slash at its end
	http *http.Client
}

func newAPI(t brokers.Target, s Settings) (*api, error) {
	base, err := parseAPI(s.API)
	if err != nil {
		return nil, fmt.Errorf("github broker of target %s: api %w", t.Name, err)
	}
	roots, err := upstream.Authorities(t, s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("github broker of target %s: %w", t.Name, err)
	}
	return &api{base, upstream.NewClient(roots, 0)}, nil // a token of ours is no reason to keep a connection
}

// parseKey reads the App's key. Its errors do not repeat it.
func parseKey(text secret.Value) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return nil, errors.New("it is no PEM; put the file there that GitHub gave, as it is")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		rsaKey, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok {
			return nil, errors.New("it is no RSA private key")
		}
		key = rsaKey
	}
	if key.N.BitLen() < 2048 {
		return nil, fmt.Errorf("it is an RSA key of %d bits; GitHub's have 2048", key.N.BitLen())
	}
	return key, nil
}

// keyOf returns what signs the App's JWT: its key, read anew each time, or whoever keeps it.
func keyOf(t brokers.Target, s Settings, kms brokers.KMS) func(context.Context) (any, error) {
	if s.TransitKey != "" {
		return func(ctx context.Context) (any, error) {
			if kms == nil {
				return nil, errors.New("there is no signing.vault")
			}
			return kept{ctx, kms, s.TransitKey}, nil
		}
	}
	return func(context.Context) (any, error) {
		text, err := t.Secret(s.PrivateKey)
		if err != nil {
			return nil, errors.New("it cannot be read")
		}
		return parseKey(text)
	}
}

// kept is a key that somebody else keeps, for one signature. It is a [jose.OpaqueSigner].
type kept struct {
	ctx  context.Context
	kms  brokers.KMS
	name string
}

func (kept) Public() *jose.JSONWebKey { return nil } // it is not needed to sign

func (kept) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{jose.RS256} }

func (k kept) SignPayload(payload []byte, alg jose.SignatureAlgorithm) ([]byte, error) {
	return k.kms.SignWith(k.ctx, k.name, alg, payload)
}

// login signs the App's JWT.
func (b *Broker) login(ctx context.Context) (string, error) {
	key, err := b.key(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: the App's key: %w", brokers.ErrMisconfigured, err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("%w: the App's key does not sign", brokers.ErrMisconfigured)
	}
	now := b.now()
	payload, err := json.Marshal(map[string]any{"iss": b.app, "iat": now.Add(-jwtBack).Unix(), "exp": now.Add(jwtLife).Unix()})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	switch {
	case errors.Is(err, brokers.ErrUnavailable):
		return "", fmt.Errorf("signing with the App's key: %w", err)
	case err != nil:
		return "", fmt.Errorf("%w: the App's key does not sign: %w", brokers.ErrMisconfigured, err)
	}
	return jws.CompactSerialize()
}

// statusError is an answer that is not the one that was expected.
type statusError struct {
	code    int
	limited bool // because of a rate limit
}

func (e *statusError) Error() string {
	if e.limited {
		return fmt.Sprintf("the API answers %d: too many requests", e.code)
	}
	return fmt.Sprintf("the API answers %d", e.code)
}

// call sends one request with a bearer, in as its body when it is not nil, and returns the body of the answer if its code is
// want.
func (a *api) call(ctx context.Context, method, path, bearer string, in any, want int) ([]byte, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := upstream.Do(ctx, a.http, req, maxAnswer)
	if err != nil {
		return nil, err
	}
	if res.Status != want {
		limited := res.Status == http.StatusTooManyRequests ||
			res.Status == http.StatusForbidden && (res.Header.Get("X-Ratelimit-Remaining") == "0" || res.Header.Get("Retry-After") != "")
		return nil, &statusError{res.Status, limited}
	}
	return res.Body, nil
}

// classOf returns what the error of a mint means to callers of brokers. It is ErrUncertain unless it proves that nothing was
// made.
func classOf(err error) error {
	var s *statusError
	switch {
	case errors.Is(err, upstream.ErrNotSent):
		return brokers.ErrUnavailable
	case !errors.As(err, &s):
		return brokers.ErrUncertain
	case s.limited:
		return brokers.ErrUnavailable
	case s.code >= 300 && s.code < 500:
		return brokers.ErrMisconfigured // our key, the installation, a permission or repository that it does not have
	default:
		return brokers.ErrUncertain // 5xx: a proxy that lost the answer says the same
	}
}
