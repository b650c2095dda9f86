package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// rsaBits is the size of RSA keys: what every relying party takes, for keys that live a month.
const rsaBits = 2048

// Supported lists the algorithms that we can sign with.
func Supported() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256, jose.PS256, jose.EdDSA}
}

// newKey is the [maker] of keys that this process has.
func newKey(_ string, alg jose.SignatureAlgorithm, published, activates time.Time) (key, error) {
	var private any
	var err error
	switch alg {
	case jose.ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.RS256, jose.PS256:
		private, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case jose.EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("the algorithm is not supported")
	}
	if err != nil {
		return key{}, fmt.Errorf("making a key for %s: %w", alg, err)
	}
	k := key{
		JWK:       jose.JSONWebKey{Key: private, Algorithm: string(alg), Use: "sig"},
		Published: published, Activates: activates,
	}
	k.JWK.KeyID, err = Thumbprint(k.JWK)
	return k, err
}

// check refuses a key that does not fit its algorithm or its name.
func (k key) check() error {
	fits := false
	switch public := k.JWK.Public().Key.(type) {
	case *ecdsa.PublicKey:
		fits = k.algorithm() == jose.ES256 && public.Curve == elliptic.P256() ||
			k.algorithm() == jose.ES384 && public.Curve == elliptic.P384()
	case *rsa.PublicKey:
		fits = (k.algorithm() == jose.RS256 || k.algorithm() == jose.PS256) && public.N.BitLen() >= rsaBits
	case ed25519.PublicKey:
		fits = k.algorithm() == jose.EdDSA
	}
	name, err := Thumbprint(k.JWK)
	switch {
	case !fits || !k.JWK.Valid():
		return errors.New("it is no key for its algorithm")
	case k.JWK.IsPublic() != (k.KMS != ""):
		return errors.New("its private half is not where it is said to be")
	case err != nil || name != k.JWK.KeyID:
		return errors.New("its kid is not its thumbprint")
	case k.Published.IsZero() || k.Activates.Before(k.Published) || !k.Retires.IsZero() && k.Retires.Before(k.Activates):
		return errors.New("its timeline runs backwards")
	}
	return nil
}

func thumbprint(k jose.JSONWebKey) ([]byte, error) { return k.Thumbprint(crypto.SHA256) }
