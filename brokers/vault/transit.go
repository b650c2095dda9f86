package vault

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// TransitSettings says which transit engine keeps keys of ours, and how we log in there. That login cannot be by a JWT of
// ours, which one of these keys would have to sign: it is by the identity that the platform gives to this process.
type TransitSettings struct {
	Address    string
	Namespace  string        // "" for the root
	CAFile     string        // "" for the system's; an absolute path
	Timeout    time.Duration // of one call
	LoginMount string        // of a jwt or kubernetes auth method, without auth/
	Role       string
	JWTFile    string // the platform's JWT, read anew at each login; an absolute path
	Mount      string // of the transit engine
	UnsealKey  string // name of the key that unseals; "" for none
	SigningKey string // what the names of keys that sign begin with; "" for none
}

// Check returns what is wrong with s, each with the name of the setting: address, namespace, ca_file, timeout,
// login.mount, login.role, mount, unseal_key and signing_keys. It reads ca_file alone.
func (s TransitSettings) Check() []brokers.Problem {
	c := new(checking)
	c.server(s.Address, s.Namespace)
	if _, err := s.roots(); err != nil {
		c.refuse("ca_file", "ca_file: %v", err)
	}
	if s.Timeout < time.Second || s.Timeout > maxTimeout {
		c.refuse("timeout", "timeout is outside 1s to %s; a caller waits for it", maxTimeout)
	}
	c.mount("login.mount", s.LoginMount, "auth")
	c.mount("mount", s.Mount, "secrets")
	if !nameShape.MatchString(s.Role) {
		c.refuse("login.role", "role %q is no name of a role: letters, digits, '.', '_' and '-'", s.Role)
	}
	for _, k := range []struct{ at, name string }{{"unseal_key", s.UnsealKey}, {"signing_keys", s.SigningKey}} {
		if k.name != "" && !nameShape.MatchString(k.name) {
			c.refuse(k.at, "%s %q is no name of a key: letters, digits, '.', '_' and '-'", k.at, k.name)
		}
	}
	return c.problems
}

func (s TransitSettings) roots() (*x509.CertPool, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	return roots(s.CAFile)
}

// Transit is Vault's transit engine: it makes keys that never leave Vault, signs with them, and unseals. It is safe for
// concurrent use.
type Transit struct {
	TransitSettings
	vault *client
	now   func() time.Time

	mu    sync.Mutex // one login at a time
	login token
	from  time.Time // when login was made
	rest  time.Time // no other login before, when this one is refused
}

// NewTransit connects to nothing.
func NewTransit(s TransitSettings, now func() time.Time) (*Transit, error) {
	if problems := s.Check(); len(problems) > 0 {
		return nil, errors.New(problems[0].Message)
	}
	pool, err := s.roots()
	if err != nil {
		return nil, err
	}
	c, err := newClient(s.Address, s.Namespace, pool, s.Timeout)
	if err != nil {
		return nil, err
	}
	return &Transit{TransitSettings: s, vault: c, now: now}, nil
}

// Close drops the login and closes the connections that are idle.
func (t *Transit) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.drop(context.Background())
	t.vault.close()
	return err
}

// drop ends the login. What cannot be dropped ends by itself.
func (t *Transit) drop(ctx context.Context) error {
	old := t.login
	t.login = token{}
	if old.value.IsZero() || old.accessor == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dropTime)
	defer cancel()
	_, err := t.vault.do(ctx, call{what: "dropping the token", path: "auth/token/revoke-self", token: old.value, body: struct{}{}})
	return err
}

// maxJWT is the largest JWT that the platform gives, in bytes.
const maxJWT = 64 << 10

// token returns a login with a third of its life to go at least. refused is one that Vault does not take any more.
func (t *Transit) token(ctx context.Context, refused secret.Value) (secret.Value, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	usable := !t.login.value.IsZero() && now.Before(t.login.ends.Add(-t.login.life/3)) && !now.Before(t.from)
	if usable && (t.login.value.Reveal() != refused.Reveal() || now.Before(t.rest)) {
		return t.login.value, nil
	}
	jwt, err := t.jwt()
	if err != nil {
		return secret.Value{}, err
	}
	a, err := t.vault.do(ctx, call{what: "logging in", path: "auth/" + t.LoginMount + "/login", body: map[string]string{"role": t.Role, "jwt": jwt}})
	if err != nil {
		return secret.Value{}, err
	}
	fresh, err := a.token(now)
	if err != nil {
		return secret.Value{}, err
	}
	_ = t.drop(context.WithoutCancel(ctx)) // a refused one too: it may be good, and only not for this
	t.login, t.from = fresh, now
	return fresh.value, nil
}

