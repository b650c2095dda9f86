package keys

import (
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Signer signs claims with the active key. It is immutable and safe for concurrent use.
type Signer struct {
	signers map[string]jose.Signer
}

// Signer returns a signer for the given typ headers, each prepared once.
func (k *Keys) Signer(types ...string) (*Signer, error) {
	s := &Signer{signers: make(map[string]jose.Signer, len(types))}
	for _, typ := range types {
		signer, err := jose.NewSigner(
			jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.signing.Algorithm), Key: k.signing},
			new(jose.SignerOptions).WithType(jose.ContentType(typ)))
		if err != nil {
			return nil, fmt.Errorf("preparing the signing key: %w", err)
		}
		s.signers[typ] = signer
	}
	return s, nil
}

// Sign returns claims as a compact JWS (RFC 7515 section 3.1). A typ that the signer was not prepared for
// is an error: one key signs only the kinds of token it was meant for (RFC 8725 section 3.11).
func (s *Signer) Sign(typ string, claims any) (string, error) {
	signer, ok := s.signers[typ]
	if !ok {
		return "", fmt.Errorf("this key does not sign tokens of typ %s", typ)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return jws.CompactSerialize()
}
