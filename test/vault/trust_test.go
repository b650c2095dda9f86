package vault

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport-sts/sallyport/test/deployment"
)

// trusted writes the configuration of a deployment around a target file and returns what "sallyport trust vault" prints.
func trusted(tb testing.TB, issuer, target, file, output string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range map[string]string{
		"sallyport.yaml":  "issuer: " + issuer + "\nlisten: {workload: '127.0.0.1:0'}\ntls: off\nsigning: {seal_with: {file: kek}}\n",
		"kek":             base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"trust/prod.yaml": "trust_domain: prod.example\nissuers:\n  - {name: cluster-1, type: kubernetes, issuer: 'https://cluster.example', audiences: ['https://sts.example'], algorithms: [RS256], keys: {discovery: true}}\n",
		"policy/p.yaml":   "rules:\n  - {name: r, workloads: {trust_domain: prod.example, issuer: cluster-1, where: {namespace: shop}}, targets: [" + target + "], scopes: [read], lifetime: 10m}\n",
		"targets/t.yaml":  file,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := exec.Command(deployment.Binary(tb), "trust", "vault", target, dir, "-o", output).CombinedOutput()
	if err != nil {
		tb.Fatalf("sallyport trust vault: %v\n%s", err, out)
	}
	return string(out)
}

// interpret does what the printed commands of the vault command line say, by the API calls that this command makes. A
// line that it does not know fails. It returns what the last one prints.
func (s *Server) interpret(tb testing.TB, text string) (field string) {
	tb.Helper()
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		words := strings.Fields(line)
		var err error
		switch {
		case line == "" || strings.HasPrefix(line, "# "):
		case line == "export VAULT_ADDR="+s.Address:
		case strings.HasPrefix(line, "vault auth enable -path=") && len(words) == 5:
			_, err = s.Root.Logical().Write("sys/auth/"+strings.TrimPrefix(words[3], "-path="), map[string]any{"type": words[4]})
			if err != nil && strings.Contains(err.Error(), "path is already in use") {
				err = nil // as the comment says
			}
		case strings.HasPrefix(line, "vault secrets enable -path=") && len(words) == 5:
			err = s.Root.Sys().Mount(strings.TrimPrefix(words[3], "-path="), &api.MountInput{Type: words[4]})
		case strings.HasPrefix(line, "vault write -field=") && len(words) == 5 && words[3] == "-f":
			var got *api.Secret
			if got, err = s.Root.Logical().Write(words[4], nil); err == nil {
				field, _ = got.Data[strings.TrimPrefix(words[2], "-field=")].(string)
			}
		case strings.HasPrefix(line, "vault policy write ") && strings.HasSuffix(line, " - <<'EOF'") && len(words) == 6:
			err = s.Root.Sys().PutPolicy(words[3], document(tb, lines))
		case strings.HasPrefix(line, "vault write ") && strings.HasSuffix(line, " - <<'EOF'") && len(words) == 5:
			var body map[string]any
			if err = json.Unmarshal([]byte(document(tb, lines)), &body); err == nil {
				_, err = s.Root.Logical().Write(words[2], body)
			}
		default:
			tb.Fatalf("sallyport trust vault prints a line that is no command: %q", line)
		}
		if err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
	}
	return field
}

// document reads a here-document.
func document(tb testing.TB, lines *bufio.Scanner) string {
	tb.Helper()
	var out strings.Builder
	for lines.Scan() {
		if lines.Text() == "EOF" {
			return out.String()
		}
		out.WriteString(lines.Text() + "\n")
	}
	tb.Fatal("a here-document does not end")
	return ""
}

// shell runs the printed commands of curl as they are.
func (s *Server) shell(tb testing.TB, text string) {
	tb.Helper()
	cmd := exec.Command("sh", "-eu")
	cmd.Env = append(os.Environ(), "VAULT_TOKEN="+s.Root.Token())
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("the commands of curl: %v\n%s\n%s", err, out, text)
	}
}