func (t *Transit) jwt() (string, error) {
	f, err := os.Open(t.JWTFile)
	if err != nil {
		return "", fmt.Errorf("%w: reading the JWT that logs in to Vault: %w", brokers.ErrMisconfigured, bare(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJWT))
	jwt := string(bytes.TrimSpace(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: reading the JWT that logs in to Vault: %w", brokers.ErrMisconfigured, bare(err))
	case strings.Count(jwt, ".") != 2 || strings.ContainsFunc(jwt, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%w: the file of the JWT that logs in to Vault holds none", brokers.ErrMisconfigured)
	}
	return jwt, nil
}

// ask calls the engine, and once more with another login when Vault does not take the one that is kept: it may have
// been revoked, or Vault come back without it.
func (t *Transit) ask(ctx context.Context, what, path string, body any) (answer, error) {
	var refused secret.Value
	for {
		login, err := t.token(ctx, refused)
		if err != nil {
			return answer{}, fmt.Errorf("%s: %w", what, err)
		}
		a, err := t.vault.do(ctx, call{what: what, path: t.Mount + "/" + path, token: login, body: body})
		var no *refusal
		if errors.As(err, &no) && no.status == http.StatusForbidden && refused.IsZero() {
			refused = login
			continue
		}
		if no != nil && no.status == http.StatusForbidden {
			t.forbidden()
		}
		if err == nil && (a.WrapInfo != nil || a.Auth != nil || a.LeaseID != "") {
			err = fmt.Errorf("%s: %w: the answer is not one of the transit engine's", what, brokers.ErrMisconfigured)
		}
		return a, err
	}
}

// restAfter is how long no other login is made when a new one was refused as well: it is not the login then.
const restAfter = 2 * time.Second

func (t *Transit) forbidden() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.now(); !now.Before(t.rest) || t.rest.Sub(now) > restAfter {
		t.rest = now.Add(restAfter)
	}
}

// Unseal returns what the ciphertext (vault:v1:...) says, in base64: for what transit/datakey/wrapped made, the data key.
func (t *Transit) Unseal(ctx context.Context, ciphertext secret.Value) (secret.Value, error) {
	a, err := t.ask(ctx, "unsealing", "decrypt/"+url.PathEscape(t.UnsealKey), map[string]string{"ciphertext": strings.TrimSpace(ciphertext.Reveal())})
	if err != nil {
		return secret.Value{}, err
	}
	var data struct {
		Plaintext string `json:"plaintext"`
	}
	if json.Unmarshal(a.Data, &data) != nil || data.Plaintext == "" {
		return secret.Value{}, fmt.Errorf("unsealing: %w: the answer holds no plaintext", brokers.ErrMisconfigured)
	}
	return secret.New(data.Plaintext), nil
}

// Sealed reports whether a text has the form of what the transit engine seals.
func Sealed(v secret.Value) bool { return strings.HasPrefix(v.Reveal(), "vault:v") }

// kinds are the types of key that sign, and how.
var kinds = map[jose.SignatureAlgorithm]struct {
	key, hash, scheme string
	digest            crypto.Hash // 0: the engine takes the text itself
}{
	jose.ES256: {key: "ecdsa-p256", hash: "sha2-256", digest: crypto.SHA256},
	jose.ES384: {key: "ecdsa-p384", hash: "sha2-384", digest: crypto.SHA384},
	jose.RS256: {key: "rsa-2048", hash: "sha2-256", scheme: "pkcs1v15", digest: crypto.SHA256},
	jose.PS256: {key: "rsa-2048", hash: "sha2-256", scheme: "pss", digest: crypto.SHA256},
	jose.EdDSA: {key: "ed25519"},
}

// policy is what the engine says of a key.
type policy struct {
	Type       string                     `json:"type"`
	Latest     int                        `json:"latest_version"`
	Exportable bool                       `json:"exportable"`
	Backup     bool                       `json:"allow_plaintext_backup"`
	Imported   bool                       `json:"imported_key"`
	Derived    bool                       `json:"derived"`
	Keys       map[string]json.RawMessage `json:"keys"`
}

// MakeKey makes a key, or a new version of it, and returns NAME:VERSION and its public half. A key that can be exported,
// or came from outside, is refused: others may have it.
func (t *Transit) MakeKey(ctx context.Context, set string, alg jose.SignatureAlgorithm) (string, crypto.PublicKey, error) {
	kind, ok := kinds[alg]
	if !ok || t.SigningKey == "" {
		return "", nil, fmt.Errorf("%w: no key of %s is made in Vault", brokers.ErrMisconfigured, alg)
	}
	name := strings.Join([]string{t.SigningKey, set, strings.ToLower(string(alg))}, "-")
	_, err := t.ask(ctx, "looking for key "+name, "keys/"+name, nil)
	var no *refusal
	what, path, body := "rotating key "+name, "keys/"+name+"/rotate", map[string]any{}
	if errors.As(err, &no) && no.status == http.StatusNotFound {
		what, path, body = "making key "+name, "keys/"+name, map[string]any{"type": kind.key}
	} else if err != nil {
		return "", nil, err
	}
	a, err := t.ask(ctx, what, path, body)
	if err == nil && len(a.Data) == 0 { // Vault before 1.13 says nothing
		a, err = t.ask(ctx, "looking for key "+name, "keys/"+name, nil)
	}
	if err != nil {
		return "", nil, err
	}
	var p policy
	if err := json.Unmarshal(a.Data, &p); err != nil {
		return "", nil, fmt.Errorf("%s: %w: the answer is no key", what, brokers.ErrMisconfigured)
	}
	public, err := p.public(kind.key)
	if err != nil {
		return "", nil, fmt.Errorf("key %s: %w: %w", name, brokers.ErrMisconfigured, err)
	}
	return name + ":" + strconv.Itoa(p.Latest), public, nil
}

// public returns the public half of the newest version.
func (p policy) public(kind string) (crypto.PublicKey, error) {
	switch {
	case p.Type != kind:
		return nil, fmt.Errorf("it is of type %s, not %s; use another prefix in signing_keys", strconv.Quote(p.Type), kind)
	case p.Exportable || p.Backup || p.Imported || p.Derived:
		return nil, errors.New("it can leave Vault, came from outside or is derived; use another prefix in signing_keys")
	}
	var version struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal(p.Keys[strconv.Itoa(p.Latest)], &version); err != nil || p.Latest < 1 {
		return nil, errors.New("the newest version is not in the answer")
	}
	if kind == kinds[jose.EdDSA].key {
		raw, err := base64.StdEncoding.DecodeString(version.PublicKey)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("its public half is no Ed25519 key")
		}
		return ed25519.PublicKey(raw), nil
	}
	block, rest := pem.Decode([]byte(version.PublicKey))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("its public half is no PEM")
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// SignWith has the engine sign with NAME:VERSION. Only a digest of the input goes to Vault, but for EdDSA.
func (t *Transit) SignWith(ctx context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error) {
	key, version, _ := strings.Cut(name, ":")
	v, err := strconv.Atoi(version)
	kind, ok := kinds[alg]
	if err != nil || v < 1 || !ok || !nameShape.MatchString(key) {
		return nil, fmt.Errorf("%w: key %q does not stand in Vault", brokers.ErrMisconfigured, name)
	}
	body := map[string]any{"key_version": v, "marshaling_algorithm": "jws"}
	if kind.digest != 0 {
		h := kind.digest.New()
		h.Write(input)
		input = h.Sum(nil)
		body["prehashed"] = true
	}
	if kind.scheme != "" {
		body["signature_algorithm"], body["salt_length"] = kind.scheme, "hash" // RFC 7518 section 3.5
	}
	body["input"] = base64.StdEncoding.EncodeToString(input)
	a, err := t.ask(ctx, "signing", "sign/"+key+"/"+cmp.Or(kind.hash, "sha2-256"), body)
	if err != nil {
		return nil, err
	}
	var data struct {
		Signature string `json:"signature"`
	}
	_ = json.Unmarshal(a.Data, &data) // whatever is no answer has no signature
	text, ok := strings.CutPrefix(data.Signature, "vault:v"+version+":")
	if !ok {
		return nil, fmt.Errorf("signing: %w: the answer holds no signature by version %d", brokers.ErrMisconfigured, v)
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("signing: %w: the signature is no base64url", brokers.ErrMisconfigured)
	}
	return signature, nil
}
