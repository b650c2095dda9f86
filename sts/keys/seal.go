package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// kekSize is the size of a key-encryption key in bytes (AES-256).
const kekSize = 32

// KEK is a key-encryption key.
type KEK struct {
	aead cipher.AEAD
	id   string
}

// NewKEK reads a key-encryption key: 32 bytes, standard base64.
func NewKEK(v secret.Value) (KEK, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(v.Reveal()))
	if err != nil || len(raw) != kekSize {
		return KEK{}, errors.New("the key-encryption key is not 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return KEK{}, fmt.Errorf("key-encryption key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return KEK{}, fmt.Errorf("key-encryption key: %w", err)
	}
	sum := sha256.Sum256(append([]byte("sallyport kek id\x00"), raw...))
	return KEK{aead: aead, id: hex.EncodeToString(sum[:8])}, nil
}

// ID names the key without telling anything about it.
func (k KEK) ID() string { return k.id }

// Sealer seals with one key-encryption key and opens with several, so that one can be exchanged for another
// while replicas run. It is immutable.
type Sealer struct{ keks []KEK }

// NewSealer returns a Sealer that seals with first and opens with any of the keys.
func NewSealer(first KEK, others ...KEK) (Sealer, error) {
	all := append([]KEK{first}, others...)
	for i, k := range all {
		if k.aead == nil {
			return Sealer{}, errors.New("a key-encryption key is missing")
		}
		if slices.ContainsFunc(all[:i], func(o KEK) bool { return o.id == k.id }) {
			return Sealer{}, fmt.Errorf("key-encryption key %s is given twice; remove one", k.id)
		}
	}
	return Sealer{all}, nil
}

func (s Sealer) isZero() bool { return len(s.keks) == 0 }

// IDs lists the names of the keys, the one that seals first.
func (s Sealer) IDs() []string {
	out := make([]string, len(s.keks))
	for i, k := range s.keks {
		out[i] = k.id
	}
	return out
}

// envelope is what is stored. The kind of its content and the key's id are authenticated with it.
type envelope struct {
	Version int    `json:"version"`
	KEK     string `json:"kek"` // id of the key-encryption key: which one to look for, nothing about it
	Sealed  []byte `json:"sealed"`
}

// Kinds of content, so that one cannot be put in the place of the other.
const (
	kindDocument = "sallyport keys 2"
	kindAudit    = "sallyport audit key 1"
)

func bound(kind, kek string) []byte { return []byte(kind + "\x00" + kek) }

func (s Sealer) sealAs(kind string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	k := s.keks[0]
	out, err := json.Marshal(envelope{Version: version, KEK: k.id, Sealed: k.aead.Seal(nil, nil, plain, bound(kind, k.id))})
	return append(out, '\n'), err
}

func (s Sealer) seal(d document) ([]byte, error) { return s.sealAs(kindDocument, d) }

// open returns the content of an envelope, its version, and whether another key than the first sealed it.
func (s Sealer) open(kind string, data []byte) (plain []byte, version int, other bool, err error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil || e.Version < 1 || e.Version > 2 {
		return nil, 0, false, fmt.Errorf("%w: what is stored is no key envelope of version 1 or 2; restore the newest backup", ErrSeal)
	}
	i := slices.IndexFunc(s.keks, func(k KEK) bool { return k.id == e.KEK })
	if i < 0 {
		return nil, 0, false, fmt.Errorf("%w: they were sealed with key-encryption key %s, and signing has %s; add that one to signing.unseal_with", ErrSeal, printable(e.KEK), strings.Join(s.IDs(), ", "))
	}
	aad := bound(kind, e.KEK)
	if e.Version == 1 && kind == kindDocument {
		aad = []byte(e.KEK)
	}
	plain, err = s.keks[i].aead.Open(nil, nil, e.Sealed, aad)
	if err != nil {
		return nil, 0, false, fmt.Errorf("%w: what is stored was changed after it was sealed; restore the newest backup", ErrSeal)
	}
	return plain, e.Version, i > 0, nil
}

// document opens a sealed document of any version.
func (s Sealer) document(data []byte) (d document, outdated bool, err error) {
	plain, v, other, err := s.open(kindDocument, data)
	if err != nil {
		return document{}, false, err
	}
	if v == 1 {
		old, err := s.legacy(plain)
		if err != nil {
			return document{}, false, err
		}
		d, err := old.forward()
		return d, true, err
	}
	if err := json.Unmarshal(plain, &d); err != nil {
		return document{}, false, fmt.Errorf("%w: the content is not what this program writes", ErrSeal)
	}
	return d, other, d.check()
}

func (s Sealer) legacy(plain []byte) (legacy, error) {
	var l legacy
	if err := json.Unmarshal(plain, &l); err != nil || l.Version != 1 {
		return legacy{}, fmt.Errorf("%w: the content is not of version 1", ErrSeal)
	}
	return l, nil
}

// printable keeps what a stored file says to what an id can be.
func printable(id string) string {
	if len(id) > 16 || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }) {
		return "of no known form"
	}
	return id
}
