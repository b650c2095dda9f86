package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/github/githubtest"
)

// A job pulls from GitHub: the binary's own helper hands git a token that works, and nothing is left of it once its holder
// revokes it. GitHub is a fake.
func TestGitGetsATokenOfGitHub(t *testing.T) {
	t.Parallel()
	fake := githubtest.New(t)
	d := newDeployment(t)
	d.write("secrets/app.pem", fake.PEM, 0o600)
	d.write("targets/repository.yaml", fmt.Sprintf("target: repository\nbroker: github\nmax_lifetime: 15m\nscopes: {read: {repositories: [7], permissions: {contents: read}}}\n"+
		"github: {app: %s, installation: %d, private_key: {file: secrets/app.pem}, api: %q}\n", githubtest.App, githubtest.Installation, fake.URL), 0o644)
	d.edit("policy/shop.yaml", "rules:\n", "rules:\n  - {name: repository, workloads: {trust_domain: prod.example, issuer: cluster, where: {sub: checkout}}, targets: [repository], scopes: [read]}\n")
	p := d.start()
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(d.subject("checkout")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := sallyportIn(t, "protocol=https\nhost=github.com\n\n", "git-credential", "get", "--server", d.url, "--audience", "repository", "--subject-token-file", identity)
	token := between(out, "password=", "\n")
	if code != exitDone || !strings.HasPrefix(token, "ghs_") || !strings.Contains(out, "username=x-access-token\n") {
		t.Fatalf("git is told (%d): %s", code, strings.ReplaceAll(out, token, "[token]"))
	}
	// The same, asked by git itself.
	fill := exec.Command("git", "-c", "credential.helper=", "-c", "credential.https://github.com.helper=!sallyport git-credential --server "+d.url+" --audience repository --subject-token-file "+identity, "credential", "fill")
	fill.Stdin = strings.NewReader("protocol=https\nhost=github.com\n\n")
	fill.Env = append(cleanEnvironment(), "HOME="+t.TempDir(), "GIT_TERMINAL_PROMPT=0")
	said, err := fill.Output()
	if err != nil || fake.Works(between(string(said), "password=", "\n")) != nil || !strings.Contains(string(said), "username=x-access-token\n") {
		t.Errorf("git fills in nothing that works: %v", err)
	}
	wantStatus(t, "revoking git's", d.caller().revoke(between(string(said), "password=", "\n")), 200)
	if err := fake.Works(token); err != nil {
		t.Errorf("the token does not work: %v", err)
	}
	wantStatus(t, "revoking it", d.caller().revoke(token), 200)
	eventually(t, "the token is dead", func() error {
		if fake.Alive() != 0 {
			return fmt.Errorf("%d tokens are alive", fake.Alive())
		}
		return nil
	})
	for _, r := range d.records() {
		if strings.Contains(fmt.Sprint(r), token) {
			t.Error("the token stands in the audit log")
		}
	}
	p.stop()
}
