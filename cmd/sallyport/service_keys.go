package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// transitSettings are those of signing.vault.
func transitSettings(v config.Vault) vault.TransitSettings {
	return vault.TransitSettings{
		Address: v.Address, Namespace: v.Namespace, CAFile: v.CAFile, Timeout: v.Timeout,
		LoginMount: v.Login.Mount, Role: v.Login.Role, JWTFile: v.Login.JWTFile,
		Mount: v.Mount, UnsealKey: v.UnsealKey, SigningKey: v.SigningKeys,
	}
}

// openTransit returns the Vault that keeps keys of ours, nil when none does. It connects to nothing.
func openTransit(v config.Vault) (*vault.Transit, error) {
	if v == (config.Vault{}) {
		return nil, nil
	}
	t, err := vault.NewTransit(transitSettings(v), time.Now)
	if err != nil {
		return nil, fmt.Errorf("signing.vault: %w", err)
	}
	return t, nil
}

// unseal turns what seal_with refers to into the key itself.
type unseal func(secret.Value) (secret.Value, error)

// unsealer asks t for the keys that its transit key seals. Without one they stand as they are.
func unsealer(ctx context.Context, t *vault.Transit) unseal {
	return func(v secret.Value) (secret.Value, error) {
		switch sealed := vault.Sealed(v); {
		case t == nil && sealed:
			return v, errors.New("it is sealed by a Vault, and signing.vault does not say by which; add unseal_key there")
		case t == nil:
			return v, nil
		case !sealed:
			return v, errors.New("it is not sealed, and signing.vault says by which key it is; write what transit/datakey/wrapped returns there, or remove unseal_key")
		}
		return t.Unseal(ctx, v)
	}
}

// keyEncryptionKey reads what seals our keys, and what else opens them. It asks the Vault that unseals them, if one does.
func keyEncryptionKey(ctx context.Context, dir string, server config.Server) (keys.Sealer, error) {
	if server.Signing.Vault.UnsealKey == "" {
		return readKeys(dir, server, unsealer(ctx, nil))
	}
	t, err := openTransit(server.Signing.Vault)
	if err != nil {
		return keys.Sealer{}, err
	}
	defer t.Close()
	return readKeys(dir, server, unsealer(ctx, t))
}

