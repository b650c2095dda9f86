package federationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Claims are the claims of a token to be signed.
type Claims map[string]any

// With returns a copy with one claim set.
func (c Claims) With(name string, value any) Claims {
	out := maps.Clone(c)
	out[name] = value
	return out
}

// Without returns a copy without the named claims.
func (c Claims) Without(names ...string) Claims {
	out := maps.Clone(c)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// Claims returns the usual claims of a token that lives ten minutes from now.
func (i *Issuer) Claims(now time.Time, subject, audience string) Claims {
	return Claims{
		"iss": i.url, "sub": subject, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
}

// Option changes how a token is signed.
type Option func(*token)

type token struct {
	key    Key
	header map[string]any
}

// WithKey signs with a key, the issuer's own or not.
func WithKey(k Key) Option {
	return func(t *token) {
		t.key = k
		t.header["alg"], t.header["kid"] = string(k.Algorithm), k.ID
	}
}

// WithHeader sets one header member, alg included; the signature is still by the key.
func WithHeader(name string, value any) Option {
	return func(t *token) { t.header[name] = value }
}

// WithoutHeader leaves one header member out.
func WithoutHeader(name string) Option {
	return func(t *token) { delete(t.header, name) }
}

// Sign returns a token with these claims.
func (i *Issuer) Sign(claims Claims, options ...Option) secret.Value {
	i.t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatalf("marshalling claims: %v", err)
	}
	return i.SignPayload(payload, options...)
}

// SignPayload returns a token over any bytes.
func (i *Issuer) SignPayload(payload []byte, options ...Option) secret.Value {
	i.t.Helper()
	k := i.Key()
	t := token{key: k, header: map[string]any{"alg": string(k.Algorithm), "kid": k.ID, "typ": "JWT"}}
	for _, o := range options {
		o(&t)
	}
	header, err := json.Marshal(t.header)
	if err != nil {
		i.t.Fatalf("marshalling a header: %v", err)
	}
	return SignRaw(i.t, t.key, header, payload)
}

// SignRaw returns a token over any header and payload bytes, correctly signed for k.Algorithm.
func SignRaw(t testing.TB, k Key, header, payload []byte) secret.Value {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(payload)
	return secret.New(input + "." + encode(Signature(t, k, []byte(input))))
}

// Signature returns the JWS signature of input (RFC 7518 section 3, RFC 8037).
func Signature(t testing.TB, k Key, input []byte) []byte {
	t.Helper()
	hash := map[jose.SignatureAlgorithm]crypto.Hash{
		jose.RS256: crypto.SHA256, jose.PS256: crypto.SHA256, jose.ES256: crypto.SHA256,
		jose.RS384: crypto.SHA384, jose.PS384: crypto.SHA384, jose.ES384: crypto.SHA384,
		jose.RS512: crypto.SHA512, jose.PS512: crypto.SHA512, jose.ES512: crypto.SHA512,
	}[k.Algorithm]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	var out []byte
	var err error
	switch signer := k.Signer.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(signer, input)
	case *rsa.PrivateKey:
		if k.Algorithm[0] == 'P' {
			out, err = rsa.SignPSS(rand.Reader, signer, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			out, err = rsa.SignPKCS1v15(rand.Reader, signer, hash, digest)
		}
	case *ecdsa.PrivateKey:
		r, s, signErr := ecdsa.Sign(rand.Reader, signer, digest)
		if err = signErr; err == nil {
			size := (signer.Curve.Params().BitSize + 7) / 8
			out = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	default:
		t.Fatalf("signing: key %s has no signer", k.ID)
	}
	if err != nil {
		t.Fatalf("signing: %v", err)
	}
	return out
}

// HMAC returns a token signed with HS256 over a shared secret, for attacks that use a public key as one.
func HMAC(t testing.TB, key, header, payload []byte) secret.Value {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(payload)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(input))
	return secret.New(input + "." + encode(mac.Sum(nil)))
}

// Identify signs claims exactly as given, verifies the token for real and names it with adapter: the way
// to test an adapter. iss and aud are taken from the claims, the time is one second before exp. The
// configured names are prod.example/<name>. Claims whose iss or aud no configuration can have are an error too.
func Identify(t testing.TB, name string, adapter federation.Adapter, claims []byte) (federation.Workload, error) {
	t.Helper()
	var c struct {
		Issuer   string  `json:"iss"`
		Audience any     `json:"aud"`
		Expires  float64 `json:"exp"`
	}
	if err := json.Unmarshal(claims, &c); err != nil {
		return federation.Workload{}, fmt.Errorf("claims that no token has: %w", err)
	}
	aud, _ := c.Audience.(string)
	if list, ok := c.Audience.([]any); ok && len(list) > 0 {
		aud, _ = list[0].(string)
	}
	if aud == "" {
		aud = "https://sts.example"
	}
	iss := NewNamed(t, c.Issuer, jose.EdDSA)
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: "prod.example", Name: name, URL: c.Issuer, Audiences: []string{aud},
		Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: adapter,
		MaxLifetime: federation.MaxMaxLifetime, ManyAudiences: true,
	}}, nil)
	if err != nil {
		return federation.Workload{}, fmt.Errorf("an issuer that cannot be configured: %w", err)
	}
	return trust.Identify(t.Context(), iss.SignPayload(claims), time.Unix(int64(c.Expires)-1, 0))
}

// RandomID returns an id that no key has.
func RandomID() string { return rand.Text() }
