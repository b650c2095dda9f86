package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// engine answers as the published API of the transit engine says, for answers that the real one in test/vault cannot be made
// to give. It is a fake: it signs nothing.
type engine struct {
	*httptest.Server

	mu     sync.Mutex
	logins int
	calls  []string
	answer func(path, token string) (int, any) // nil: 404
	login  func(n int) any
}

func newEngine(t *testing.T) *engine {
	e := &engine{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		e.calls = append(e.calls, path)
		status, body := http.StatusNotFound, any(map[string]any{"errors": []string{}})
		switch {
		case path == "auth/jwt/login":
			e.logins++
			status, body = http.StatusOK, map[string]any{"auth": map[string]any{"client_token": "token-" + string(rune('0'+e.logins)), "accessor": "a", "lease_duration": 1200, "token_type": "service"}}
			if e.login != nil {
				body = e.login(e.logins)
			}
		case path == "auth/token/revoke-self":
			status = http.StatusNoContent
		case e.answer != nil:
			status, body = e.answer(path, r.Header.Get("X-Vault-Token"))
		}
		w.WriteHeader(status)
		if status != http.StatusNoContent {
			_ = json.NewEncoder(w).Encode(body)
		}
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *engine) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// settings is a Vault that e plays, and a JWT to log in with.
func (e *engine) settings(t *testing.T) vault.TransitSettings {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(path, []byte("e30.e30.AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return vault.TransitSettings{
		Address: e.URL, Timeout: 5 * time.Second, LoginMount: "jwt", Role: "sallyport", JWTFile: path, Mount: "transit", UnsealKey: "seal", SigningKey: "sign",
	}
}

func transit(t *testing.T, s vault.TransitSettings, now func() time.Time) *vault.Transit {
	t.Helper()
	out, err := vault.NewTransit(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func signed(text string) func(string, string) (int, any) {
	return func(string, string) (int, any) {
		return http.StatusOK, map[string]any{"data": map[string]any{"signature": text}}
	}
}

func TestTransitTakesNothingButASignatureOfTheVersionItAskedFor(t *testing.T) {
	t.Parallel()
	good := "vault:v3:" + base64.RawURLEncoding.EncodeToString([]byte("signature"))
	for name, answer := range map[string]func(string, string) (int, any){
		"another version":  signed(strings.Replace(good, "v3", "v2", 1)),
		"a longer version": signed(strings.Replace(good, "v3", "v33", 1)),
		"standard base64":  signed("vault:v3:+/+/"),
		"nothing":          signed(""),
		"a number":         func(string, string) (int, any) { return 200, map[string]any{"data": map[string]any{"signature": 7}} },
		"no data":          func(string, string) (int, any) { return 200, map[string]any{} },
		"errors beside it": func(string, string) (int, any) {
			return 200, map[string]any{"errors": []string{"no"}, "data": map[string]any{"signature": good}}
		},
		"a wrapping token": func(string, string) (int, any) {
			return 200, map[string]any{"wrap_info": map[string]any{"token": "w"}, "data": map[string]any{"signature": good}}
		},
		"a login": func(string, string) (int, any) {
			return 200, map[string]any{"auth": map[string]any{"client_token": "t"}, "data": map[string]any{"signature": good}}
		},
		"a redirect":             func(string, string) (int, any) { return 307, map[string]any{} },
		"a failure":              func(string, string) (int, any) { return 500, map[string]any{"errors": []string{"secret text"}} },
		"a Vault that is sealed": func(string, string) (int, any) { return 503, map[string]any{"errors": []string{"Vault is sealed"}} },
	} {
		e := newEngine(t)
		e.answer = answer
		got, err := transit(t, e.settings(t), time.Now).SignWith(t.Context(), "sign-tokens-es256:3", jose.ES256, []byte("a.b"))
		if err == nil || got != nil {
			t.Errorf("%s: signed %q, %v", name, got, err)
		} else if strings.Contains(err.Error(), "secret text") {
			t.Errorf("%s: what Vault said is repeated: %v", name, err)
		}
	}
	e := newEngine(t)
	e.answer = signed(good)
	if got, err := transit(t, e.settings(t), time.Now).SignWith(t.Context(), "sign-tokens-es256:3", jose.ES256, []byte("a.b")); err != nil || string(got) != "signature" {
		t.Errorf("a good answer: %q, %v", got, err)
	}
}

// What stands in our document becomes a path of Vault's.
func TestTransitSignsByNamesOfItsOwnAlone(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.answer = signed("vault:v1:AAAA")
	x := transit(t, e.settings(t), time.Now)
	for _, name := range []string{"", "sign", "sign:", "sign:0", "sign:-1", "sign:x", "../sys/raw:1", "a/b:1", "a%2fb:1", "a b:1", ":1", "sign:1:2"} {
		if _, err := x.SignWith(t.Context(), name, jose.ES256, []byte("a.b")); !errors.Is(err, brokers.ErrMisconfigured) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := x.SignWith(t.Context(), "sign:1", jose.HS256, []byte("a.b")); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("HS256: %v", err)
	}
	if got := e.seen(); len(got) > 0 {
		t.Errorf("Vault was asked for %v", got)
	}
}

func TestTransitLogsInAgainOnceAndNoMore(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.answer = func(_, token string) (int, any) {
		if token == "token-1" {
			return http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}}
		}
		return signed("vault:v1:AAAA")("", "")
	}
	x := transit(t, e.settings(t), time.Now)
	for range 3 {
		if _, err := x.SignWith(t.Context(), "sign:1", jose.ES256, []byte("a.b")); err != nil {
			t.Fatal(err)
		}
	}
	if e.logins != 2 {
		t.Errorf("%d logins, want one, and one after it was refused", e.logins)
	}
	e.answer = func(string, string) (int, any) {
		return http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}}
	}
	if _, err := x.SignWith(t.Context(), "sign:1", jose.ES256, []byte("a.b")); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("refused twice: %v", err)
	}
	if e.logins != 3 {
		t.Errorf("%d logins after a second refusal, want one more", e.logins)
	}
}

