package vault

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/vault"
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
	d := deploy(t, strings.ReplaceAll(exchangeFile, "ADDRESS", w.vault.Address), "")
	d.serve()
	// Vault reads the keys of the second issuer from the service itself.
	w.vault.interpret(t, d.run("trust", "vault", "orders", d.dir))

	var got struct {
		Access_token, Issued_token_type, Token_type string
		Expires_in                                  int
	}
	if err := json.Unmarshal([]byte(d.run("exchange", "--server", d.url, "--audience", "orders", "--subject-token-file", d.workload(), "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Issued_token_type != vault.TokenType || got.Token_type != "Bearer" || got.Expires_in < 590 || got.Expires_in > 600 {
		t.Errorf("the answer is of %s, %s, %d s", got.Issued_token_type, got.Token_type, got.Expires_in)
	}
	client := newClient(t, w.vault.Address, got.Access_token)
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Fatalf("the token does not work: %v", err)
	}
	held := d.write("held", got.Access_token)
	d.run("revoke", "--server", d.url, "token-file="+held)
	d.await("the token to be dead", func() bool { _, err := client.Logical().Read("kv/data/orders/motd"); return err != nil })
	if log, err := exec.Command("grep", "-rlaF", got.Access_token, filepath.Join(d.dir, "data")).Output(); err == nil {
		t.Errorf("the token stands in %s", log)
	}
}
