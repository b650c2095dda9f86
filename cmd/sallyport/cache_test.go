package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

func answered(token string) *oidc.TokenExchangeResponse {
	return &oidc.TokenExchangeResponse{AccessToken: token, IssuedTokenType: oidc.AccessTokenType, TokenType: "Bearer", ExpiresIn: 600, Scopes: oidc.SpaceDelimitedArray{"read"}}
}

func mustKeep(t *testing.T, a *ask, token string) cached {
	t.Helper()
	c, err := a.kept(secret.New(token), secret.Value{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is kept is found again by the same identity token for the same question, until shortly before its end.
func TestCacheAnswersUntilShortlyBeforeTheEnd(t *testing.T) {
	t.Parallel()
	a := &ask{server: server{url: "https://sts.example"}, audience: "orders", cache: filepath.Join(t.TempDir(), "c")}
	c, now := mustKeep(t, a, "identity"), time.Now().Truncate(time.Second)
	if _, ok := c.get(now); ok {
		t.Fatal("an empty cache answers")
	}
	put := func() {
		if err := c.put(credential{answered("secret-thing"), now.Add(10 * time.Minute)}, now); err != nil {
			t.Fatal(err)
		}
	}
	put()
	got, ok := mustKeep(t, a, "identity").get(now.Add(time.Minute))
	if !ok || got.AccessToken != "secret-thing" || got.ExpiresIn != 540 || !got.expires.Equal(now.Add(10*time.Minute)) || got.Scopes[0] != "read" {
		t.Errorf("kept was %+v (%v)", got, ok)
	}
	for at, want := range map[time.Duration]bool{479 * time.Second: true, 480 * time.Second: false, 11 * time.Minute: false, -2 * time.Minute: false} {
		put()
		if _, ok := c.get(now.Add(at)); ok != want {
			t.Errorf("after %s it answers: %v, want %v", at, ok, want)
		}
		if _, err := os.Stat(c.path); (err == nil) != want {
			t.Errorf("after %s the file is there: %v, want %v", at, err == nil, want)
		}
	}
	c.forget()
	if err := c.put(credential{answered("x"), time.Time{}}, now); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.path); err == nil {
		t.Error("a credential is kept that does not say when it is over")
	}
}

// Attack: another identity, another question, or whoever can write to the directory gets something that is not theirs out of
// the cache. // issue: cache poisoning across identities
func TestCacheNeverAnswersAnotherIdentity(t *testing.T) {
	t.Parallel()
	dir, now := filepath.Join(t.TempDir(), "c"), time.Now()
	mine := &ask{server: server{url: "https://sts.example"}, audience: "orders", scopes: []string{"read"}, cache: dir}
	c := mustKeep(t, mine, "my identity token")
	if err := c.put(credential{answered("secret-thing"), now.Add(10 * time.Minute)}, now); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret-thing")) || bytes.Contains(raw, []byte("orders")) || strings.Contains(c.path, "orders") {
		t.Error("the file tells what is in it")
	}
	if info, _ := os.Stat(c.path); info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %04o", info.Mode().Perm())
	}
	for name, other := range map[string]cached{
		"another identity token": mustKeep(t, mine, "my identity token "),
		"another server":         mustKeep(t, &ask{server: server{url: "https://sts.other"}, audience: "orders", scopes: []string{"read"}, cache: dir}, "my identity token"),
		"another target":         mustKeep(t, &ask{server: server{url: "https://sts.example"}, audience: "order", scopes: []string{"sread"}, cache: dir}, "my identity token"),
		"other scopes":           mustKeep(t, &ask{server: server{url: "https://sts.example"}, audience: "orders", cache: dir}, "my identity token"),
		"another form":           mustKeep(t, &ask{server: server{url: "https://sts.example"}, audience: "orders", scopes: []string{"read"}, form: "x", cache: dir}, "my identity token"),
	} {
		if got, ok := other.get(now); ok {
			t.Errorf("%s: the cache answers %s", name, got.AccessToken)
		}
		if err := os.WriteFile(other.path, raw, 0o600); err != nil { // moved there by somebody
			t.Fatal(err)
		}
		if _, ok := other.get(now); ok {
			t.Errorf("%s: what was moved there is an answer", name)
		}
	}
	if _, ok := c.get(now); !ok {
		t.Fatal("its own answer is gone")
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(c.path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.get(now); ok {
		t.Error("a file that was changed is an answer")
	}
}

// A directory that others can use is refused, and so is a link to one.
func TestCacheIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(base, "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(private, link); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{open: false, link: false, private: true, filepath.Join(base, "new", "dir"): true} {
		if _, err := (&ask{cache: dir}).kept(secret.New("x"), secret.Value{}); (err == nil) != want {
			t.Errorf("%s: %v, want it to be taken: %v", dir, err, want)
		}
	}
	old := filepath.Join(private, "00"+cacheEnding)
	for _, f := range []string{old, filepath.Join(private, "notes.txt")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f, time.Now().Add(-time.Minute), time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := (&ask{cache: private}).kept(secret.New("x"), secret.Value{})
	if err := c.put(credential{answered("y"), time.Now().Add(time.Minute)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("what is over is not swept")
	}
	if _, err := os.Stat(filepath.Join(private, "notes.txt")); err != nil {
		t.Error("a file that is none of the cache's is swept")
	}
}

// Google's libraries read what an executable prints, also why it failed; psql reads a service file.
func TestExecutablesAndServiceFiles(t *testing.T) {
	t.Parallel()
	expires := time.Unix(1_900_000_000, 0)
	var got map[string]any
	if err := json.Unmarshal([]byte(printed(t, "gcp", credential{answered("a.b.c"), expires})), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 || got["version"] != 1.0 || got["success"] != true || got["token_type"] != "urn:ietf:params:oauth:token-type:jwt" || got["id_token"] != "a.b.c" || got["expiration_time"] != 1_900_000_000.0 {
		t.Errorf("-o gcp wrote %v", got)
	}
	var b bytes.Buffer
	if err := failed(&b, "gcp", os.ErrPermission); err != os.ErrPermission || !strings.Contains(b.String(), `"success":false,"code":"refused","message":"permission denied"`) {
		t.Errorf("-o gcp says of a failure %q (%v)", b.String(), err)
	}
	pg := answerOf(t, "postgresql", map[string]any{"host": "db.example", "port": 5432, "database": "orders", "user": "sts_x", "password": `a'b #;\c`, "sslmode": "verify-full"})
	if got, want := printed(t, "pgservice", pg), "[sallyport]\nhost=db.example\nport=5432\ndbname=orders\nuser=sts_x\npassword=a'b #;\\c\nsslmode=verify-full\n"; got != want {
		t.Errorf("-o pgservice wrote %q, want %q", got, want)
	}
	b.Reset()
	if err := printCredential(&b, "pgservice", answerOf(t, "postgresql", map[string]any{"password": "a\nhost=evil"})); err == nil || b.Len() > 0 {
		t.Errorf("-o pgservice wrote a line of the password's own: %q", b.String())
	}
}
