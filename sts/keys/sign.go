package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Kinds of token that each set signs, by typ header (RFC 8725 section 3.11).
var (
	tokenTypes     = []string{"at+jwt", "JWT", "statuslist+jwt"}
	assertionTypes = []string{"JWT"}
)

// Header is what is chosen of a token's header; Algorithm "" is the default.
type Header = struct{ Algorithm, Type string }

// Signers is one set of signing keys: it signs, publishes and verifies. It follows the document by itself and is
// safe for concurrent use.
type Signers struct {
	keys  *Keys
	types []string
	ring  atomic.Pointer[[]member]
	view  atomic.Pointer[Published]
}

// member is a key with a signer for each kind of token, made once.
type member struct {
	key
	types   []string
	signers map[string]jose.Signer // by typ; none for a key in a KMS
}

// Published is what relying parties are told. It is never changed: whatever it says was true together.
type Published struct {
	Set        jose.JSONWebKeySet
	Algorithms []jose.SignatureAlgorithm // of the keys in Set, each once
	MaxAge     time.Duration             // how long it may be cached, whole seconds
}

var _ oidc.KeySet = (*Signers)(nil)

func newSigners(k *Keys, types []string) *Signers { return &Signers{keys: k, types: types} }

// adopt puts the keys of a document in force. Signers of keys that stay are kept; a key in a
// KMS has one for each call.
func (s *Signers) adopt(list []key) error {
	var old []member
	if p := s.ring.Load(); p != nil {
		old = *p
	}
	ring := make([]member, 0, len(list))
	for _, k := range list {
		m := member{key: k, types: s.types}
		if k.KMS != "" {
			ring = append(ring, m)
			continue
		}
		if i := slices.IndexFunc(old, func(o member) bool { return o.JWK.KeyID == k.JWK.KeyID }); i >= 0 {
			m.signers = old[i].signers
		} else {
			m.signers = make(map[string]jose.Signer, len(s.types))
			for _, typ := range s.types {
				signer, err := newSigner(k.algorithm(), k.JWK, typ)
				if err != nil {
					return err
				}
				m.signers[typ] = signer
			}
		}
		ring = append(ring, m)
	}
	s.ring.Store(&ring)
	s.publish()
	return nil
}

// publish makes the public view anew when keys came or went.
func (s *Signers) publish() {
	now := s.keys.now()
	next := &Published{MaxAge: s.keys.plan.cache()}
	for _, m := range *s.ring.Load() {
		if m.state(now) == Gone {
			continue
		}
		next.Set.Keys = append(next.Set.Keys, m.JWK.Public())
		if !slices.Contains(next.Algorithms, m.algorithm()) {
			next.Algorithms = append(next.Algorithms, m.algorithm())
		}
	}
	if old := s.view.Load(); old != nil && slices.EqualFunc(old.Set.Keys, next.Set.Keys, func(a, b jose.JSONWebKey) bool { return a.KeyID == b.KeyID }) {
		return
	}
	s.view.Store(next)
}

// Published returns the public view: the same pointer until a key comes or goes.
func (s *Signers) Published() *Published { return s.view.Load() }

// Fresh is [Keys.Fresh].
func (s *Signers) Fresh() error { return s.keys.Fresh() }

// Sign returns claims as a compact JWS (RFC 7515 section 3.1), by the key of an algorithm that is active now; ""
// is the default algorithm. A typ that the set is not meant for is an error (RFC 8725 section 3.11). ErrStale
// means that there may be newer keys; ErrInactive that the algorithm has none that signs yet.
func (s *Signers) Sign(ctx context.Context, h Header, claims any) (string, error) {
	if err := s.keys.Fresh(); err != nil {
		return "", err
	}
	m, err := s.active(jose.SignatureAlgorithm(h.Algorithm), s.keys.now())
	if err != nil {
		return "", err
	}
	if !slices.Contains(s.types, h.Type) {
		return "", fmt.Errorf("these keys do not sign tokens of typ %s", h.Type)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	jws, err := m.sign(ctx, s.keys, h.Type, payload)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return jws.CompactSerialize()
}

// sign makes a JWS. One from a KMS is verified with the key that is published before anybody gets it.
func (m member) sign(ctx context.Context, k *Keys, typ string, payload []byte) (*jose.JSONWebSignature, error) {
	if m.KMS == "" {
		return m.signers[typ].Sign(payload)
	}
	signer, err := newSigner(m.algorithm(), opaque{ctx, k.kms, m.KMS, m.JWK}, typ)
	if err != nil {
		return nil, err
	}
	jws, err := signer.Sign(payload)
	if err == nil {
		_, err = jws.Verify(m.JWK)
	}
	return jws, k.heard(ctx, err)
}

func newSigner(alg jose.SignatureAlgorithm, signer any, typ string) (jose.Signer, error) {
	out, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: signer}, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		return nil, fmt.Errorf("preparing a signing key: %w", err)
	}
	return out, nil
}

// active returns the key that signs. Without an algorithm it is the first of the plan that has one: a default
// that was added is not yet active.
func (s *Signers) active(alg jose.SignatureAlgorithm, now time.Time) (member, error) {
	ring := *s.ring.Load()
	wanted := s.keys.plan.Algorithms
	if alg != "" {
		wanted = []jose.SignatureAlgorithm{alg}
	}
	var soon time.Time
	for _, want := range wanted {
		for _, m := range ring {
			switch {
			case m.algorithm() != want:
			case m.state(now) == Active:
				return m, nil
			case m.state(now) == Next:
				soon = m.Activates
			}
		}
	}
	err := fmt.Errorf("%w: %v", ErrInactive, wanted)
	if !soon.IsZero() {
		err = fmt.Errorf("%w; one is published and signs from %s", err, soon.UTC().Format(time.RFC3339))
	}
	return member{}, err
}

// VerifySignature implements zitadel/oidc's key-set seam over our own published keys. A kid that is not known
// makes it read the document once more, at most once in reloadFloor: another replica may be ahead.
func (s *Signers) VerifySignature(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	if len(jws.Signatures) != 1 {
		return nil, errors.New("a compact JWS has one signature")
	}
	h := jws.Signatures[0].Header
	k, ok := s.find(h)
	if !ok && len(h.KeyID) == thumbprintLength && !strings.ContainsFunc(h.KeyID, notBase64URL) {
		s.keys.reload(ctx)
		k, ok = s.find(h)
	}
	if !ok {
		return nil, errors.New("no published key has this kid and algorithm")
	}
	return jws.Verify(k.Key)
}

// thumbprintLength is that of every kid of ours: 32 bytes in base64url.
const thumbprintLength = 43

func notBase64URL(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// find returns a published key by name and algorithm, both exact.
func (s *Signers) find(h jose.Header) (jose.JSONWebKey, bool) {
	for _, k := range s.view.Load().Set.Keys {
		if k.KeyID == h.KeyID && k.Algorithm == h.Algorithm {
			return k, true
		}
	}
	return jose.JSONWebKey{}, false
}
