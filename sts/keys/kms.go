package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// KMS keeps private keys that never leave it. Implementations are safe for concurrent use and bound each call in time.
type KMS interface {
	// MakeKey makes a new key for one algorithm of one set. It returns the name under which the KMS signs with it, for good,
	// and its public half.
	MakeKey(ctx context.Context, set string, alg jose.SignatureAlgorithm) (name string, public crypto.PublicKey, err error)
	// SignWith returns the signature of a JWS signing input by a key that MakeKey made, as alg encodes it (RFC 7518
	// section 3).
	SignWith(ctx context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error)
}

// ErrKMS means that the KMS which keeps a key did not sign with it.
var ErrKMS = errors.New("the KMS that keeps the key does not sign with it")

// probeEvery is how long a KMS that nobody asked is believed to be well.
const probeEvery = 10 * time.Second

// kmsHealth is how the KMS did when it was asked last.
type kmsHealth struct {
	problem atomic.Pointer[error]
	well    atomic.Int64 // when it signed last, in nanoseconds of Unix time
}

// KMS returns why the KMS cannot sign now, and nil while it can, or when no key of ours is in one.
func (k *Keys) KMS() error {
	if p := k.health.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// heard keeps what came of a call of the KMS. That a caller hung up says nothing of it.
func (k *Keys) heard(ctx context.Context, err error) error {
	switch {
	case err == nil:
		k.health.well.Store(k.now().UnixNano())
		k.health.problem.Store(nil)
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: the caller gave up", ErrKMS)
	}
	err = fmt.Errorf("%w: %w", ErrKMS, err)
	k.health.problem.Store(&err)
	return err
}

// probe asks the KMS for a signature that means nothing, when nobody has asked it for a while or it failed: whoever is
// not sent callers any more has no other way to learn that it is well again.
func (k *Keys) probe(ctx context.Context) {
	m, err := k.tokens.active("", k.now())
	if err != nil || m.KMS == "" {
		k.health.problem.Store(nil)
		return
	}
	if k.KMS() == nil && k.now().Sub(time.Unix(0, k.health.well.Load())) < probeEvery {
		return
	}
	_, err = m.sign(ctx, k, m.types[0], []byte("probe")) // not JSON, so no token
	_ = err                                              // it is in health
}

// opaque is a key of a KMS for go-jose, during one call.
type opaque struct {
	ctx  context.Context
	kms  KMS
	name string
	jwk  jose.JSONWebKey
}

var _ jose.OpaqueSigner = opaque{}

// Public implements [jose.OpaqueSigner].
func (o opaque) Public() *jose.JSONWebKey { return &o.jwk }

// Algs implements [jose.OpaqueSigner].
func (o opaque) Algs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.SignatureAlgorithm(o.jwk.Algorithm)}
}

// SignPayload implements [jose.OpaqueSigner].
func (o opaque) SignPayload(input []byte, alg jose.SignatureAlgorithm) ([]byte, error) {
	return o.kms.SignWith(o.ctx, o.name, alg, input)
}

// makeKey makes a key where the plan says.
func (k *Keys) makeKey(ctx context.Context) maker {
	if !k.plan.InKMS {
		return newKey
	}
	return func(set string, alg jose.SignatureAlgorithm, published, activates time.Time) (key, error) {
		name, public, err := k.kms.MakeKey(ctx, set, alg)
		if err != nil {
			return key{}, fmt.Errorf("making a key for %s in the KMS: %w", alg, err)
		}
		out := key{
			KMS: name, JWK: jose.JSONWebKey{Key: public, Algorithm: string(alg), Use: "sig"},
			Published: published, Activates: activates,
		}
		if out.JWK.KeyID, err = Thumbprint(out.JWK); err == nil {
			err = out.check()
		}
		if err != nil {
			return key{}, fmt.Errorf("making a key for %s in the KMS: %w", alg, err)
		}
		return out, nil
	}
}

// maker makes a key of a set for one algorithm, with the beginning of its timeline.
type maker func(set string, alg jose.SignatureAlgorithm, published, activates time.Time) (key, error)

// kept refuses a document whose keys sign, or will, in a KMS that this process was not told of.
func (k *Keys) kept(d document) error {
	if k.kms != nil {
		return nil
	}
	for _, s := range d.sets() {
		for _, one := range *s.keys {
			if st := one.state(k.now()); one.KMS != "" && (st == Active || st == Next) {
				return fmt.Errorf("%w: key %s of %s is in one, and signing.vault is missing; put it back, rotate the keys to where new ones shall be, and remove it when those in the KMS are gone", ErrKMS, one.JWK.KeyID, s.name)
			}
		}
	}
	return nil
}
