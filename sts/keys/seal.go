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

// envelope is the sealed file.
type envelope struct {
	Version int    `json:"version"`
	KEK     string `json:"kek"` // id of the key-encryption key: which one to look for, nothing about it
	Sealed  []byte `json:"sealed"`
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

func (k KEK) seal(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{Version: 1, KEK: k.id, Sealed: k.aead.Seal(nil, nil, plain, []byte(k.id))})
}

func (k KEK) open(data []byte, v any) error {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil || e.Version != 1 {
		return fmt.Errorf("%w: the file is not a key envelope of version 1", ErrSeal)
	}
	if e.KEK != k.id {
		return fmt.Errorf("%w: the file was sealed with key %s, the configured one is %s", ErrSeal, e.KEK, k.id)
	}
	plain, err := k.aead.Open(nil, nil, e.Sealed, []byte(e.KEK))
	if err != nil {
		return fmt.Errorf("%w: the file was changed", ErrSeal)
	}
	return json.Unmarshal(plain, v)
}
