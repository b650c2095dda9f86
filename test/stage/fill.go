package stage

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

// fillBatch is how many revocations one sync of the filling covers.
const fillBatch = 10_000

// FillRevocations puts n revocations into the store of a server that has been started once and does not run, as if so many
// tokens had been killed in the last minutes: nothing that is presented later is one of them, or descends from one.
func FillRevocations(ctx context.Context, dir string, n int) error {
	data := filepath.Join(dir, "data")
	text, err := os.ReadFile(filepath.Join(dir, "secrets", "kek"))
	if err != nil {
		return err
	}
	kek, err := keys.NewKEK(secret.New(string(text)))
	if err != nil {
		return err
	}
	sealer, err := keys.NewSealer(kek)
	if err != nil {
		return err
	}
	k, err := keys.Open(ctx, keys.Config{
		Dir: data, Sealer: sealer, Initialised: true, Logged: true, Now: time.Now,
		Plan: keys.Plan{Algorithms: []jose.SignatureAlgorithm{jose.ES256}, RotateEvery: 30 * 24 * time.Hour, PublishBefore: 24 * time.Hour},
	})
	if err != nil {
		return err
	}
	db, err := embedded.Open(data)
	if err != nil {
		return err
	}
	log, err := db.Revocations(k.MAC())
	if err != nil {
		return errors.Join(err, db.Close())
	}
	now := time.Now().UTC()
	for n > 0 && err == nil {
		batch := make([]revocation.Entry, min(n, fillBatch))
		for i := range batch {
			batch[i] = revocation.Entry{Lease: newID(), Decision: newID(), At: now, Until: now.Add(2 * time.Hour)}
		}
		err = log.AppendAll(ctx, batch)
		n -= len(batch)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("filling the revocation log: %w", err)
	}
	return nil
}

// newID has the form of a decision id: 128 random bits in lower-case base32.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
