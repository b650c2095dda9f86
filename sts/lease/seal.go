package lease

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Sealer seals what brokers need to take credentials back. It is immutable.
type Sealer struct{ aead cipher.AEAD }

// NewSealer derives its key from a secret that all replicas of a deployment share.
func NewSealer(root []byte) (Sealer, error) {
	if len(root) < sha256.Size {
		return Sealer{}, fmt.Errorf("sealing leases takes a secret of %d bytes, not %d", sha256.Size, len(root))
	}
	key, err := hkdf.Key(sha256.New, root, nil, "sallyport lease handles 1", 32)
	if err != nil {
		return Sealer{}, fmt.Errorf("sealing leases: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Sealer{}, fmt.Errorf("sealing leases: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return Sealer{aead}, err
}

// seal binds the data to its lease: put in the place of another's, it does not open.
func (s Sealer) seal(lease string, data secret.Value) []byte {
	if data.IsZero() {
		return nil
	}
	return s.aead.Seal(nil, nil, []byte(data.Reveal()), []byte(lease))
}

var errSeal = errors.New("what the ledger keeps for the broker was changed, or sealed by another deployment")

func (s Sealer) open(lease string, sealed []byte) (secret.Value, error) {
	if len(sealed) == 0 {
		return secret.Value{}, nil
	}
	plain, err := s.aead.Open(nil, nil, sealed, []byte(lease))
	if err != nil {
		return secret.Value{}, errSeal
	}
	return secret.New(string(plain)), nil
}

// Fingerprint names a credential without telling it: the SHA-256 of what access_token says, hex. The credentials that
// it is used for hold at least 128 random bits.
func Fingerprint(v secret.Value) string {
	sum := sha256.Sum256([]byte(v.Reveal()))
	return hex.EncodeToString(sum[:])
}
