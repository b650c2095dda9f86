package vault

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/github/githubtest"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/test/deployment"
)

// kms is a Vault that was told what docs/keys-in-vault.md says, and the platform that it knows this process by.
type kms struct {
	*Server
	platform *federationtest.Issuer
	sealed   string // key-encryption key
}

func newKMS(tb testing.TB) *kms {
	tb.Helper()
	k := &kms{Server: StartVault(tb), platform: federationtest.NewNamed(tb, "https://cluster.prod.example", jose.ES256)}
	if _, err := k.Root.Logical().Write("sys/auth/platform", map[string]any{"type": "jwt"}); err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.platform.Key().Signer.Public())
	if err != nil {
		tb.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if _, err := k.Root.Logical().Write("auth/platform/config", map[string]any{"jwt_validation_pubkeys": []string{public}, "bound_issuer": k.platform.URL()}); err != nil {
		tb.Fatal(err)
	}
	k.sealed = k.interpret(tb, documented(tb))
	if !vault.Sealed(secret.New(k.sealed)) {
		tb.Fatal("the last command of the documentation prints no sealed key")
	}
	return k
}

// documented returns the commands of docs/keys-in-vault.md.
func documented(tb testing.TB) string {
	tb.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "keys-in-vault.md"))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```vault\n")
	text, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		tb.Fatal("docs/keys-in-vault.md shows no commands")
	}
	return text
}

// jwt is what the platform gives to this process.
func (k *kms) jwt() string {
	return k.platform.Sign(k.platform.Claims(time.Now(), "system:serviceaccount:sallyport:sallyport", "https://vault.internal.example")).Reveal()
}

// client logs in as the documentation says.
func (k *kms) client(tb testing.TB) *vault.Transit {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "jwt")
	if err := os.WriteFile(path, []byte(k.jwt()), 0o600); err != nil {
		tb.Fatal(err)
	}
	t, err := vault.NewTransit(vault.TransitSettings{
		Address: k.Address, Timeout: 10 * time.Second, LoginMount: "platform", Role: "sallyport", JWTFile: path, Mount: "sallyport", UnsealKey: "seal", SigningKey: "sign",
	}, time.Now)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = t.Close() })
	return t
}

// open opens keys of one deployment that stand in Vault.
func (k *kms) open(tb testing.TB, dir string, t *vault.Transit, algorithms ...jose.SignatureAlgorithm) *keys.Keys {
	tb.Helper()
	plain, err := t.Unseal(tb.Context(), secret.New(k.sealed))
	if err != nil {
		tb.Fatal(err)
	}
	kek, err := keys.NewKEK(plain)
	if err != nil {
		tb.Fatal(err)
	}
	sealer, err := keys.NewSealer(kek)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := keys.Open(tb.Context(), keys.Config{
		Dir: dir, Sealer: sealer, KMS: t, Now: time.Now,
		Plan: keys.Plan{Algorithms: algorithms, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore, InKMS: true},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// verify looks a token's key up in what is published.
func verify(tb testing.TB, s *keys.Signers, token string, alg jose.SignatureAlgorithm) {
	tb.Helper()
	jws, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{alg})
	if err != nil {
		tb.Fatal(err)
	}
	found := s.Published().Set.Key(jws.Signatures[0].Header.KeyID)
	if len(found) != 1 || !found[0].IsPublic() {
		tb.Fatalf("%d keys are published under the kid of the token, want a public one", len(found))
	}
	if _, err := jws.Verify(found[0]); err != nil {
		tb.Errorf("a verifier does not take a token of %s: %v", alg, err)
	}
}

func TestKeysOfEveryAlgorithmSignInVault(t *testing.T) {
	k := newKMS(t)
	transit, dir := k.client(t), t.TempDir()
	all := k.open(t, dir, transit, keys.Supported()...)
	for _, alg := range keys.Supported() {
		token, err := all.Tokens().Sign(t.Context(), keys.Header{Algorithm: string(alg), Type: "at+jwt"}, map[string]any{"sub": "checkout"})
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		verify(t, all.Tokens(), token, alg)
		if err := all.Rotate(t.Context(), keys.Rotation{Algorithm: alg, Now: true}); err != nil {
			t.Fatalf("rotating %s: %v", alg, err)
		}
		next, err := all.Tokens().Sign(t.Context(), keys.Header{Algorithm: string(alg), Type: "at+jwt"}, map[string]any{"sub": "checkout"})
		if err != nil {
			t.Fatalf("%s after its rotation: %v", alg, err)
		}
		verify(t, all.Tokens(), next, alg)
		verify(t, all.Tokens(), token, alg)
		if header, _, _ := strings.Cut(token, "."); strings.HasPrefix(next, header+".") {
			t.Errorf("%s: the same key signs after its rotation", alg)
		}
	}
	if n := len(all.Tokens().Published().Set.Keys); n != 2*len(keys.Supported()) {
		t.Errorf("%d keys are published, want two of each algorithm", n)
	}
	if err := all.KMS(); err != nil {
		t.Errorf("all is well, and it says %v", err)
	}
	// The same keys, by a process that starts anew.
	again := k.open(t, dir, k.client(t), keys.Supported()...)
	token, err := again.Assertions().Sign(t.Context(), keys.Header{Type: "JWT"}, map[string]any{"sub": "sallyport:orders"})
	if err != nil {
		t.Fatal(err)
	}
	verify(t, all.Assertions(), token, jose.ES256)
	// Nobody gets them out, not with this login and, as they are, not with any.
	for _, path := range []string{"sallyport/export/signing-key/sign-tokens-es256", "sallyport/backup/sign-tokens-es256"} {
		if s, err := k.Root.Logical().Read(path); err == nil {
			t.Errorf("%s gives %v", path, s)
		}
	}
}

// What the login may do is what the documentation grants, and no more.
func TestTheLoginCannotLoosenItsKeys(t *testing.T) {
	k := newKMS(t)
	_ = k.open(t, t.TempDir(), k.client(t), jose.ES256)
	login, err := k.Root.Logical().Write("auth/platform/login", map[string]any{"role": "sallyport", "jwt": k.jwt()})
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, k.Address, login.Auth.ClientToken)
	for path, body := range map[string]map[string]any{
		"sallyport/keys/sign-tokens-es256/config": {"exportable": true, "allow_plaintext_backup": true},
		"sallyport/keys/sign-tokens-es256/trim":   {"min_available_version": 1},
		"sallyport/keys/sign-tokens-es384/import": {"ciphertext": "AAAA"},
		"sallyport/keys/sign-tokens-es384":        {"type": "ecdsa-p384", "exportable": true},
		"sallyport/encrypt/seal":                  {"plaintext": "AAAA"},
		"sallyport/rewrap/seal":                   {"ciphertext": "AAAA"},
		"sallyport/datakey/plaintext/seal":        {},
		"sallyport/restore/sign-tokens-es384":     {"backup": "AAAA"},
		"sys/policies/acl/sallyport-keys":         {"policy": `path "*" { capabilities = ["sudo"] }`},
		"auth/token/create":                       {},
	} {
		if _, err := client.Logical().Write(path, body); err == nil || !strings.Contains(err.Error(), "Code: 403") {
			t.Errorf("%s: %v; want 403", path, err)
		}
	}
}

// Somebody else can have a key that Vault gives away, so it is not taken.
func TestKeysThatCanLeaveVaultAreNotUsed(t *testing.T) {
	k := newKMS(t)
	for name, body := range map[string]map[string]any{
		"sign-tokens-es256": {"type": "ecdsa-p256", "exportable": true},
		"sign-tokens-es384": {"type": "ecdsa-p384", "allow_plaintext_backup": true},
		"sign-tokens-rs256": {"type": "rsa-4096"},
		"sign-tokens-eddsa": {"type": "ed25519", "derived": true},
	} {
		if _, err := k.Root.Logical().Write("sallyport/keys/"+name, body); err != nil {
			t.Fatal(err)
		}
		alg := jose.SignatureAlgorithm(strings.ToUpper(name[len(name)-5:]))
		if alg == "EDDSA" {
			alg = jose.EdDSA
		}
		if got, _, err := k.client(t).MakeKey(t.Context(), "tokens", alg); !errors.Is(err, brokers.ErrMisconfigured) {
			t.Errorf("%s: %q, %v; want it to be refused", name, got, err)
		}
	}
}

const signedTarget = `
target: orders
broker: jwt
max_lifetime: 15m
scopes: {read: {}}
jwt: {audience: 'https://orders.prod.example'}
`

// The key of a GitHub App stays in Vault: it signs there for the broker github. GitHub is a fake.
func TestKeyOfAGitHubAppStaysInVault(t *testing.T) {
	k := newKMS(t)
	if _, err := k.Root.Logical().Write("sallyport/keys/sign-github-app", map[string]any{"type": "rsa-2048"}); err != nil {
		t.Fatal(err)
	}
	made, err := k.Root.Logical().Read("sallyport/keys/sign-github-app")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(made.Data["keys"].(map[string]any)["1"].(map[string]any)["public_key"].(string)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	fake := githubtest.New(t)
	fake.Knows(public.(*rsa.PublicKey))
	file := fmt.Sprintf("target: repository\nbroker: github\nmax_lifetime: 15m\nscopes: {read: {repositories: [7], permissions: {contents: read}}}\ngithub: {app: %s, installation: %d, transit_key: 'sign-github-app:1', api: %q}\n",
		githubtest.App, githubtest.Installation, fake.URL)
	d := deployment.New(t, map[string]string{"repository": file}, 10*time.Minute, "  vault:\n    address: "+k.Address+"\n    login: {mount: platform, role: sallyport, jwt_file: vault.jwt}\n    mount: sallyport\n    unseal_key: seal\n")
	d.Write("kek", k.sealed+"\n")
	d.Write("vault.jwt", k.jwt())
	d.Serve()
	token := d.Run("exchange", "--server", d.URL, "--audience", "repository", "--subject-token-file", d.Workload(), "-o", "token")
	if err := fake.Works(strings.TrimSpace(token)); err != nil {
		t.Errorf("the token does not work: %v", err)
	}
}

// The whole way, by the binary: its keys are made in Vault and sealed by it, a token is exchanged for one that verifies, and a
// Vault that refuses stops exchanges, says so, and is found again.
func TestServiceSignsAndUnsealsByVault(t *testing.T) {
	k := newKMS(t)
	d := deployment.New(t, map[string]string{"orders": signedTarget}, 10*time.Minute, "  vault:\n    address: "+k.Address+"\n    login: {mount: platform, role: sallyport, jwt_file: vault.jwt}\n    mount: sallyport\n    unseal_key: seal\n    signing_keys: sign\n")
	d.Write("kek", k.sealed+"\n")
	d.Write("vault.jwt", k.jwt())
	if out := d.Run("check", d.Dir); !strings.Contains(out, "ok") {
		t.Fatalf("check: %s", out)
	}
	d.Serve()
	exchange := func() (string, error) {
		out, err := d.Try("exchange", "--server", d.URL, "--audience", "orders", "--subject-token-file", d.Workload(), "-o", "token")
		return strings.TrimSpace(out), err
	}
	token, err := exchange()
	if err != nil {
		t.Fatal(err)
	}
	set := published(t, d.URL+"/jwks")
	jws, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jws.Verify(set); err != nil {
		t.Errorf("the token does not verify: %v", err)
	}
	there, err := k.Root.Logical().Read("sallyport/keys/sign-tokens-es256")
	if err != nil || there == nil || there.Data["exportable"] != false {
		t.Errorf("the key is not in Vault, or can leave it: %v, %v", there, err)
	}
	if out := d.Run("keys", "list", d.Dir); !strings.Contains(out, "active") {
		t.Errorf("keys list: %s", out)
	}

	// Somebody ends the login: nobody notices.
	if err := k.Root.Sys().RevokePrefix("auth/platform"); err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(); err != nil {
		t.Errorf("after the login was revoked: %v", err)
	}
	// Vault refuses: no token, and why; then it is well again.
	policy, err := k.Root.Sys().GetPolicy("sallyport-keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Root.Sys().PutPolicy("sallyport-keys", `path "nothing" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	if out, err := exchange(); err == nil || !strings.Contains(out, "temporarily_unavailable") {
		t.Errorf("Vault signs nothing, and the answer is %q", out)
	}
	d.Await("readyz to say that Vault does not sign", func() bool {
		status, body := d.Readyz()
		return status == http.StatusServiceUnavailable && strings.Contains(body, "key management") && strings.Contains(body, "403")
	})
	if err := k.Root.Sys().PutPolicy("sallyport-keys", policy); err != nil {
		t.Fatal(err)
	}
	d.Await("the service to be ready again", func() bool { status, _ := d.Readyz(); return status == http.StatusOK })
	if _, err := exchange(); err != nil {
		t.Error(err)
	}
	// A start with the key itself in the place of the sealed one is refused, and so is the other way round.
	d.Write("kek", "AAAA")
	if out, err := d.Try("check", d.Dir); err == nil || !strings.Contains(out, "datakey/wrapped") {
		t.Errorf("check takes a key that is not sealed: %s", out)
	}
}

