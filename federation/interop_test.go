package federation_test

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// What go-jose signs we verify, and a changed byte we do not accept.
func TestSignaturesInteroperateWithGoJose(t *testing.T) {
	for _, alg := range []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	} {
		iss := federationtest.NewNamed(t, "https://issuer.example", alg)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: iss.Key().Signer},
			(&jose.SignerOptions{}).WithHeader("kid", iss.Key().ID).WithType("JWT"))
		if err != nil {
			t.Fatal(err)
		}
		payload, _ := json.Marshal(iss.Claims(noon, "api", audience))
		jws, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		trust := newTrust(t, entry(iss))
		if _, err := identify(t, trust, secret.New(raw)); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		bad := []byte(raw)
		bad[len(bad)-20] ^= 1 // A to @ and the like fail on charset, the others on the signature
		if _, err := identify(t, trust, secret.New(string(bad))); err == nil {
			t.Errorf("%s: a changed signature was accepted", alg)
		}
		// And go-jose verifies what federationtest signs.
		ours, err := jose.ParseSignedCompact(iss.Sign(iss.Claims(noon, "api", audience)).Reveal(), []jose.SignatureAlgorithm{alg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Verify(iss.Key().Signer.Public()); err != nil {
			t.Errorf("%s: go-jose refuses what federationtest signed: %v", alg, err)
		}
	}
}

// The reasons reach the operator through zitadel's seam.
func TestKeySetSaysWhyItRefuses(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	other := federationtest.NewKey(t, "key-1", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims, federationtest.WithKey(other)))
	wantRejected(t, err, federation.ErrSignature)
	_, err = identify(t, newTrust(t, entry(iss)), iss.Sign(claims, header("kid", "unknown")))
	wantRejected(t, err, federation.ErrSignature)

	bound := federationtest.NewNamed(t, "https://issuer.example", jose.RS256)
	pss := bound.Key()
	pss.Algorithm = jose.PS256
	e := entry(bound)
	e.Algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
	_, err = identify(t, newTrust(t, e), bound.Sign(bound.Claims(noon, "api", audience), federationtest.WithKey(pss)))
	wantRejected(t, err, federation.ErrAlgorithm)
}

// An ECDSA signature has one length (RFC 7518 section 3.4): a zero before its second half changes no number.
func TestSignatureWithInsertedZeroIsRefused(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	good := iss.Sign(iss.Claims(noon, "api", audience)).Reveal()
	dot := strings.LastIndexByte(good, '.')
	signature, err := base64.RawURLEncoding.DecodeString(good[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	long := slices.Insert(slices.Clone(signature), 32, 0)
	_, err = identify(t, newTrust(t, entry(iss)), secret.New(good[:dot+1]+base64.RawURLEncoding.EncodeToString(long)))
	wantRejected(t, err, federation.ErrSignature)
}

// An ECDSA key never verifies for another curve's algorithm.
func TestCurveMatchesAlgorithm(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES384)
	k := iss.Key()
	k.Algorithm = jose.ES256 // SHA-256 with a P-384 key
	e := entry(iss)
	e.Algorithms = []jose.SignatureAlgorithm{jose.ES384, jose.ES256}
	_, err := identify(t, newTrust(t, e), iss.Sign(iss.Claims(noon, "api", audience), federationtest.WithKey(k)))
	wantRejected(t, err, federation.ErrAlgorithm)
}
