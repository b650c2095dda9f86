package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// The README's commands, as printed, from init to verify: only the ports are others.
func TestReadmeRunsAsPrinted(t *testing.T) {
	t.Parallel()
	out := runDocument(t, filepath.Join(root, "README.md"))
	for _, want := range []struct{ what, text string }{
		{"check", "ok  1 issuer, 2 targets"},
		{"policy cases", "ok  6 of 6 cases passed"},
		{"lint", "ok  nothing found"},
		{"OpenID metadata", `"subject_types_supported":["public"]`},
		{"RFC 8414 metadata", `"revocation_endpoint":`},
		{"key set", `"alg":"ES256"`},
		{"exchange", `"access_token":"ey`},
		{"introspection before", `"active":true`},
		{"introspection after", `"active":false`},
		{"refusal", `"error":"invalid_scope"`},
		{"explanation", "no rule covers scope write at target orders"},
		{"nearest rule", "expected read, found write"},
		{"record of the revocation", "by holder"},
		{"verification", "verdict  ok"},
	} {
		if !strings.Contains(out, want.text) {
			t.Errorf("%s: the output lacks %q", want.what, want.text)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// The commands of docs/keys.md, as printed: a rotation publishes a second key, an emergency leaves one new key alone.
func TestKeysPageRunsAsPrinted(t *testing.T) {
	t.Parallel()
	out := runDocument(t, filepath.Join(root, "docs", "keys.md"))
	lists := regexp.MustCompile(`tokens +ES256 +(next|active|retired) `).FindAllString(out, -1)
	if want := "active active next active"; strings.Join(states(lists), " ") != want {
		t.Errorf("the three lists have tokens' keys in the states %v, want %s", states(lists), want)
	}
	if n := strings.Count(out[strings.LastIndex(out, "--- keys.md"):], `"kid"`); n != 1 {
		t.Errorf("%d keys are published after the emergency, want the new one", n)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// The commands of docs/incident.md, as printed: what a stolen token got, a lock, and its end.
func TestIncidentPageRunsAsPrinted(t *testing.T) {
	t.Parallel()
	out := runDocument(t, filepath.Join(root, "docs", "incident.md"))
	for _, want := range []string{
		"native reach       unknown", "checkout-reads-orders (policy/orders.yaml:", "minted here  1 token of this replica's log", "target     orders: 1", "minted here  dead: all that matches", "refused      until ", "outside      none",
		"[INC-7] token in a build log", "attr.sub=checkout trust_domain=local.example", "nothing died; this is what would have", "# --- orders\n", "sallyport revoke signing_key=KID", "verdict  ok", "the lock refuses nothing; what it killed stays dead",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

func states(rows []string) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		fields := strings.Fields(r)
		out[i] = fields[len(fields)-1]
	}
	return out
}

// runDocument runs the sh blocks of a page as one script, in a directory of its own, with sallyport on the PATH.
func runDocument(t *testing.T, file string) string {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing; install it with: apt-get install -y %s", tool, tool)
		}
	}
	dir, workload, ops := t.TempDir(), ports.Address(), ports.Address()
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "sallyport"), "./cmd/sallyport")
	build.Dir = root
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, b)
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n")
	found := 0
	for _, b := range blocks(t, file) {
		if b.lang != "sh" {
			continue
		}
		found++
		fmt.Fprintf(&script, "echo '--- %s:%d'\n%s\n", filepath.Base(file), b.line, b.text)
		if found == 1 { // what init wrote listens on fixed ports; tests use free ones
			fmt.Fprintf(&script, "grep -rlE '127.0.0.1:(8443|9090)' my-sallyport | xargs sed -i 's/127.0.0.1:8443/%s/g; s/127.0.0.1:9090/%s/g'\n", workload, ops)
		}
	}
	if found < 5 {
		t.Fatalf("%s has %d sh blocks; the test runs nothing", file, found)
	}
	text := strings.NewReplacer("http://127.0.0.1:8443", "http://"+workload, "http://127.0.0.1:9090", "http://"+ops).Replace(script.String())
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands of %s fail: %v\n%s", file, err, out)
	}
	return string(out)
}
