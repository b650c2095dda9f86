package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// auditKey is the content of the audit key's file.
type auditKey struct {
	Seed []byte `json:"seed"` // Ed25519
}

// openAudit returns the key that signs the heads of this replica's audit log. It is a sealed file of the replica,
// whatever store the deployment's keys are in: a replica that is taken over cannot sign another's log. When there
// is none it is taken out of a key file of version 1, or made, unless the replica has a log already (ErrMissing).
func openAudit(dir string, s Sealer, initialised bool) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, auditName)
	private, other, err := readAudit(path, s)
	if err != nil {
		return nil, err
	}
	if private != nil {
		if other { // sealed with a key-encryption key that is on its way out
			err = saveAudit(path, s, private, replace)
		}
		return private, err
	}
	if private, err = legacyAudit(dir, s); err != nil {
		return nil, err
	}
	if private == nil {
		if initialised {
			return nil, fmt.Errorf("%w: restore %s from its backup; without it the audit log cannot be continued", ErrMissing, path)
		}
		if _, private, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("making the audit key: %w", err)
		}
	}
	return private, saveAudit(path, s, private, writeNew)
}

// ReadAudit returns the audit key without changing anything.
func ReadAudit(dir string, s Sealer) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, auditName)
	private, _, err := readAudit(path, s)
	if err == nil && private == nil {
		private, err = legacyAudit(dir, s)
	}
	if err == nil && private == nil {
		err = fmt.Errorf("%w: restore %s from its backup", ErrMissing, path)
	}
	return private, err
}

func readAudit(path string, s Sealer) (_ ed25519.PrivateKey, other bool, err error) {
	data, err := readFile(path)
	if err != nil || data == nil {
		return nil, false, err
	}
	plain, _, other, err := s.open(kindAudit, data)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	var a auditKey
	if json.Unmarshal(plain, &a) != nil || len(a.Seed) != ed25519.SeedSize {
		return nil, false, fmt.Errorf("%s: %w: the content is no audit key", path, ErrSeal)
	}
	return ed25519.NewKeyFromSeed(a.Seed), other, nil
}

// legacyAudit takes the audit key out of a key file of version 1; nil when there is none.
func legacyAudit(dir string, s Sealer) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, fileName)
	data, err := readFile(path)
	if err != nil || data == nil {
		return nil, err
	}
	plain, v, _, err := s.open(kindDocument, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if v != 1 {
		return nil, nil
	}
	l, err := s.legacy(plain)
	if err != nil || len(l.Audit) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: %w: the content is not of version 1", path, ErrSeal)
	}
	return ed25519.NewKeyFromSeed(bytes.Clone(l.Audit)), nil
}

func saveAudit(path string, s Sealer, private ed25519.PrivateKey, put func(string, []byte) error) error {
	sealed, err := s.sealAs(kindAudit, auditKey{private.Seed()})
	if err == nil {
		err = put(path, sealed)
	}
	if err != nil {
		return fmt.Errorf("writing the audit key: %w", err)
	}
	return nil
}
