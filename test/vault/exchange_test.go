package vault

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/test/deployment"
)

const exchangeFile = `
target: orders
broker: vault
max_lifetime: 15m
scopes: {read: {role: shop, policies: [orders-read]}}
vault: {address: ADDRESS, mount: jwt-served, audience: 'https://vault.example', revoke_role: shop-revoker}
`

const storedFile = `
target: orders
broker: vault
max_lifetime: 15m
scopes: {read: {role: motd, read: kv/data/orders/motd, static: true}}
vault: {address: ADDRESS, audience: 'https://vault.example', revoke_role: motd-revoker}
`

// A stored secret goes on working whatever becomes of its lease, and that is what everybody is told: operators before and
// after they revoke it, the holder who wants to give it back, the record.
func TestStoredSecretStaysAndIsNeverSaidToEnd(t *testing.T) {
	w := newWorld(t)
	d := deployment.New(t, map[string]string{"orders": strings.ReplaceAll(storedFile, "ADDRESS", w.vault.Address)}, 10*time.Minute, "")
	d.Serve()
	w.vault.interpret(t, d.Run("trust", "vault", "orders", d.Dir))
	const why = "works until somebody changes it in Vault"
	says := func(what, out string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("%s says %q, want %q in it", what, out, part)
			}
		}
	}

	held := d.Write("held", d.Run("exchange", "--server", d.URL, "--audience", "orders", "--subject-token-file", d.Workload()))
	raw, err := os.ReadFile(held)
	if err != nil {
		t.Fatal(err)
	}
	says("the credential", string(raw), `"text":"hello"`, `"static":true`)
	list := func() string { return d.Run("leases", "--admin", d.Admin()) }
	says("sallyport leases", list(), "live", why)
	row := strings.Split(list(), "\n")[1]
	id, _, _ := strings.Cut(row, " ")
	says("sallyport revoke --dry-run", d.Run("revoke", "--admin", d.Admin(), "--dry-run", "lease="+id), "live", why)
	out := d.Run("revoke", "--admin", d.Admin(), "lease="+id)
	says("sallyport revoke lease=", out, "1 stays", "stays  -", why)
	says("sallyport leases, when it was revoked", list(), "dying", "stays: ", why)
	if out, err := d.Try("revoke", "--server", d.URL, "token-file="+held); err == nil || !strings.Contains(out, "unsupported_token_type") {
		t.Errorf("giving it back says %q (%v)", out, err)
	}
	says("sallyport explain", d.Run("explain", id, "--config", d.Dir), "stays: ", why)
	if s, err := w.vault.Root.Logical().Read("kv/data/orders/motd"); err != nil || s == nil {
		t.Errorf("the stored secret is %v (%v)", s, err)
	}
	if n := w.logins(t); n != 0 {
		t.Errorf("%d logins live: revoking ended none", n)
	}
}

// The whole way, by the binary: a workload's token in, a Vault token out, used, revoked by its holder, dead.
func TestExchangeRunsFromAWorkloadsTokenToADeadVaultToken(t *testing.T) {
	w := newWorld(t)
	d := deployment.New(t, map[string]string{"orders": strings.ReplaceAll(exchangeFile, "ADDRESS", w.vault.Address)}, 10*time.Minute, "")
	d.Serve()
	// Vault reads the keys of the second issuer from the service itself.
	w.vault.interpret(t, d.Run("trust", "vault", "orders", d.Dir))

	var got struct {
		Access_token, Issued_token_type, Token_type string
		Expires_in                                  int
	}
	if err := json.Unmarshal([]byte(d.Run("exchange", "--server", d.URL, "--audience", "orders", "--subject-token-file", d.Workload(), "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Issued_token_type != vault.TokenType || got.Token_type != "Bearer" || got.Expires_in < 590 || got.Expires_in > 600 {
		t.Errorf("the answer is of %s, %s, %d s", got.Issued_token_type, got.Token_type, got.Expires_in)
	}
	client := newClient(t, w.vault.Address, got.Access_token)
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Fatalf("the token does not work: %v", err)
	}
	held := d.Write("held", got.Access_token)
	d.Run("revoke", "--server", d.URL, "token-file="+held)
	d.Await("the token to be dead", func() bool { _, err := client.Logical().Read("kv/data/orders/motd"); return err != nil })
	if log, err := exec.Command("grep", "-rlaF", got.Access_token, filepath.Join(d.Dir, "data")).Output(); err == nil {
		t.Errorf("the token stands in %s", log)
	}
}
