package config

import (
	"cmp"
	"time"
)

// Vault says which Vault keeps keys of ours, by its transit engine. The zero Vault is none.
type Vault struct {
	Address     string
	Namespace   string // "" for the root
	CAFile      string // absolute; "" for the system's
	Timeout     time.Duration
	Login       VaultLogin
	Mount       string // of the transit engine
	UnsealKey   string // "" when seal_with refers to the key itself
	SigningKeys string // "" when our keys are made here
}

// VaultLogin says who we are to that Vault.
type VaultLogin struct {
	Mount   string
	Role    string
	JWTFile string // absolute
}

// Defaults of signing.vault.
const (
	defaultTransit      = "transit"
	defaultVaultTimeout = 5 * time.Second
	defaultVaultLogin   = "jwt"
)

type vaultBlock struct {
	Address     string          `yaml:"address" jsonschema:"minLength=1" jsonschema_description:"URL of the Vault (or OpenBao) whose transit engine keeps keys of ours: https, or http on a loopback address, without a path. Required. No redirect is followed: name the active node, or a name that always reaches it."`
	Namespace   string          `yaml:"namespace,omitempty" jsonschema_description:"Namespace of every call. Default: the root namespace."`
	CAFile      string          `yaml:"ca_file,omitempty" jsonschema_description:"Path of the PEM certificates that Vault's certificate must chain to; relative paths start at the configuration directory. Default: the system's."`
	Timeout     duration        `yaml:"timeout,omitempty" jsonschema_description:"How long one call may take; 1s to 1m. Default: 5s."`
	Login       vaultLoginBlock `yaml:"login" jsonschema_description:"How we log in: by the identity that the platform gives to this process. Required."`
	Mount       string          `yaml:"mount,omitempty" jsonschema_description:"Path of the transit engine. Default: transit."`
	UnsealKey   string          `yaml:"unseal_key,omitempty" jsonschema_description:"Name of the transit key that seals the key-encryption keys: seal_with and unseal_with then refer to what transit/datakey/wrapped returns (vault:v1:...). Default: none, and they refer to the keys themselves."`
	SigningKeys string          `yaml:"signing_keys,omitempty" jsonschema_description:"What the names of the transit keys that we sign with begin with, such as sallyport. New keys are then made in Vault and never leave it; each signature is one call. No two deployments may share it. Default: none, and keys are made here and stored sealed."`
}

type vaultLoginBlock struct {
	Mount   string `yaml:"mount,omitempty" jsonschema_description:"Path of a jwt or kubernetes auth method, without auth/. Default: jwt."`
	Role    string `yaml:"role" jsonschema:"minLength=1" jsonschema_description:"Role to log in with. Required."`
	JWTFile string `yaml:"jwt_file" jsonschema:"minLength=1" jsonschema_description:"Path of the JWT that the platform gives to this process, such as a projected service-account token; read at each login. Required. It cannot be a token of ours: one of these keys would have to sign it."`
}

// vault checks the block and builds its part of the server.
func (l *loader) vault(d *document, b *vaultBlock) Vault {
	const at = "signing.vault"
	if b == nil || !d.ok(at) {
		return Vault{}
	}
	v := Vault{
		Address: b.Address, Namespace: b.Namespace, Timeout: cmp.Or(b.Timeout.value(), defaultVaultTimeout),
		Login: VaultLogin{Mount: cmp.Or(b.Login.Mount, defaultVaultLogin), Role: b.Login.Role, JWTFile: under(l.dir, b.Login.JWTFile)},
		Mount: cmp.Or(b.Mount, defaultTransit), UnsealKey: b.UnsealKey, SigningKeys: b.SigningKeys,
	}
	if b.CAFile != "" {
		v.CAFile = under(l.dir, b.CAFile)
	}
	if l.kinds.Vault != nil {
		for _, p := range l.kinds.Vault(v) {
			d.problem(join(at, p.Path), "%s", p.Message)
		}
	}
	if _, err := readFile(v.Login.JWTFile, maxSecretSize); err != nil {
		d.problem(join(at, "login.jwt_file"), "jwt_file: %s", fileReason(err))
	}
	return v
}