// A Vault that forbids what the login is for gets no new login for each caller, and none that is left behind.
func TestTransitThatIsForbiddenLeavesNoLoginsBehind(t *testing.T) {
	t.Parallel()
	e, now := newEngine(t), time.Now()
	e.answer = func(string, string) (int, any) {
		return http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}}
	}
	x := transit(t, e.settings(t), func() time.Time { return now })
	ask := func() {
		for range 20 {
			if _, err := x.SignWith(t.Context(), "sign:1", jose.ES256, []byte("a.b")); !errors.Is(err, brokers.ErrMisconfigured) {
				t.Fatal(err)
			}
		}
	}
	dropped := func() (n int) {
		for _, path := range e.seen() {
			if path == "auth/token/revoke-self" {
				n++
			}
		}
		return n
	}
	ask()
	if e.logins != 2 || dropped() != 1 {
		t.Errorf("20 callers: %d logins of which %d were dropped, want 2 and 1", e.logins, dropped())
	}
	now = now.Add(time.Minute)
	ask()
	if e.logins != 3 || dropped() != 2 {
		t.Errorf("a minute later: %d logins of which %d were dropped, want 3 and 2", e.logins, dropped())
	}
}

func TestTransitRenewsItsLoginBeforeItEnds(t *testing.T) {
	t.Parallel()
	e, now := newEngine(t), time.Now()
	e.answer = signed("vault:v1:AAAA")
	x := transit(t, e.settings(t), func() time.Time { return now })
	for _, later := range []time.Duration{0, 13 * time.Minute, 14 * time.Minute, 40 * time.Minute} { // of 20
		now = now.Add(later)
		if _, err := x.SignWith(t.Context(), "sign:1", jose.ES256, []byte("a.b")); err != nil {
			t.Fatal(err)
		}
		now = now.Add(-later)
	}
	if e.logins != 3 {
		t.Errorf("%d logins, want the first, one with a third to go, and one after that ended", e.logins)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if got := e.seen(); got[len(got)-1] != "auth/token/revoke-self" {
		t.Errorf("the login outlives the process: %v", got)
	}
}

func TestTransitRefusesALoginThatNeverEnds(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.login = func(int) any {
		return map[string]any{"auth": map[string]any{"client_token": "root", "accessor": "a", "lease_duration": 0}}
	}
	if _, err := transit(t, e.settings(t), time.Now).SignWith(t.Context(), "sign:1", jose.ES256, nil); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("logged in for good: %v", err)
	}
}

func TestTransitSaysWhatIsWrongWithTheJWT(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	for name, text := range map[string]string{"empty": "", "no JWT": "hello", "two lines": "e30.e30.A\ne30.e30.A"} {
		s := e.settings(t)
		if err := os.WriteFile(s.JWTFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := transit(t, s, time.Now).SignWith(t.Context(), "sign:1", jose.ES256, nil); !errors.Is(err, brokers.ErrMisconfigured) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := e.settings(t)
	s.JWTFile = filepath.Join(t.TempDir(), "none")
	if _, err := transit(t, s, time.Now).SignWith(t.Context(), "sign:1", jose.ES256, nil); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), s.JWTFile) {
		t.Errorf("no file: %v", err)
	}
	if got := e.seen(); len(got) > 0 {
		t.Errorf("Vault was asked for %v", got)
	}
}

