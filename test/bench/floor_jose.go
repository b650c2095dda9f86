package main

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// joseFloor does the exchange as a short program on go-jose would.
type joseFloor struct {
	keys   jose.JSONWebKeySet
	signer jose.Signer
	issuer string
}

var _ exchanger = (*joseFloor)(nil)

func newJoseFloor(keys floorKeys) (*joseFloor, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: keys.sign, KeyID: issuedKeyID}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &joseFloor{keys: keys.verify, signer: signer, issuer: keys.issuer}, nil
}

func (f *joseFloor) exchange(subjectToken string, now time.Time) (string, error) {
	token, err := jwt.ParseSigned(subjectToken, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || len(token.Headers) != 1 {
		return "", errRefused
	}
	keys := f.keys.Key(token.Headers[0].KeyID)
	if len(keys) != 1 {
		return "", errRefused
	}
	var claims subjectClaimSet
	if err := token.Claims(keys[0].Key, &claims); err != nil { // verifies, then decodes
		return "", errRefused
	}
	if !claims.check(now) {
		return "", errRefused
	}
	return jwt.Signed(f.signer).Claims(newIssuedClaims(f.issuer, claims.Subject, now)).Serialize()
}
