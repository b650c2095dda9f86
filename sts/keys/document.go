package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// version of the document's form. Version 1 had one signing key, and the audit key beside it.
const version = 2

// document is everything that the replicas of a deployment share.
type document struct {
	Version    int       `json:"version"`
	Deployment string    `json:"deployment"` // random, never changes
	Serial     uint64    `json:"serial"`     // grows with every change
	Created    time.Time `json:"created"`
	Changed    time.Time `json:"changed"`
	MAC        []byte    `json:"mac"`
	Tokens     []key     `json:"tokens"`
	Assertions []key     `json:"assertions"`
	History    []Change  `json:"history,omitempty"` // the newest changes, oldest first
}

// key is one signing key and its timeline. It is used with its one algorithm only (RFC 8725 section 3.1).
type key struct {
	JWK       jose.JSONWebKey `json:"jwk"`           // private, public for one in a KMS; its kid is its thumbprint
	KMS       string          `json:"kms,omitempty"` // name of the key in the KMS that keeps it
	Published time.Time       `json:"published"`
	Activates time.Time       `json:"activates"`
	Retires   time.Time       `json:"retires,omitzero"` // zero while no successor is known
}

func (k key) algorithm() jose.SignatureAlgorithm { return jose.SignatureAlgorithm(k.JWK.Algorithm) }

// gone returns when the last token that the key signed has expired everywhere; zero while it is not retiring.
func (k key) gone() time.Time {
	if k.Retires.IsZero() {
		return time.Time{}
	}
	return k.Retires.Add(keep)
}

// state returns where on its timeline the key is.
func (k key) state(now time.Time) State {
	switch {
	case !k.Retires.IsZero() && !now.Before(k.gone()):
		return Gone
	case !k.Retires.IsZero() && !now.Before(k.Retires):
		return Retired
	case now.Before(k.Activates):
		return Next
	default:
		return Active
	}
}

func newDocument(p Plan, mk maker, now time.Time) (document, error) {
	now = now.UTC().Round(0)
	d := document{Version: version, Deployment: newDeployment(), Created: now, MAC: make([]byte, sha256.Size)}
	_, _ = rand.Read(d.MAC) // never fails (crypto/rand since Go 1.24)
	for _, set := range d.sets() {
		for _, alg := range p.Algorithms {
			fresh, err := mk(set.name, alg, now, now)
			if err != nil {
				return document{}, err
			}
			*set.keys = append(*set.keys, fresh)
		}
	}
	return d, nil
}

func newDeployment() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// set is one of the document's two sets of signing keys.
type set struct {
	name string
	keys *[]key
}

// Names of the sets.
const (
	SetTokens     = "tokens"
	SetAssertions = "assertions"
)

func (d *document) sets() []set {
	return []set{{SetTokens, &d.Tokens}, {SetAssertions, &d.Assertions}}
}

// clone returns a copy whose lists can be changed.
func (d document) clone() document {
	d.Tokens, d.Assertions = slices.Clone(d.Tokens), slices.Clone(d.Assertions)
	return d
}

// check refuses what this program would not have written.
func (d *document) check() error {
	if d.Version != version || d.Deployment == "" || d.Serial == 0 || len(d.MAC) != sha256.Size {
		return fmt.Errorf("%w: the content is not of version %d; a newer program may have written it", ErrSeal, version)
	}
	kids := map[string]bool{}
	for _, s := range d.sets() {
		if len(*s.keys) == 0 {
			return fmt.Errorf("%w: the set %s has no key", ErrSeal, s.name)
		}
		for _, k := range *s.keys {
			if err := k.check(); err != nil {
				return fmt.Errorf("%w: key %s of %s: %w", ErrSeal, k.JWK.KeyID, s.name, err)
			}
			if kids[k.JWK.KeyID] { // a key of both sets would let one issuer's tokens pass for the other's
				return fmt.Errorf("%w: key %s is in it twice", ErrSeal, k.JWK.KeyID)
			}
			kids[k.JWK.KeyID] = true
		}
	}
	return nil
}

// notBefore refuses a document that cannot follow seen in time. The zero document says nothing.
func (d *document) notBefore(seen document) error {
	switch {
	case seen.Deployment == "":
		return nil
	case d.Deployment != seen.Deployment:
		return fmt.Errorf("%w: these are the keys of deployment %s, and this one is %s; put its own back", ErrRollback, d.Deployment[:8], seen.Deployment[:8])
	case d.Serial < seen.Serial:
		return fmt.Errorf("%w: this is change %d of the keys, and change %d was seen; put the newest back", ErrRollback, d.Serial, seen.Serial)
	}
	return nil
}

// legacy is the document of version 1: one key, and the audit key.
type legacy struct {
	Version int             `json:"version"`
	Created time.Time       `json:"created"`
	Signing jose.JSONWebKey `json:"signing"`
	Audit   []byte          `json:"audit"` // Ed25519 seed
	MAC     []byte          `json:"mac"`
}

// forward returns version 1 as version 2. Its one key goes on signing; the second issuer's keys, which nobody
// can have cached yet, are made when it is maintained. The same input gives the same deployment.
func (l legacy) forward() (document, error) {
	id := sha256.Sum256(append([]byte("sallyport deployment\x00"), l.MAC...))
	d := document{
		Version: version, Deployment: hex.EncodeToString(id[:16]), Serial: 1, Created: l.Created, Changed: l.Created, MAC: l.MAC,
		Tokens: []key{{JWK: l.Signing, Published: l.Created, Activates: l.Created}},
	}
	if len(l.MAC) != sha256.Size {
		return document{}, fmt.Errorf("%w: the content is not of version 1", ErrSeal)
	}
	if err := d.Tokens[0].check(); err != nil {
		return document{}, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return d, nil
}

// Thumbprint returns the kid of a key: its RFC 7638 SHA-256 thumbprint, base64url.
func Thumbprint(k jose.JSONWebKey) (string, error) {
	sum, err := thumbprint(k)
	if err != nil {
		return "", fmt.Errorf("naming a key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
