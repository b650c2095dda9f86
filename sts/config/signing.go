package config

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// Signing says which keys we sign with, and how they are kept.
type Signing struct {
	Algorithms    []string // the first is the default
	RotateEvery   time.Duration
	PublishBefore time.Duration
	SealWith      Secret   // key-encryption key: 32 bytes in base64
	UnsealWith    []Secret // others that still open what is sealed
	Vault         Vault
}

// Defaults and bounds of signing.
const (
	defaultRotateEvery   = 30 * 24 * time.Hour
	minRotateEvery       = 24 * time.Hour
	maxRotateEvery       = 365 * 24 * time.Hour
	defaultPublishBefore = 24 * time.Hour
	minPublishBefore     = 10 * time.Minute
	maxPublishBefore     = 7 * 24 * time.Hour
	maxUnseal            = 4
)

var signingAlgorithms = []string{"ES256", "ES384", "RS256", "PS256", "EdDSA"}

type signingBlock struct {
	Algorithms    []string    `yaml:"algorithms,omitempty" jsonschema:"minItems=1,uniqueItems=true" jsonschema_description:"Algorithms to sign with, each with keys of its own: ES256, ES384, RS256, PS256 or EdDSA. The first is the default; targets may choose another. Default: [ES256]. A key of an added algorithm signs after publish_before."`
	RotateEvery   duration    `yaml:"rotate_every,omitempty" jsonschema_description:"How long a key signs until its successor does, in days (d) or a smaller unit; 1d to 365d. Default: 30d."`
	PublishBefore duration    `yaml:"publish_before,omitempty" jsonschema_description:"How long a key is published before it signs, in hours (h) or another unit; 10m to 7d, and at most half of rotate_every. Default: 24h. A replica that cannot read the keys for two fifths of it stops issuing."`
	SealWith      Secret      `yaml:"seal_with" jsonschema_description:"Reference to the key-encryption key that seals our keys where they are stored: 32 bytes in base64 (head -c 32 /dev/urandom | base64). Required. Losing it loses the signing keys."`
	UnsealWith    []Secret    `yaml:"unseal_with,omitempty" jsonschema:"minItems=1" jsonschema_description:"References to key-encryption keys that still open what is stored, while seal_with is changed; at most 4. Default: none."`
	Vault         *vaultBlock `yaml:"vault,omitempty" jsonschema_description:"A Vault that keeps the keys: those that sign, the one that seals the others, or both. Default: none."`
}

// signing checks the block and builds its part of the server.
func (l *loader) signing(d *document, b signingBlock) Signing {
	s := Signing{
		Algorithms:    b.Algorithms,
		RotateEvery:   cmp.Or(b.RotateEvery.value(), defaultRotateEvery),
		PublishBefore: cmp.Or(b.PublishBefore.value(), defaultPublishBefore),
		SealWith:      b.SealWith,
		UnsealWith:    b.UnsealWith,
		Vault:         l.vault(d, b.Vault),
	}
	if s.Algorithms == nil {
		s.Algorithms = []string{signingAlgorithms[0]}
	}
	if d.ok("signing.algorithms") {
		for i, a := range s.Algorithms {
			at := index("signing.algorithms", i)
			switch {
			case !slices.Contains(signingAlgorithms, a):
				d.problem(at, "algorithm %s is not one we sign with; choose of %s", show(a), strings.Join(signingAlgorithms, ", "))
			case slices.Contains(s.Algorithms[:i], a):
				d.problem(at, "algorithm %s is listed twice; remove one", show(a))
			}
		}
	}
	if d.ok("signing.rotate_every") && (s.RotateEvery < minRotateEvery || s.RotateEvery > maxRotateEvery) {
		d.problem("signing.rotate_every", "rotate_every is outside 1d to 365d; an old key is one that many have had time to copy")
	}
	if d.ok("signing.publish_before") {
		switch {
		case s.PublishBefore < minPublishBefore || s.PublishBefore > maxPublishBefore:
			d.problem("signing.publish_before", "publish_before is outside 10m to 7d; relying parties that cache the key set must know a key before it signs")
		case s.PublishBefore > s.RotateEvery/2:
			d.problem("signing.publish_before", "publish_before is more than half of rotate_every; keys would pile up: make it shorter")
		}
	}
	if d.ok("signing.seal_with") {
		s.SealWith = l.key(d, "signing.seal_with", s.SealWith, s.Vault.UnsealKey != "")
	}
	if d.ok("signing.unseal_with") {
		if len(s.UnsealWith) > maxUnseal {
			d.problem("signing.unseal_with", "more than %d keys; what they sealed was sealed anew at the next start: remove the older ones", maxUnseal)
		}
		s.UnsealWith = slices.Clone(s.UnsealWith)
		for i, k := range s.UnsealWith {
			s.UnsealWith[i] = l.key(d, index("signing.unseal_with", i), k, s.Vault.UnsealKey != "")
			if s.UnsealWith[i] == s.SealWith {
				d.problem(index("signing.unseal_with", i), "unseal_with repeats seal_with; remove it here")
			}
		}
	}
	return s
}

// key checks the reference to one key-encryption key, and the key unless a Vault has it sealed.
func (l *loader) key(d *document, path string, s Secret, sealed bool) Secret {
	if s.File != "" {
		s.File = under(l.dir, s.File)
	}
	l.secret(d, path, s)
	if v, err := s.Resolve(l.dir); err == nil && !sealed && !strings.HasPrefix(v.Reveal(), "vault:v") { // that is told where it is unsealed
		if _, err := keys.NewKEK(v); err != nil {
			d.problem(path, "%s: %s", path, err)
		}
	}
	return s
}
