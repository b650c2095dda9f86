package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// cached is the place of one credential on disk. Name and key are derived from the identity token and from all that was asked
// for: whoever has another token finds nothing, and whoever has the file alone can read nothing. The zero value keeps nothing.
type cached struct {
	path string
	aead cipher.AEAD
}

// kept is what a file holds, sealed.
type kept struct {
	Expires time.Time                   `json:"expires"`
	Asked   time.Time                   `json:"asked"`
	Answer  *oidc.TokenExchangeResponse `json:"answer"`
}

// kept returns the place of what a asks for, as whoever has these tokens.
func (a *ask) kept(subject, actor secret.Value) (cached, error) {
	if a.cache == "" {
		return cached{}, nil
	}
	if err := ownDirectory(a.cache); err != nil {
		return cached{}, usagef("--cache %s: %w", visible(a.cache), err)
	}
	asked, err := json.Marshal([]any{a.url, a.audience, a.resource, a.scopes, a.form})
	if err != nil {
		return cached{}, err
	}
	secrets, err := json.Marshal([]string{subject.Reveal(), actor.Reveal()})
	if err != nil {
		return cached{}, err
	}
	name, err := hkdf.Key(sha256.New, secrets, asked, "sallyport cache name", 16)
	if err != nil {
		return cached{}, err
	}
	key, err := hkdf.Key(sha256.New, secrets, asked, "sallyport cache key", 32)
	if err != nil {
		return cached{}, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return cached{}, err
	}
	c := cached{path: filepath.Join(a.cache, hex.EncodeToString(name)+cacheEnding)}
	c.aead, err = cipher.NewGCM(block)
	return c, err
}

const cacheEnding = ".credential"

// ownDirectory makes a directory for its owner alone, or refuses one that is not.
func ownDirectory(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("is not a directory (a link is none)")
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others may use it (mode %04o); chmod 0700 it, or name another", info.Mode().Perm())
	case !ownedByUs(info):
		return errors.New("is another user's")
	}
	return nil
}

// get returns what is kept, unless it is over soon: in the last fifth of its life, or its last half minute, nobody gets it any
// more.
func (c cached) get(now time.Time) (credential, bool) {
	if c.path == "" {
		return credential{}, false
	}
	sealed, err := os.ReadFile(c.path)
	if err != nil {
		return credential{}, false
	}
	k, err := c.open(sealed)
	if err != nil || !now.Before(k.Expires.Add(-max(30*time.Second, k.Expires.Sub(k.Asked)/5))) || now.Before(k.Asked.Add(-time.Minute)) {
		_ = os.Remove(c.path) // over, of a clock that was set back, or nobody's any more
		return credential{}, false
	}
	k.Answer.ExpiresIn = uint64(k.Expires.Sub(now) / time.Second)
	return credential{k.Answer, k.Expires}, true
}

func (c cached) open(sealed []byte) (kept, error) {
	var k kept
	n := c.aead.NonceSize()
	if len(sealed) < n {
		return k, io.ErrUnexpectedEOF
	}
	raw, err := c.aead.Open(nil, sealed[:n], sealed[n:], nil)
	if err == nil {
		err = json.Unmarshal(raw, &k)
	}
	if err == nil && k.Answer == nil {
		err = errors.New("it is empty")
	}
	return k, err
}

// put keeps a credential that says when it is over. The file is dated to that moment, so that anybody can sweep.
func (c cached) put(out credential, asked time.Time) error {
	if c.path == "" || out.expires.IsZero() {
		return nil
	}
	sweep(filepath.Dir(c.path), asked)
	raw, err := json.Marshal(kept{out.expires, asked, out.TokenExchangeResponse})
	if err != nil {
		return err
	}
	nonce := make([]byte, c.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	if err := writeFile(c.path, func(w io.Writer) error { _, err := w.Write(c.aead.Seal(nonce, nonce, raw, nil)); return err }); err != nil {
		return err
	}
	return os.Chtimes(c.path, out.expires, out.expires)
}

// forget drops what is kept.
func (c cached) forget() {
	if c.path != "" {
		_ = os.Remove(c.path)
	}
}

// sweep removes what is over, of whatever identity.
func sweep(dir string, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), cacheEnding) && info.ModTime().Before(now) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
