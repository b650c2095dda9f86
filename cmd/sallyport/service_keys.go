package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// keyEncryptionKey reads what seals our keys, and what else opens them.
func keyEncryptionKey(dir string, server config.Server) (keys.Sealer, error) {
	read := func(path string, s config.Secret) (keys.KEK, error) {
		value, err := s.Resolve(dir)
		if err != nil {
			return keys.KEK{}, fmt.Errorf("%s: %w", path, err)
		}
		kek, err := keys.NewKEK(value)
		if err != nil {
			return keys.KEK{}, fmt.Errorf("%s: %w", path, err)
		}
		return kek, nil
	}
	first, err := read("signing.seal_with", server.Signing.SealWith)
	if err != nil {
		return keys.Sealer{}, err
	}
	var others []keys.KEK
	for i, s := range server.Signing.UnsealWith {
		kek, err := read(fmt.Sprintf("signing.unseal_with[%d]", i), s)
		if err != nil {
			return keys.Sealer{}, err
		}
		others = append(others, kek)
	}
	sealer, err := keys.NewSealer(first, others...)
	if err != nil {
		return keys.Sealer{}, fmt.Errorf("signing: %w", err)
	}
	return sealer, nil
}

func keyPlan(s config.Signing) keys.Plan {
	p := keys.Plan{RotateEvery: s.RotateEvery, PublishBefore: s.PublishBefore}
	for _, alg := range s.Algorithms {
		p.Algorithms = append(p.Algorithms, jose.SignatureAlgorithm(alg))
	}
	return p
}

// settle is how long keys that the shared store lacks may be put back by another replica: it looks every
// [keys.Every], twice at least.
const settle = 3 * keys.Every

// openKeys opens the keys of a deployment: in what replicas share, or in data_dir when db is nil.
func openKeys(ctx context.Context, server config.Server, sealer keys.Sealer, db *redis.DB, initialised bool) (*keys.Keys, error) {
	_, noHead := os.Stat(filepath.Join(server.DataDir, auditHeadFile))
	c := keys.Config{
		Dir: server.DataDir, Sealer: sealer, Plan: keyPlan(server.Signing),
		Initialised: initialised, Logged: initialised || noHead == nil, Now: time.Now,
	}
	if db != nil {
		c.Store, c.Settle = db.Keys(), settle
	}
	return keys.Open(ctx, c)
}

// auditKey reads the key that signs the heads of this replica's log, and changes nothing.
func auditKey(dir string, server config.Server) (ed25519.PrivateKey, error) {
	sealer, err := keyEncryptionKey(dir, server)
	if err != nil {
		return nil, err
	}
	return keys.ReadAudit(server.DataDir, sealer)
}

// followKeys keeps the keys up to date until ctx ends.
func (s *service) followKeys(ctx context.Context) {
	s.keys.Run(ctx, keys.Every, func(err error) {
		if err != nil {
			s.log.Error().Err(err).Msg("the keys cannot be read or changed; those in force serve on for a while")
			return
		}
		s.log.Info().Msg("the keys are read again")
	})
}