// checkKeyEncryptionKey looks at what can be seen without asking anybody.
func checkKeyEncryptionKey(dir string, server config.Server) error {
	if server.Signing.Vault.UnsealKey == "" {
		_, err := keyEncryptionKey(context.Background(), dir, server)
		return err
	}
	for path, s := range sealedKeys(server.Signing) {
		value, err := s.Resolve(dir)
		if err == nil && !vault.Sealed(value) {
			_, err = unsealer(context.Background(), new(vault.Transit))(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// sealedKeys yields the references to key-encryption keys, the one that seals first.
func sealedKeys(s config.Signing) iter.Seq2[string, config.Secret] {
	return func(yield func(string, config.Secret) bool) {
		if !yield("signing.seal_with", s.SealWith) {
			return
		}
		for i, other := range s.UnsealWith {
			if !yield(fmt.Sprintf("signing.unseal_with[%d]", i), other) {
				return
			}
		}
	}
}

func readKeys(dir string, server config.Server, open unseal) (keys.Sealer, error) {
	var all []keys.KEK
	for path, s := range sealedKeys(server.Signing) {
		value, err := s.Resolve(dir)
		if err == nil {
			value, err = open(value)
		}
		if err != nil {
			return keys.Sealer{}, fmt.Errorf("%s: %w", path, err)
		}
		kek, err := keys.NewKEK(value)
		if err != nil {
			return keys.Sealer{}, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, kek)
	}
	sealer, err := keys.NewSealer(all[0], all[1:]...)
	if err != nil {
		return keys.Sealer{}, fmt.Errorf("signing: %w", err)
	}
	return sealer, nil
}

func keyPlan(s config.Signing) keys.Plan {
	p := keys.Plan{RotateEvery: s.RotateEvery, PublishBefore: s.PublishBefore, InKMS: s.Vault.SigningKeys != ""}
	for _, alg := range s.Algorithms {
		p.Algorithms = append(p.Algorithms, jose.SignatureAlgorithm(alg))
	}
	return p
}

// settle is how long keys that the shared store lacks may be put back by another replica: it looks every
// [keys.Every], twice at least.
const settle = 3 * keys.Every

// openKeys opens the keys of a deployment: in what replicas share, or in data_dir when db is nil.
func openKeys(ctx context.Context, server config.Server, sealer keys.Sealer, kms *vault.Transit, db *redis.DB, initialised bool) (*keys.Keys, error) {
	_, noHead := os.Stat(filepath.Join(server.DataDir, auditHeadFile))
	c := keys.Config{
		Dir: server.DataDir, Sealer: sealer, Plan: keyPlan(server.Signing),
		Initialised: initialised, Logged: initialised || noHead == nil, Now: time.Now,
	}
	if kms != nil {
		c.KMS = kms
	}
	if db != nil {
		c.Store, c.Settle = db.Keys(), settle
	}
	return keys.Open(ctx, c)
}

// auditKey reads the key that signs the heads of this replica's log, and changes nothing.
func auditKey(ctx context.Context, dir string, server config.Server) (ed25519.PrivateKey, error) {
	sealer, err := keyEncryptionKey(ctx, dir, server)
	if err != nil {
		return nil, err
	}
	return keys.ReadAudit(server.DataDir, sealer)
}

// recordAgain is how long what the log did not take waits.
const recordAgain = 10 * time.Second

// recordKeys puts changes of the signing keys on record until ctx ends.
func (s *service) recordKeys(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.keys.News():
			rec := audit.Record{Type: audit.TypeKeys, Config: s.exchanger.ConfigHash(), Keys: &audit.Keys{Serial: c.Serial, Published: c.Published, Removed: c.Removed, Missed: c.Missed, By: "plan"}}
			if o := c.Order; o != nil {
				rec.Keys.By, rec.Keys.Now, rec.Keys.Compromised, rec.Reason = o.By, o.Now, o.Compromised, o.Reason
			}
			log := s.log.Info()
			if rec.Keys.Compromised {
				log = s.log.Warn()
			}
			if c.Missed > 0 {
				s.log.Warn().Uint64("changes", c.Missed).Msg("the signing keys changed more often while this replica did not run than their document keeps: those changes are on no record here")
			}
			log.Strs("published", c.Published).Strs("removed", c.Removed).Str("by", rec.Keys.By).Bool("compromised", rec.Keys.Compromised).Str("reason", rec.Reason).Msg("the signing keys changed")
			for s.record(&rec, "a change of the signing keys") != nil {
				select {
				case <-ctx.Done():
					return // it is told again after the next start
				case <-time.After(recordAgain):
				}
			}
			if err := s.keys.Recorded(c); err != nil {
				s.log.Error().Err(err).Msg("that a change of the signing keys is on record is not remembered: it will be there twice")
			}
		}
	}
}

// record appends what nobody waits for; what is gone from the log is in the server's own.
func (s *service) record(rec *audit.Record, what string) error {
	err := s.audit.Append(context.Background(), rec)
	if err != nil {
		s.log.Error().Err(err).Msg(what + " could not be put on record")
	}
	return err
}

// followKeys keeps the keys up to date until ctx ends.
func (s *service) followKeys(ctx context.Context) {
	go s.recordKeys(ctx)
	s.keys.Run(ctx, keys.Every, func(err error) {
		if err != nil {
			s.log.Error().Err(err).Msg("the keys cannot be read or changed; those in force serve on for a while")
			return
		}
		s.log.Info().Msg("the keys are read again")
	})
}
