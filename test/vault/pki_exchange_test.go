package vault

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/test/deployment"
)

// The whole way, by the binary and by the commands of the documentation: a key that never leaves the workload, its request, a
// certificate of an authority below another, a server that takes it, and no other.
func TestPKIExchangeEndsInATLSHandshake(t *testing.T) {
	w := newPKI(t)
	if err := w.vault.Root.Sys().Mount("above", &api.MountInput{Type: "pki"}); err != nil {
		t.Fatal(err)
	}
	root := w.root(t, "above", "24h")
	asked, err := w.vault.Root.Logical().Write("pki/intermediate/generate/internal", map[string]any{"common_name": "orders below", "key_type": "ec", "key_bits": 256})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := w.vault.Root.Logical().Write("above/root/sign-intermediate", map[string]any{"csr": asked.Data["csr"], "common_name": "orders below", "ttl": "12h"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.vault.Root.Logical().Write("pki/intermediate/set-signed", map[string]any{"certificate": signed.Data["certificate"]}); err != nil {
		t.Fatal(err)
	}
	d := deployment.New(t, map[string]string{"orders-tls": strings.ReplaceAll(tlsFile(t), "ADDRESS", w.vault.Address)}, 10*time.Minute, "")
	d.Serve()
	w.vault.interpret(t, d.Run("trust", "vault", "orders-tls", d.Dir))

	// As the documentation says, in a directory of the workload.
	dir := t.TempDir()
	commands := strings.NewReplacer("https://sts.example", d.URL, "/var/run/secrets/tokens/sallyport", d.Workload()).Replace(fenced(t, page(t), "```text\nopenssl "))
	shell := exec.Command("sh", "-eu")
	shell.Dir, shell.Stdin = dir, strings.NewReader("openssl "+commands)
	began := time.Now()
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("the commands of the documentation: %v\n%s", err, out)
	}
	var answer struct {
		Access_token, Issued_token_type, Token_type string
		Expires_in                                  int
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := certifiedBy(t, answer.Access_token)
	if answer.Issued_token_type != vault.CertType || answer.Token_type != brokers.NotApplicable || answer.Expires_in < 590 || answer.Expires_in > 600 {
		t.Errorf("the answer is of %s, %s, %d s", answer.Issued_token_type, answer.Token_type, answer.Expires_in)
	}
	const id = "spiffe://prod.example/cluster/checkout"
	c.names(t, id, root, began.Add(10*time.Minute+time.Second))
	if len(c.chain) == 0 || c.chain[0].Subject.CommonName != "orders below" {
		t.Fatalf("%v come with it, want its issuer first", c.chain)
	}

	// A server that trusts the root alone.
	key, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	shown := tls.Certificate{Certificate: [][]byte{c.Raw, c.chain[0].Raw}, PrivateKey: private}
	if got, err := greet(server(t, root, time.Now), shown); err != nil || got != id {
		t.Errorf("a server takes it for %q (%v), want %s", got, err, id)
	}
	other := newPKI(t).root(t, "pki", "24h")
	if got, err := greet(server(t, other, time.Now), shown); err == nil {
		t.Errorf("a server of another authority takes it for %s", got)
	}
	if got, err := greet(server(t, root, time.Now)); err == nil {
		t.Errorf("who shows nothing is taken for %s", got)
	}
	if got, err := greet(server(t, root, func() time.Time { return began.Add(10*time.Minute + 2*time.Second) }), shown); err == nil {
		t.Errorf("after the grant it is still taken for %s", got)
	}

	// Nobody can take it back, and nobody is told otherwise.
	if out, err := d.Try("revoke", "--server", d.URL, "token-file="+d.Write("held", answer.Access_token)); err == nil || !strings.Contains(out, "unsupported_token_type") {
		t.Errorf("revoking says %s", out)
	}
	// Without a request nothing is signed.
	if out, err := d.Try("exchange", "--server", d.URL, "--audience", "orders-tls", "--subject-token-file", d.Workload()); err == nil || !strings.Contains(out, "invalid_request") {
		t.Errorf("without a request: %s", out)
	}
}
