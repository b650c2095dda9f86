package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
)

// hard is a word that every form has to quote.
const hard = `a:b\c'd"e $(touch x) #;`

func answerOf(t *testing.T, kind string, fields map[string]any) credential {
	t.Helper()
	fields["type"] = kind
	raw, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return credential{TokenExchangeResponse: &oidc.TokenExchangeResponse{AccessToken: string(raw), IssuedTokenType: oidc.TokenType(brokers.TypePrefix + kind), TokenType: brokers.NotApplicable}}
}

func printed(t *testing.T, form string, out credential) string {
	t.Helper()
	var b bytes.Buffer
	if err := printCredential(&b, form, out); err != nil {
		t.Fatalf("-o %s: %v", form, err)
	}
	return b.String()
}

func TestLoginsAreWrittenAsTheirClientsReadThem(t *testing.T) {
	t.Parallel()
	pg := answerOf(t, "postgresql", map[string]any{"host": "db.example", "port": 5432, "database": "or:ders", "user": "sts_x", "password": hard, "sslmode": "verify-full"})
	if got, want := printed(t, "pgpass", pg), `db.example:5432:or\:ders:sts_x:a\:b\\c'd"e $(touch x) #;`+"\n"; got != want {
		t.Errorf("-o pgpass wrote %q, want %q", got, want)
	}
	my := answerOf(t, "mysql", map[string]any{"host": "127.0.0.1", "port": 3306, "user": "sts_x", "password": hard})
	if got := printed(t, "mysql", my); !strings.Contains(got, `password="a:b\\c'd\"e $(touch x) #;"`+"\n") || !strings.HasPrefix(got, "[client]\n") {
		t.Errorf("-o mysql wrote %q", got)
	}
	if got := printed(t, "token", pg); got != pg.AccessToken {
		t.Errorf("-o token wrote %q, want what access_token says", got)
	}
	for form, out := range map[string]credential{"pgpass": my, "mysql": pg} {
		var b bytes.Buffer
		if err := printCredential(&b, form, out); err == nil || b.Len() > 0 {
			t.Errorf("-o %s of another kind wrote %q (%v)", form, b.String(), err)
		}
	}
}

// kubectl forgets a token when it is over; test/kubernetes has it run the command.
// Attack: whoever has a hand in an answer adds lines to the file that a client reads, such as init-command to MySQL's.
func TestCredentialAddsNoLineOfItsOwn(t *testing.T) {
	t.Parallel()
	for form, kind := range map[string]string{"pgpass": "postgresql", "pgservice": "postgresql", "mysql": "mysql"} {
		for _, field := range []string{"host", "database", "user", "password", "sslmode", "sslrootcert", "ssl_ca"} {
			for _, end := range []string{"\n", "\r", "\x00"} {
				out := answerOf(t, kind, map[string]any{"host": "db.example", "port": 5432, "user": "u", "password": "p", field: "x" + end + "init-command=evil"})
				var b bytes.Buffer
				if err := printCredential(&b, form, out); err == nil || b.Len() > 0 || !strings.Contains(err.Error(), "control character") {
					t.Errorf("-o %s with %q in %s wrote %q (%v)", form, end, field, b.String(), err)
				}
			}
		}
	}
}

func TestTokensAreWrittenAsKubectlReadsThem(t *testing.T) {
	t.Parallel()
	for _, kind := range []oidc.TokenType{brokers.TypePrefix + "kubernetes-token", oidc.AccessTokenType} {
		out := credential{&oidc.TokenExchangeResponse{AccessToken: "a.b.c", IssuedTokenType: kind, TokenType: "Bearer", ExpiresIn: 600}, time.Now().Add(600 * time.Second)}
		var got struct {
			APIVersion, Kind string
			Status           struct {
				Token   string
				Expires time.Time `json:"expirationTimestamp"`
			}
		}
		if err := json.Unmarshal([]byte(printed(t, "kubectl", out)), &got); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(got.Status.Expires); got.APIVersion != "client.authentication.k8s.io/v1" || got.Kind != "ExecCredential" || got.Status.Token != "a.b.c" || left > 600*time.Second || left < 590*time.Second {
			t.Errorf("-o kubectl wrote %+v", got)
		}
	}
	if err := printCredential(io.Discard, "kubectl", answerOf(t, "mysql", map[string]any{})); err == nil {
		t.Error("-o kubectl took a MySQL login")
	}
}

// A real shell evaluates what -o env writes, and runs nothing of it.
func TestEnvironmentIsDataToAShell(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		out  credential
		read string
		want string
	}{
		"postgresql": {answerOf(t, "postgresql", map[string]any{"host": "h", "port": 1, "database": "d", "user": "u", "password": hard, "sslmode": "require", "sslrootcert": "/ca"}), `$PGHOST/$PGPORT/$PGDATABASE/$PGUSER/$PGPASSWORD/$PGSSLMODE$PGSSLROOTCERT`, "h/1/d/u/" + hard + "/require/ca"},
		"redis":      {answerOf(t, "redis", map[string]any{"urls": []string{"rediss://h:6379"}, "user": "u", "password": "p@/w"}), `$REDIS_URL/$REDISCLI_AUTH`, "rediss://u:p%40%2Fw@h:6379/p@/w"},
		"vault":      {credential{TokenExchangeResponse: &oidc.TokenExchangeResponse{AccessToken: "hvs." + hard, IssuedTokenType: brokers.TypePrefix + "vault-token", TokenType: "Bearer"}}, `$VAULT_TOKEN`, "hvs." + hard},
		"github":     {credential{TokenExchangeResponse: &oidc.TokenExchangeResponse{AccessToken: "ghs_x.y", IssuedTokenType: brokers.TypePrefix + "github-installation-token", TokenType: "Bearer"}}, `$GH_TOKEN/$GITHUB_TOKEN`, "ghs_x.y/ghs_x.y"},
		"a JWT":      {credential{TokenExchangeResponse: &oidc.TokenExchangeResponse{AccessToken: "a.b.c", IssuedTokenType: oidc.AccessTokenType, TokenType: "Bearer"}}, `$SALLYPORT_TOKEN`, "a.b.c"},
	} {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-c", `eval "$(cat env)"; printf %s "`+tc.read+`"`)
		cmd.Dir = dir
		if err := os.WriteFile(filepath.Join(dir, "env"), []byte(printed(t, "env", tc.out)), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := cmd.CombinedOutput()
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: a shell reads %q (%v), want %q", name, got, err, tc.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
			t.Errorf("%s: the shell ran a part of the credential", name)
		}
	}
}

func TestFileIsForItsOwnerAloneAndReplacedAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return io.ErrShortWrite }); err == nil {
		t.Error("a failed write was not told")
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("after a failed write the file has %q", got)
	}
	if err := writeFile(path, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	got, _ := os.ReadFile(path)
	if err != nil || info.Mode().Perm() != 0o600 || string(got) != "new" {
		t.Errorf("the file has %q and mode %v (%v)", got, info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".sallyport-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
