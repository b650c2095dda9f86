// Package keys holds our own keys: the one that signs tokens, the one that signs the audit log's heads,
// and the one that authenticates stored revocations. On disk they are one file, sealed with AES-256-GCM
// under a key-encryption key that configuration refers to; in memory they never leave this package, which
// lends out signatures, a public key set and a verifier.
//
// Keys are created once, with the deployment. A deployment that has state but no key file does not start:
// new keys would silently disown every token and every log that the old ones signed.
package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// fileName is the sealed file inside the data directory.
const fileName = "keys.sealed"

// Errors of opening keys.
var (
	ErrMissing = errors.New("the key file is missing although this deployment has state")
	ErrSeal    = errors.New("the key file does not open with this key-encryption key")
)

// Keys is the opened set. It is immutable and safe for concurrent use.
type Keys struct {
	signing jose.JSONWebKey // private
	audit   ed25519.PrivateKey
	mac     []byte
	public  jose.JSONWebKeySet
}

// material is what the sealed file holds.
type material struct {
	Version int             `json:"version"`
	Created time.Time       `json:"created"`
	Signing jose.JSONWebKey `json:"signing"`
	Audit   []byte          `json:"audit"` // Ed25519 seed
	MAC     []byte          `json:"mac"`
}

// Open reads the sealed keys in dir. When there are none it creates them, unless initialised says that
// the deployment has state already (ErrMissing).
func Open(dir string, kek KEK, initialised bool, now time.Time) (*Keys, error) {
	path := filepath.Join(dir, fileName)
	sealed, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if initialised {
			return nil, fmt.Errorf("%w: restore %s from its backup, or start a new deployment with an empty data_dir", ErrMissing, path)
		}
		return create(path, kek, now)
	}
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	var m material
	if err := kek.open(sealed, &m); err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return load(m)
}

// AuditPublic reads only the public key that verifies the audit log's heads.
func AuditPublic(dir string, kek KEK) (ed25519.PublicKey, error) {
	k, err := Open(dir, kek, true, time.Time{})
	if err != nil {
		return nil, err
	}
	return k.audit.Public().(ed25519.PublicKey), nil
}

func create(path string, kek KEK, now time.Time) (*Keys, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("creating the signing key: %w", err)
	}
	signing := jose.JSONWebKey{Key: private, Algorithm: string(jose.ES256), Use: "sig"}
	if signing.KeyID, err = Thumbprint(signing); err != nil {
		return nil, err
	}
	m := material{Version: 1, Created: now.UTC(), Signing: signing, Audit: make([]byte, ed25519.SeedSize), MAC: make([]byte, sha256.Size)}
	_, _ = rand.Read(m.Audit) // never fails (crypto/rand since Go 1.24)
	_, _ = rand.Read(m.MAC)
	sealed, err := kek.seal(m)
	if err != nil {
		return nil, fmt.Errorf("sealing keys: %w", err)
	}
	if err := writeNew(path, sealed); err != nil {
		return nil, fmt.Errorf("writing keys: %w", err)
	}
	return load(m)
}

// writeNew makes path with data, synced, or nothing; it never replaces a file.
func writeNew(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func load(m material) (*Keys, error) {
	if m.Version != 1 || !m.Signing.Valid() || len(m.Audit) != ed25519.SeedSize || len(m.MAC) != sha256.Size {
		return nil, errors.New("the key file's content is not of version 1")
	}
	return &Keys{
		signing: m.Signing,
		audit:   ed25519.NewKeyFromSeed(m.Audit),
		mac:     m.MAC,
		public:  jose.JSONWebKeySet{Keys: []jose.JSONWebKey{m.Signing.Public()}},
	}, nil
}

// Thumbprint returns the kid of a key: its RFC 7638 SHA-256 thumbprint, base64url.
func Thumbprint(k jose.JSONWebKey) (string, error) {
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("naming a key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// Public returns the published key set: public members only.
func (k *Keys) Public() jose.JSONWebKeySet { return k.public }

// Algorithms returns the algorithms of the published keys.
func (k *Keys) Algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.signing.Algorithm)}
}

// Audit returns the signer of the audit log's heads.
func (k *Keys) Audit() ed25519.PrivateKey { return k.audit }

// MAC returns the key that authenticates stored revocations.
func (k *Keys) MAC() []byte { return k.mac }

// VerifySignature implements zitadel/oidc's key-set seam over our own published keys.
func (k *Keys) VerifySignature(_ context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	if len(jws.Signatures) != 1 {
		return nil, errors.New("a compact JWS has one signature")
	}
	h := jws.Signatures[0].Header
	for _, key := range k.public.Keys {
		if key.KeyID == h.KeyID && key.Algorithm == h.Algorithm {
			return jws.Verify(key.Key)
		}
	}
	return nil, errors.New("no published key has this kid and algorithm")
}

var _ oidc.KeySet = (*Keys)(nil)
