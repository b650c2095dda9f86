package federation

import (
	"crypto/ed25519"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// errUnknownKey is the refusal that a refetch may cure: the issuer may have rotated.
var errUnknownKey = &refusal{ErrSignature, "no usable key of this issuer fits kid and alg"}

// verify checks the signature with the one key that fits, and returns the bytes that it covers. The key's
// algorithms were settled when it was read; go-jose does the cryptography.
func (ks *keySet) verify(jws *jose.JSONWebSignature) ([]byte, error) {
	if len(jws.Signatures) != 1 {
		return nil, malformed("not one signature")
	}
	h := jws.Signatures[0].Protected
	k, err := ks.pick(h.KeyID, jose.SignatureAlgorithm(h.Algorithm))
	if err != nil {
		return nil, err
	}
	key := k.key
	if public, ok := key.(ed25519.PublicKey); ok {
		key = edwardsKey(public)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, &refusal{ErrSignature, "the key that kid names does not verify it"}
	}
	return payload, nil
}

// pick returns the key for kid. Without kid it must be the only one that fits (RFC 7515 section 4.1.4
// leaves the choice open; guessing would try keys until one fits).
func (ks *keySet) pick(kid string, alg jose.SignatureAlgorithm) (*verificationKey, error) {
	if kid != "" {
		k := ks.byID[kid]
		if k == nil {
			return nil, errUnknownKey
		}
		if !slices.Contains(k.algs, alg) {
			return nil, &refusal{ErrAlgorithm, "the key that kid names is bound to another algorithm"}
		}
		return k, nil
	}
	var found *verificationKey
	for _, k := range ks.all {
		if !slices.Contains(k.algs, alg) {
			continue
		}
		if found != nil {
			return nil, &refusal{ErrSignature, "token has no kid and several keys fit"}
		}
		found = k
	}
	if found == nil {
		return nil, errUnknownKey
	}
	return found, nil
}

// edwardsKey lets go-jose verify under both names of the one algorithm; itself it knows EdDSA alone.
type edwardsKey ed25519.PublicKey

// VerifyPayload implements jose.OpaqueVerifier.
func (k edwardsKey) VerifyPayload(payload, signature []byte, alg jose.SignatureAlgorithm) error {
	if !edwards(string(alg)) || !ed25519.Verify(ed25519.PublicKey(k), payload, signature) {
		return errors.New("not signed by this key")
	}
	return nil
}