func TestTransitMakesNoKeyOfWhatIsNone(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	key := func(change map[string]any) func(string, string) (int, any) {
		data := map[string]any{"type": "ecdsa-p256", "latest_version": 1, "keys": map[string]any{"1": map[string]any{"public_key": public}}}
		for k, v := range change {
			data[k] = v
		}
		return func(string, string) (int, any) { return 200, map[string]any{"data": data} }
	}
	for name, answer := range map[string]func(string, string) (int, any){
		"no key in the PEM": key(map[string]any{"keys": map[string]any{"1": map[string]any{"public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}}}), "exportable": key(map[string]any{"exportable": true}), "a backup": key(map[string]any{"allow_plaintext_backup": true}), "derived": key(map[string]any{"derived": true}), "trailing": key(map[string]any{"keys": map[string]any{"1": map[string]any{"public_key": public + "x"}}}), "no version": key(map[string]any{"latest_version": 0}), "a version that is not there": key(map[string]any{"latest_version": 2}),
		"symmetric": key(map[string]any{"type": "aes256-gcm96"}), "imported": key(map[string]any{"imported_key": true}), "no PEM": key(map[string]any{"keys": map[string]any{"1": map[string]any{"public_key": "x"}}}),
		"an old style": key(map[string]any{"keys": map[string]any{"1": 1790000000}}),
	} {
		e := newEngine(t)
		e.answer = answer
		if got, public, err := transit(t, e.settings(t), time.Now).MakeKey(t.Context(), "tokens", jose.ES256); err == nil {
			t.Errorf("%s: made %s, %v", name, got, public)
		}
	}
	e := newEngine(t)
	e.answer = key(nil)
	if name, got, err := transit(t, e.settings(t), time.Now).MakeKey(t.Context(), "tokens", jose.ES256); err != nil || name != "sign-tokens-es256:1" || !private.PublicKey.Equal(got) {
		t.Errorf("a good key: %s, %v, %v", name, got, err)
	}
}

func TestTransitUnsealsWhatVaultSealed(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	e.answer = func(path, _ string) (int, any) {
		if path != "transit/decrypt/seal" {
			return 404, map[string]any{}
		}
		return 200, map[string]any{"data": map[string]any{"plaintext": "a2V5"}}
	}
	x := transit(t, e.settings(t), time.Now)
	if got, err := x.Unseal(t.Context(), secret.New("vault:v1:AAAA")); err != nil || got.Reveal() != "a2V5" {
		t.Errorf("unsealed %q, %v", got.Reveal(), err)
	}
	e.answer = func(string, string) (int, any) { return 200, map[string]any{"data": map[string]any{"plaintext": ""}} }
	if _, err := x.Unseal(t.Context(), secret.New("vault:v1:AAAA")); err == nil {
		t.Error("an empty key is taken")
	}
}

func TestTransitSettingsThatAreRefused(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	for at, change := range map[string]func(*vault.TransitSettings){
		"address":      func(s *vault.TransitSettings) { s.Address = "http://vault.example" },
		"namespace":    func(s *vault.TransitSettings) { s.Namespace = "../x" },
		"ca_file":      func(s *vault.TransitSettings) { s.CAFile = filepath.Join(t.TempDir(), "none") },
		"timeout":      func(s *vault.TransitSettings) { s.Timeout = time.Hour },
		"login.mount":  func(s *vault.TransitSettings) { s.LoginMount = "auth/jwt" },
		"login.role":   func(s *vault.TransitSettings) { s.Role = "a/b" },
		"mount":        func(s *vault.TransitSettings) { s.Mount = "a/../b" },
		"unseal_key":   func(s *vault.TransitSettings) { s.UnsealKey = "a/b" },
		"signing_keys": func(s *vault.TransitSettings) { s.SigningKey = "a?b" },
	} {
		s := e.settings(t)
		if p := s.Check(); len(p) > 0 {
			t.Fatalf("good settings: %v", p)
		}
		change(&s)
		if p := s.Check(); len(p) != 1 || p[0].Path != at {
			t.Errorf("%s: %v", at, p)
		}
		if _, err := vault.NewTransit(s, time.Now); err == nil {
			t.Errorf("%s: taken", at)
		}
	}
}

func TestTransitEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := newEngine(t)
	if _, err := transit(t, e.settings(t), time.Now).SignWith(ctx, "sign:1", jose.ES256, nil); err == nil {
		t.Error("signed for a caller who is gone")
	}
}
