package keys_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/keys"
)

func kek(t *testing.T) keys.KEK {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	k, err := keys.NewKEK(secret.New(base64.StdEncoding.EncodeToString(raw) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t *testing.T, dir string, k keys.KEK, initialised bool) *keys.Keys {
	t.Helper()
	out, err := keys.Open(dir, k, initialised, time.Now())
	if err != nil {
		t.Fatalf("opening keys: %v", err)
	}
	return out
}

func TestKeysAreTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), kek(t)
	first, second := open(t, dir, k, false), open(t, dir, k, true)
	if a, b := first.Public().Keys[0].KeyID, second.Public().Keys[0].KeyID; a != b {
		t.Errorf("kid after a restart is %s, was %s", b, a)
	}
	if !bytes.Equal(first.MAC(), second.MAC()) || !first.Audit().Equal(second.Audit()) {
		t.Error("the audit or MAC key changed")
	}
}

func TestKeyFileHoldsNothingReadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := open(t, dir, kek(t), false)
	path := filepath.Join(dir, "keys.sealed")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, canary := range [][]byte{k.MAC(), k.Audit().Seed(), []byte(base64.StdEncoding.EncodeToString(k.MAC())), []byte(`"d"`)} {
		if bytes.Contains(b, canary) {
			t.Errorf("the sealed file shows key material")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v (%v), want 0600", info.Mode(), err)
	}
}

func TestKeysRefuse(t *testing.T) {
	t.Parallel()
	right := kek(t)
	for _, tc := range []struct {
		name        string
		kek         keys.KEK
		initialised bool
		spoil       func(t *testing.T, path string)
		want        error
	}{
		{"another key-encryption key", kek(t), true, nil, keys.ErrSeal},
		{"a changed file", right, true, func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var e map[string]any
			if err := json.Unmarshal(b, &e); err != nil {
				t.Fatal(err)
			}
			raw, _ := base64.StdEncoding.DecodeString(e["sealed"].(string))
			raw[len(raw)/2] ^= 1
			e["sealed"] = base64.StdEncoding.EncodeToString(raw)
			b, _ = json.Marshal(e)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrSeal},
		{"no envelope", right, true, func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrSeal},
		{"a deployment with state and no keys", right, true, func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, keys.ErrMissing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open(t, dir, right, false)
			if tc.spoil != nil {
				tc.spoil(t, filepath.Join(dir, "keys.sealed"))
			}
			if _, err := keys.Open(dir, tc.kek, tc.initialised, time.Now()); !errors.Is(err, tc.want) {
				t.Errorf("Open says %v, want %v", err, tc.want)
			}
		})
	}
}

func TestNewKEKRefusesWhatIsNot32Bytes(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "short", base64.StdEncoding.EncodeToString(make([]byte, 31)), strings.Repeat("a", 32)} {
		_, err := keys.NewKEK(secret.New(s))
		if err == nil {
			t.Errorf("a key-encryption key of %d characters was accepted", len(s))
		} else if s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func TestPublishedKeySetHasPublicMembersOnly(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(open(t, t.TempDir(), kek(t), false).Public())
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, ok := k[private]; ok {
				t.Errorf("private member %s is published", private)
			}
		}
		for _, public := range []string{"kty", "kid", "use", "alg", "crv", "x", "y"} {
			if _, ok := k[public]; !ok {
				t.Errorf("member %s is missing", public)
			}
		}
	}
	if len(set.Keys) != 1 {
		t.Errorf("%d keys, want 1", len(set.Keys))
	}
}

// The example of RFC 7638 section 3.1.
func TestThumbprintIsThatOfTheRFC(t *testing.T) {
	t.Parallel()
	var k jose.JSONWebKey
	err := json.Unmarshal([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`), &k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := keys.Thumbprint(k)
	if want := "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; err != nil || got != want {
		t.Errorf("thumbprint is %s (%v), want %s", got, err, want)
	}
}

func TestSignerSignsOnlyItsKindsAndTheKeySetVerifies(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), kek(t), false)
	s, err := k.Signer("at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign("JWT", map[string]string{}); err == nil {
		t.Error("a typ that the signer was not made for was signed")
	}
	token, err := s.Sign("at+jwt", map[string]string{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if payload, err := k.VerifySignature(context.Background(), jws); err != nil || string(payload) != `{"sub":"x"}` {
		t.Errorf("verified to %s (%v)", payload, err)
	}
	other := open(t, t.TempDir(), kek(t), false)
	if _, err := other.VerifySignature(context.Background(), jws); err == nil {
		t.Error("another deployment's keys verify our token")
	}
}
