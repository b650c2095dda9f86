package verify_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/verify"
	"github.com/sallyport-sts/sallyport/test/ports"
	"github.com/sallyport-sts/sallyport/test/stage"
)

// process is a sallyport that was built, configured and started, on addresses that are known before.
type process struct {
	*stage.Node
	bin      string
	issuer   string
	platform *stage.Platform
}

func startProcess(t *testing.T) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{Node: &stage.Node{Name: "sts", Dir: filepath.Join(dir, "conf")}}
	var err error
	if p.bin, err = stage.Build(dir); err != nil {
		t.Fatal(err)
	}
	if p.platform, err = stage.NewPlatform(); err != nil {
		t.Fatal(err)
	}
	p.Workload, p.Ops = ports.Address(), ports.Address()
	p.issuer = "http://" + p.Workload
	for name, text := range map[string]string{
		"secrets/kek": stage.KEK(), "c.jwks.json": p.platform.JWKS, "trust/prod.yaml": p.platform.Trust(p.issuer),
		"targets/orders.yaml": "target: orders\nbroker: jwt\nresource: " + orders + "\nscopes: {read: {}}\nresource_servers: [\"spiffe://prod.example/c/gateway\"]\n",
		"targets/listed.yaml": "target: listed\nbroker: jwt\njwt: {status_list: true}\n",
		"policy/policy.yaml": "rules:\n  - {name: listed, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [listed]}\n  - {name: orders, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [orders], scopes: [read]}\n" +
			"  - {name: introspect, workloads: {trust_domain: prod.example, issuer: c, where: {sub: gateway}}, targets: [introspection]}\n",
	} {
		if err := stage.Write(filepath.Join(p.Dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Start(p.bin, "issuer: "+p.issuer+"\nsigning: {seal_with: {file: secrets/kek}}\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func (p *process) mint(t *testing.T, sub, target string) string {
	t.Helper()
	token, err := p.Exchange(p.platform.Token(sub, p.issuer), target)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (p *process) run(t *testing.T, args ...string) {
	t.Helper()
	if said, err := exec.CommandContext(t.Context(), p.bin, args...).CombinedOutput(); err != nil {
		t.Fatalf("sallyport %v: %v\n%s", args, err, said)
	}
}

// The binary, its files and its commands: a token passes, is revoked, and is refused as soon as the answer of before is
// too old; an operator rotates the keys, and then takes one out. The verifier's clock is moved, nobody waits.
func TestVerifierOfARealProcess(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	var ahead atomic.Int64
	bearer := p.mint(t, "gateway", "introspection")
	v := newVerifier(t, verify.Config{
		Issuer: p.issuer, Audience: orders, Algorithms: []string{"ES256"},
		Introspect: verify.Introspect(func(context.Context) (secret.Value, error) { return secret.New(bearer), nil }),
		Now:        func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	raw := p.mint(t, "checkout", "orders")
	got, err := v.Verify(t.Context(), raw)
	if err != nil || got.Subject() != "spiffe://prod.example/c/checkout" || !got.HasScope("read") {
		t.Fatalf("a token that was just minted: %+v, %v", got, err)
	}
	if err := p.Want("/revoke", stage.Form("token", raw), "", 200); err != nil {
		t.Fatal(err)
	}
	ahead.Add(int64(verify.DefaultMaxAge))
	wantRefused(t, v, "a revoked token", raw, verify.ErrInactive)

	p.run(t, "keys", "rotate", "--now", p.Dir)
	first := raw
	p.until(t, "the new key signs", func() bool {
		raw = p.mint(t, "checkout", "orders")
		return kidOf(t, raw) != kidOf(t, first)
	})
	ahead.Add(int64(floor))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}

	p.run(t, "keys", "rotate", "--compromised", p.Dir)
	p.until(t, "the key is out of the set", func() bool { return !p.publishes(t, kidOf(t, raw)) })
	ahead.Add(int64(5 * time.Minute))
	wantRefused(t, v, "a token of a key that was taken out", raw, verify.ErrSignature)
}

// until waits for what the server does within seconds.
func (p *process) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(stage.Patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", stage.Patience, what)
		}
	}
}

func (p *process) publishes(t *testing.T, kid string) bool {
	t.Helper()
	res, err := http.Get(p.issuer + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	return len(set.Key(kid)) > 0
}

// kidOf reads which key a token says it was signed with.
func kidOf(t testing.TB, token string) string {
	t.Helper()
	kid, _ := partOf(t, token, 0)["kid"].(string)
	return kid
}
