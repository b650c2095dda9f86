//go:build unix

package federation_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// newFile returns an issuer whose keys stand in a file, and the file.
func newFile(t *testing.T) (*remote, string) {
	t.Helper()
	iss := federationtest.New(t)
	path := iss.WriteJWKS()
	return newRemoteSpec(t, iss, federation.KeySpec{Issuer: iss.URL(), JWKSFile: path, Algorithms: iss.Algorithms()}), path
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFileIsReadAgainWhenItChanges(t *testing.T) {
	r, path := newFile(t)
	first := r.Key()
	r.mustIdentify("first key")
	r.Rotate(jose.ES256)
	r.Withdraw(first.ID)
	writeFile(t, path, append(r.JWKS(), '\n')) // another size: mtime may be the same
	wantRejected(t, r.identify(), federation.ErrSignature)
	r.clock.Advance(time.Second)
	r.mustIdentify("second key, a second later")
	wantRejected(t, r.identify(federationtest.WithKey(first)), federation.ErrSignature)
	r.wantFetches(0, "key file")
}

// Kubernetes replaces mounted files by renaming a link over them.
func TestKeyFileIsReadAgainWhenItIsReplaced(t *testing.T) {
	r, path := newFile(t)
	r.mustIdentify("first key")
	first := r.Key()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	r.Withdraw(first.ID)
	doc := strings.Replace(string(r.JWKS()), "null", "[]", 1)
	next := filepath.Join(filepath.Dir(path), "next")
	writeFile(t, next, []byte(doc+strings.Repeat(" ", int(info.Size())-len(doc))))
	if err := os.Chtimes(next, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Second)
	wantRejected(t, r.identify(), federation.ErrSignature)
}

func TestMissingKeyFileFailsClosedAndRecovers(t *testing.T) {
	r, path := newFile(t)
	doc := r.JWKS()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	if s := r.status(); s.Healthy || s.LastError != "key file cannot be read" {
		t.Errorf("status %+v without a file", s)
	}
	writeFile(t, path, doc)
	r.clock.Advance(time.Second)
	r.mustIdentify("file is there")
	if s := r.status(); !s.Healthy || s.Keys != 1 {
		t.Errorf("status %+v with a file", s)
	}
}

func TestBrokenKeyFileLeavesOldKeysForAnHour(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"removed":     os.Remove,
		"half":        func(path string) error { return os.WriteFile(path, []byte(`{"keys":[`), 0o600) },
		"too large":   func(path string) error { return appendBlanks(path, 600<<10) },
		"a pipe":      func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		r, path := newFile(t)
		r.mustIdentify(name + ": before")
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(time.Second)
		r.mustIdentify(name + ": right after")
		if s := r.status(); s.Healthy || s.Keys != 1 {
			t.Errorf("%s: status %+v", name, s)
		}
		r.clock.Advance(time.Hour)
		r.mustIdentify(name + ": an hour later")
		r.clock.Advance(time.Second)
		wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	}
}

// appendBlanks makes a file larger that stays a key set.
func appendBlanks(path string, n int) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(doc, strings.Repeat(" ", n)...), 0o600)
}

// Two writes within the resolution of mtime are told apart by size.
func TestKeyFileIsReadAgainWhenOnlyItsSizeChanges(t *testing.T) {
	r, path := newFile(t)
	r.mustIdentify("first key")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	r.Rotate(jose.ES256)
	writeFile(t, path, r.JWKS())
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Second)
	r.mustIdentify("second key")
}

func TestEndedKeyFileVerifiesNothing(t *testing.T) {
	r, _ := newFile(t)
	r.mustIdentify("before")
	r.cache.Retain(nil)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	r.clock.Advance(time.Minute)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
}