func published(t *testing.T, url string) jose.JSONWebKeySet {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	return set
}

// BenchmarkSignatures measures a signature by a key of Vault's beside one by a key of ours.
func BenchmarkSignatures(b *testing.B) {
	k := newKMS(b)
	sign := func(b *testing.B, all *keys.Keys) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := all.Tokens().Sign(context.Background(), keys.Header{Type: "at+jwt"}, map[string]any{"sub": "checkout"}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	kek, err := keys.NewKEK(secret.New(strings.Repeat("A", 43) + "="))
	if err != nil {
		b.Fatal(err)
	}
	sealer, err := keys.NewSealer(kek)
	if err != nil {
		b.Fatal(err)
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA} {
		ours, err := keys.Open(b.Context(), keys.Config{
			Dir: b.TempDir(), Sealer: sealer, Now: time.Now,
			Plan: keys.Plan{Algorithms: []jose.SignatureAlgorithm{alg}, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore},
		})
		if err != nil {
			b.Fatal(err)
		}
		theirs := k.open(b, b.TempDir(), k.client(b), alg)
		b.Run(string(alg)+"/ours", func(b *testing.B) { sign(b, ours) })
		b.Run(string(alg)+"/vault", func(b *testing.B) { sign(b, theirs) })
	}
}
