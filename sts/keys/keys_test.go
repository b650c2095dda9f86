package keys_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
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

var plan = keys.Plan{Algorithms: []jose.SignatureAlgorithm{jose.ES256}, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore}

func config(t *testing.T, dir string, kek keys.KEK, others ...keys.KEK) keys.Config {
	t.Helper()
	s, err := keys.NewSealer(kek, others...)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Config{Dir: dir, Sealer: s, Plan: plan, Now: time.Now}
}

func opened(t *testing.T, c keys.Config) *keys.Keys {
	t.Helper()
	out, err := keys.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("opening keys: %v", err)
	}
	return out
}

func open(t *testing.T, dir string, k keys.KEK, initialised bool) *keys.Keys {
	t.Helper()
	c := config(t, dir, k)
	c.Initialised, c.Logged = initialised, initialised
	return opened(t, c)
}

func kid(k *keys.Keys) string { return k.Tokens().Published().Set.Keys[0].KeyID }

func TestKeysAreTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), kek(t)
	first, second := open(t, dir, k, false), open(t, dir, k, true)
	if kid(first) != kid(second) {
		t.Errorf("kid after a restart is %s, was %s", kid(second), kid(first))
	}
	if !bytes.Equal(first.MAC(), second.MAC()) || !first.Audit().Equal(second.Audit()) {
		t.Error("the audit or MAC key changed")
	}
}

func TestKeyFileHoldsNothingReadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := open(t, dir, kek(t), false)
	for _, name := range []string{"keys.sealed", "audit.key"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, canary := range [][]byte{k.MAC(), k.Audit().Seed(), []byte(base64.StdEncoding.EncodeToString(k.MAC())), []byte(`"d"`)} {
			if bytes.Contains(b, canary) {
				t.Errorf("%s shows key material", name)
			}
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s is %v (%v), want 0600", name, info.Mode(), err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeysRefuse(t *testing.T) {
	t.Parallel()
	right := kek(t)
	for _, tc := range []struct {
		name  string
		kek   keys.KEK
		spoil func(t *testing.T, dir string)
		want  error
	}{
		{"another key-encryption key", kek(t), nil, keys.ErrSeal},
		{"a changed file", right, func(t *testing.T, dir string) {
			path := filepath.Join(dir, "keys.sealed")
			var e map[string]any
			if err := json.Unmarshal(read(t, path), &e); err != nil {
				t.Fatal(err)
			}
			raw, _ := base64.StdEncoding.DecodeString(e["sealed"].(string))
			raw[len(raw)/2] ^= 1
			e["sealed"] = base64.StdEncoding.EncodeToString(raw)
			b, _ := json.Marshal(e)
			put(t, path, b)
		}, keys.ErrSeal},
		{"no envelope", right, func(t *testing.T, dir string) { put(t, filepath.Join(dir, "keys.sealed"), []byte("{}")) }, keys.ErrSeal},
		{"the audit key in the place of the document", right, func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "keys.sealed"), read(t, filepath.Join(dir, "audit.key")))
		}, keys.ErrSeal},
		{"a deployment with state and no keys", right, func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "keys.sealed")) }, keys.ErrMissing},
		{"a log without its key", right, func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "audit.key")) }, keys.ErrMissing},
		{"keys of another deployment under the same key-encryption key", right, func(t *testing.T, dir string) {
			other := t.TempDir()
			open(t, other, right, false)
			put(t, filepath.Join(dir, "keys.sealed"), read(t, filepath.Join(other, "keys.sealed")))
		}, keys.ErrRollback},
		{"an older document", right, func(t *testing.T, dir string) {
			old := read(t, filepath.Join(dir, "keys.sealed"))
			if err := open(t, dir, right, true).Rotate(t.Context(), keys.Rotation{Compromised: true}); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "keys.sealed"), old)
		}, keys.ErrRollback},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open(t, dir, right, false)
			if tc.spoil != nil {
				tc.spoil(t, dir)
			}
			c := config(t, dir, tc.kek)
			c.Initialised, c.Logged = true, true
			if _, err := keys.Open(t.Context(), c); !errors.Is(err, tc.want) {
				t.Errorf("Open says %v, want %v", err, tc.want)
			}
		})
	}
}

// The fixture was written by the program that knew version 1 only.
func TestKeyFileOfVersion1IsTakenForward(t *testing.T) {
	t.Parallel()
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(i)
	}
	old, err := keys.NewKEK(secret.New(base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "keys.sealed"), read(t, "testdata/v1/keys.sealed"))
	var want struct {
		Token  string
		MAC    []byte
		Public []byte `json:"audit_public"`
	}
	if err := json.Unmarshal(read(t, "testdata/v1/expect.json"), &want); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from version 2
		k := open(t, dir, old, true)
		jws, err := jose.ParseSignedCompact(want.Token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Tokens().VerifySignature(t.Context(), jws); err != nil {
			t.Errorf("a token of version 1 does not verify: %v", err)
		}
		if !bytes.Equal(k.MAC(), want.MAC) || !bytes.Equal(k.Audit().Public().(ed25519.PublicKey), want.Public) {
			t.Error("the MAC or audit key is another")
		}
	}
}

func TestKeyEncryptionKeyIsChangedWhileTheOldOneStillOpens(t *testing.T) {
	t.Parallel()
	dir, old, fresh := t.TempDir(), kek(t), kek(t)
	first := open(t, dir, old, false)
	c := config(t, dir, fresh, old)
	c.Initialised, c.Logged = true, true
	opened(t, c) // seals anew
	if second := open(t, dir, fresh, true); kid(first) != kid(second) || !first.Audit().Equal(second.Audit()) {
		t.Error("the keys changed with the key-encryption key")
	}
	c = config(t, dir, old)
	c.Initialised, c.Logged = true, true
	if _, err := keys.Open(t.Context(), c); !errors.Is(err, keys.ErrSeal) {
		t.Errorf("the old key-encryption key still opens: %v", err)
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
	b, err := json.Marshal(open(t, t.TempDir(), kek(t), false).Tokens().Published().Set)
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
	s := k.Tokens()
	if _, err := s.Sign(t.Context(), keys.Header{Type: "logout+jwt"}, map[string]string{}); err == nil {
		t.Error("a typ that the set is not meant for was signed")
	}
	token, err := s.Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]string{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if payload, err := s.VerifySignature(context.Background(), jws); err != nil || string(payload) != `{"sub":"x"}` {
		t.Errorf("verified to %s (%v)", payload, err)
	}
	other := open(t, t.TempDir(), kek(t), false)
	if _, err := other.Tokens().VerifySignature(context.Background(), jws); err == nil {
		t.Error("another deployment's keys verify our token")
	}
	if _, err := k.Assertions().VerifySignature(context.Background(), jws); err == nil {
		t.Error("the keys of the second issuer verify a token of the first")
	}
}
