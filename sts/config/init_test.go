package config_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-sts/sallyport/sts/config"
)

func TestStarterConfigurationLoadsAsItIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	written, err := config.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	set := mustLoad(t, dir, productKinds(t))
	if !set.Server.TLS.Off || !strings.HasPrefix(set.Server.Issuer, "http://127.0.0.1:") {
		t.Errorf("the starter is not for loopback: %+v", set.Server)
	}
	schemas := compileSchemas(t, productKinds(t))
	for _, name := range written {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("%s was reported as written: %v", name, err)
		}
		schemas.accept(t, name, data)
	}
	for name, want := range map[string]os.FileMode{
		"secrets": 0o700, "secrets/kek": 0o600, "secrets/local-issuer.pem": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
	ignore, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
	if err != nil || !strings.Contains(string(ignore), "/secrets/\n") || !strings.Contains(string(ignore), "/data/\n") {
		t.Errorf(".gitignore: got %q, %v", ignore, err)
	}
}

func TestStarterKeysAreFresh(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if _, err := config.Init(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"secrets/kek", "secrets/local-issuer.pem", "local/jwks.json"} {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if errX != nil || errY != nil || string(x) == string(y) {
			t.Errorf("%s is the same in two starters (%v, %v)", name, errX, errY)
		}
	}
}

func TestInitNeverWritesOverAnything(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "sallyport.yaml", "mine\n")
	before := tree(t, dir)
	written, err := config.Init(dir)
	if err == nil || len(written) > 0 || !strings.Contains(err.Error(), "not empty") || !strings.Contains(err.Error(), "sallyport.yaml") {
		t.Errorf("got %v, %v; want a refusal that names the file", written, err)
	}
	if tree(t, dir) != before {
		t.Error("the directory was changed")
	}
	fresh := t.TempDir()
	put(t, fresh, ".git/config", "x\n")
	if written, err := config.Init(fresh); err != nil || !slices.Contains(written, "sallyport.yaml") {
		t.Errorf("an empty checkout: got %v, %v; want the starter", written, err)
	}
	if _, err := config.Init(fresh); err == nil {
		t.Error("a second Init wrote over the first")
	}
	put(t, dir, "file", "x")
	if _, err := config.Init(filepath.Join(dir, "file")); err == nil {
		t.Error("Init accepted a file for a directory")
	}
}

// The local example works: what the script prints verifies with the key set that the starter trusts.
func TestStarterTokenVerifies(t *testing.T) {
	dir := t.TempDir()
	if _, err := config.Init(dir); err != nil {
		t.Fatal(err)
	}
	set := mustLoad(t, dir, productKinds(t))
	out, err := exec.Command("sh", filepath.Join(dir, "local", "token.sh"), "checkout").Output()
	if err != nil {
		t.Fatalf("local/token.sh: %v (it needs openssl: apt-get install openssl)", err)
	}
	token, err := jwt.ParseSigned(string(out), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := os.ReadFile(set.Issuers[0].Keys.JWKSFile)
	if err != nil {
		t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &keys); err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	if err := token.Claims(keys.Keys[0].Key, &claims); err != nil {
		t.Fatal(err)
	}
	is := set.Issuers[0]
	if claims.Issuer != is.URL || !slices.Contains(is.Audiences, claims.Audience[0]) || claims.Subject != "checkout" ||
		claims.Expiry.Time().Sub(claims.IssuedAt.Time()) > is.MaxLifetime || time.Until(claims.Expiry.Time()) <= 0 {
		t.Errorf("got %+v, want a token for %+v", claims, is)
	}
}
