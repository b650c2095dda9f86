package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// issuedKeyID names the floors' signing key in the header of what they issue.
const issuedKeyID = "floor-1"

// es256Half is the length in bytes of r and of s in an ES256 signature (RFC 7518 section 3.4).
const es256Half = 32

// rawFloor does the exchange with nothing but the standard library.
type rawFloor struct {
	keys   map[string]*rsa.PublicKey // by kid
	sign   *ecdsa.PrivateKey
	issuer string
	header string // encoded, of every token issued
}

var _ exchanger = (*rawFloor)(nil)

func newRawFloor(keys floorKeys) (*rawFloor, error) {
	f := &rawFloor{
		keys:   make(map[string]*rsa.PublicKey),
		sign:   keys.sign,
		issuer: keys.issuer,
		header: base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"` + issuedKeyID + `","typ":"at+jwt"}`)),
	}
	for _, k := range keys.verify.Keys {
		key, ok := k.Key.(*rsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("key %q is not an RSA public key", k.KeyID)
		}
		f.keys[k.KeyID] = key
	}
	return f, nil
}

func (f *rawFloor) exchange(subjectToken string, now time.Time) (string, error) {
	claims, err := f.verify(subjectToken)
	if err != nil {
		return "", err
	}
	if !claims.check(now) {
		return "", errRefused
	}
	return f.issue(newIssuedClaims(f.issuer, claims.Subject, now))
}

// verify checks the signature and decodes the claims.
func (f *rawFloor) verify(token string) (*subjectClaimSet, error) {
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok {
		return nil, errRefused
	}
	var h struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	if err := decodePart(header, &h); err != nil {
		return nil, errRefused
	}
	key := f.keys[h.KeyID]
	if h.Algorithm != "RS256" || key == nil {
		return nil, errRefused
	}
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return nil, errRefused
	}
	digest := sha256.Sum256([]byte(token[:len(header)+1+len(payload)]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sig); err != nil {
		return nil, errRefused
	}
	claims := new(subjectClaimSet)
	if err := decodePart(payload, claims); err != nil {
		return nil, errRefused
	}
	return claims, nil
}

func decodePart(part string, v any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// issue signs the claims with ES256.
func (f *rawFloor) issue(claims issuedClaims) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := f.header + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, f.sign, digest[:])
	if err != nil {
		return "", err
	}
	var sig [2 * es256Half]byte
	r.FillBytes(sig[:es256Half])
	s.FillBytes(sig[es256Half:])
	return input + "." + base64.RawURLEncoding.EncodeToString(sig[:]), nil
}
