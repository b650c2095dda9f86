package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of key sets, design section 6.
const (
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192
)

// verificationKey is one public key and the one algorithm it may verify (RFC 8725bis section 3.1).
type verificationKey struct {
	id   string
	algs []jose.SignatureAlgorithm // one, or the two names of Ed25519
	key  any                       // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// keySet is the usable keys of one issuer. It is immutable.
type keySet struct {
	byID    map[string]*verificationKey
	all     []*verificationKey
	dropped int // keys that were there but unusable
}

// webKey is a JWK as published (RFC 7517 section 4). Certificates are not looked at: the set is trusted
// because of where it came from.
type webKey struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	Crv    string   `json:"crv"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X      string   `json:"x"`
	Y      string   `json:"y"`

	// Present only in keys that are no longer private, or are shared secrets.
	D    jsontext.Value `json:"d"`
	P    jsontext.Value `json:"p"`
	Q    jsontext.Value `json:"q"`
	DP   jsontext.Value `json:"dp"`
	DQ   jsontext.Value `json:"dq"`
	QI   jsontext.Value `json:"qi"`
	K    jsontext.Value `json:"k"`
	Oth  jsontext.Value `json:"oth"`
	Priv jsontext.Value `json:"priv"`
}

// parseKeySet reads a JWK set. A key that cannot be used is dropped alone: private or symmetric, not for
// signatures, of unknown type or curve, weak, for an algorithm not in algorithms, or one of several
// different keys under one kid (all of these are dropped). A document that is no set is errNotKeySet, and
// leaves the keys of before in use.
func parseKeySet(doc []byte, algorithms []jose.SignatureAlgorithm) (*keySet, error) {
	if boundJSON(doc) != nil {
		return nil, errNotKeySet
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(doc, &set); err != nil || set.Keys == nil || len(set.Keys) > maxKeys {
		return nil, errNotKeySet
	}
	ks := &keySet{byID: make(map[string]*verificationKey)}
	ambiguous := make(map[string]bool)
	for _, raw := range set.Keys {
		k := parseKey(raw, algorithms)
		if k == nil {
			ks.dropped++
			continue
		}
		if other, ok := ks.byID[k.id]; ok && k.id != "" {
			ambiguous[k.id] = ambiguous[k.id] || !sameKey(k, other)
			continue
		}
		ks.byID[k.id] = k
		ks.all = append(ks.all, k)
	}
	delete(ks.byID, "") // keys without kid are found by fitting alone
	for id := range ambiguous {
		if ambiguous[id] {
			ks.dropped++
			delete(ks.byID, id)
			ks.all = slices.DeleteFunc(ks.all, func(k *verificationKey) bool { return k.id == id })
		}
	}
	return ks, nil
}

func sameKey(a, b *verificationKey) bool {
	k, ok := a.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b.key)
}

// parseKey returns nil for a key that cannot be used.
func parseKey(raw jsontext.Value, algorithms []jose.SignatureAlgorithm) *verificationKey {
	var w webKey
	if json.Unmarshal(raw, &w) != nil || w.secret() || len(w.Kid) > maxKeyID {
		return nil
	}
	if w.Use != "" && w.Use != "sig" || w.KeyOps != nil && !slices.Contains(w.KeyOps, "verify") {
		return nil
	}
	public := w.public()
	algs := bind(public, w.Alg, algorithms)
	if len(algs) == 0 {
		return nil
	}
	return &verificationKey{id: w.Kid, algs: algs, key: public}
}

// public returns the key itself, nil when it is malformed. Strength is judged by fits.
func (w *webKey) public() any {
	if w.Kty == "RSA" {
		return w.rsa()
	}
	// go-jose checks that points are on their curve and of full order.
	doc, err := json.Marshal(map[string]string{"kty": w.Kty, "crv": w.Crv, "x": w.X, "y": w.Y})
	if err != nil {
		return nil
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(doc) != nil {
		return nil
	}
	return parsed.Key
}

// rsa reads modulus and exponent itself: go-jose's limit of 4,096 bits is a variable of its package.
func (w *webKey) rsa() any {
	n, err := base64.RawURLEncoding.DecodeString(w.N)
	if err != nil || len(n) > maxRSABits/8+1 {
		return nil
	}
	e, err := base64.RawURLEncoding.DecodeString(w.E)
	if err != nil || len(e) > 4 {
		return nil
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
}

func (w *webKey) secret() bool {
	for _, v := range []jsontext.Value{w.D, w.P, w.Q, w.DP, w.DQ, w.QI, w.K, w.Oth, w.Priv} {
		if v != nil {
			return true
		}
	}
	return false
}

// bind returns the one algorithm that key may verify: what its alg says, else what its type and curve say,
// else, for RSA, the first RSA algorithm that is configured. It returns none when that is not configured.
func bind(key any, alg string, configured []jose.SignatureAlgorithm) []jose.SignatureAlgorithm {
	var out []jose.SignatureAlgorithm
	for _, c := range configured {
		if !fits(key, c) || alg != "" && alg != string(c) && !(edwards(alg) && edwards(string(c))) {
			continue
		}
		out = append(out, c)
		if !edwards(string(c)) {
			break
		}
	}
	return out
}

// edwards reports whether alg is one of the two names of the same algorithm (RFC 9864 section 2.2).
func edwards(alg string) bool { return alg == string(jose.EdDSA) || alg == string(Ed25519) }

// fits reports whether key is strong enough and of the type and curve that alg demands (RFC 7518
// sections 3.3 to 3.5, RFC 8037).
func fits(key any, alg jose.SignatureAlgorithm) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		strong := bits >= minRSABits && bits <= maxRSABits && k.E >= 3 && k.E%2 == 1 && k.E < 1<<31 && k.N.Bit(0) == 1
		return strong && (alg[:2] == "RS" || alg[:2] == "PS")
	case *ecdsa.PublicKey:
		switch alg {
		case jose.ES256:
			return k.Curve.Params().BitSize == 256
		case jose.ES384:
			return k.Curve.Params().BitSize == 384
		case jose.ES512:
			return k.Curve.Params().BitSize == 521
		}
	case ed25519.PublicKey:
		return edwards(string(alg))
	}
	return false
}
