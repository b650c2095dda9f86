package vault

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

const exchangeFile = `
target: orders
broker: vault
max_lifetime: 15m
scopes: {read: {role: shop, policies: [orders-read]}}
vault: {address: ADDRESS, mount: jwt-served, audience: 'https://vault.example', revoke_role: shop-revoker}
`

// The whole way, by the binary: a workload's token in, a Vault token out, used, revoked by its holder, dead.
func TestExchangeRunsFromAWorkloadsTokenToADeadVaultToken(t *testing.T) {
	w := newWorld(t)
	bin, dir := sallyport(t), t.TempDir()
	workload, ops := freeAddress(t), freeAddress(t)
	url, file := "http://"+workload, strings.ReplaceAll(exchangeFile, "ADDRESS", w.vault.Address)
	platform := federationtest.NewNamed(t, "https://cluster.prod.example", jose.ES256)
	for name, text := range map[string]string{
		"sallyport.yaml": "issuer: " + url + "\nlisten: {workload: '" + workload + "', ops: '" + ops + "'}\ntls: off\ndata_dir: data\nsigning: {seal_with: {file: kek}}\naudit: {dir: data/audit, durability: process, reserve: 1MiB}\n",
		"kek":            base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"keys.json":      string(platform.JWKS()),
		"trust/prod.yaml": "trust_domain: prod.example\nissuers:\n  - name: cluster\n    type: oidc\n    issuer: https://cluster.prod.example\n    audiences: ['" + url + "']\n    algorithms: [ES256]\n    keys: {jwks_file: keys.json}\n" +
			"    oidc:\n      path: [sub]\n      attributes: {sub: {claim: sub}}\n",
		"policy/p.yaml":  "rules:\n  - {name: r, workloads: {trust_domain: prod.example, issuer: cluster, where: {sub: checkout}}, targets: [orders], scopes: [read], lifetime: 10m}\n",
		"targets/t.yaml": file,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(bin, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("sallyport %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	serve := exec.Command(bin, "serve", dir)
	serve.Stdout, serve.Stderr = t.Output(), t.Output()
	serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = serve.Process.Signal(syscall.SIGTERM); stop(t, "sallyport", serve) })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + ops + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatal("sallyport did not get ready")
		}
	}
	// Vault reads the keys of the second issuer from the service itself.
	w.vault.interpret(t, run("trust", "vault", "orders", dir))

	subject := filepath.Join(dir, "token")
	claims := platform.Claims(time.Now(), "checkout", url).With("exp", time.Now().Add(time.Hour).Unix()).With("jti", federationtest.RandomID())
	if err := os.WriteFile(subject, []byte(platform.Sign(claims).Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Access_token, Issued_token_type, Token_type string
		Expires_in                                  int
	}
	if err := json.Unmarshal([]byte(run("exchange", "--server", url, "--audience", "orders", "--subject-token-file", subject, "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Issued_token_type != vault.TokenType || got.Token_type != "Bearer" || got.Expires_in < 590 || got.Expires_in > 600 {
		t.Errorf("the answer is of %s, %s, %d s", got.Issued_token_type, got.Token_type, got.Expires_in)
	}
	client := newClient(t, w.vault.Address, got.Access_token)
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Fatalf("the token does not work: %v", err)
	}
	held := filepath.Join(dir, "held")
	if err := os.WriteFile(held, []byte(got.Access_token), 0o600); err != nil {
		t.Fatal(err)
	}
	run("revoke", "--server", url, "token-file="+held)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a revoked token works")
		}
	}
	if log, err := exec.Command("grep", "-rlaF", got.Access_token, filepath.Join(dir, "data")).Output(); err == nil {
		t.Errorf("the token stands in %s", log)
	}
}
