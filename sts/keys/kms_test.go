package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// fakeKMS is a fake of a KMS: keys in memory. The real one is Vault's, in test/vault.
type fakeKMS struct {
	mu     sync.Mutex
	keys   map[string]*ecdsa.PrivateKey
	down   error
	other  bool // signs with a key of its own
	signed int
}

func newFakeKMS() *fakeKMS { return &fakeKMS{keys: map[string]*ecdsa.PrivateKey{}} }

func (f *fakeKMS) MakeKey(_ context.Context, set string, alg jose.SignatureAlgorithm) (string, crypto.PublicKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return "", nil, f.down
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	name := fmt.Sprintf("%s-%s:%d", set, alg, len(f.keys)+1)
	f.keys[name] = k
	return name, k.Public(), err
}

func (f *fakeKMS) SignWith(_ context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keys[name]
	switch {
	case f.down != nil:
		return nil, f.down
	case k == nil:
		return nil, errors.New("no such key")
	case f.other:
		k, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	f.signed++
	return cryptosigner.Opaque(k).SignPayload(input, alg)
}

func (f *fakeKMS) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// inKMS is a configuration whose new keys are made in f.
func inKMS(t *testing.T, dir string, kek keys.KEK, f *fakeKMS) keys.Config {
	c := config(t, dir, kek)
	c.KMS, c.Plan.InKMS = f, true
	return c
}

func signs(t *testing.T, k *keys.Keys) string {
	t.Helper()
	token, err := k.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]any{"sub": "checkout"})
	if err != nil {
		t.Fatalf("signing: %v", err)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Tokens().VerifySignature(t.Context(), jws); err != nil {
		t.Fatalf("what was signed does not verify: %v", err)
	}
	return token
}

func TestPrivateKeysOfAKMSAreNowhereHere(t *testing.T) {
	t.Parallel()
	f, dir, k := newFakeKMS(), t.TempDir(), kek(t)
	signs(t, opened(t, inKMS(t, dir, k, f)))
	if f.signed == 0 || len(f.keys) != 2 {
		t.Fatalf("the KMS has %d keys and signed %d times; want one key of each set, and signatures", len(f.keys), f.signed)
	}
	sealed, err := os.ReadFile(filepath.Join(dir, "keys.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	plain := keys.Unsealed(t, config(t, dir, k).Sealer, sealed)
	for name, private := range f.keys {
		raw, err := private.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(plain, []byte(base64.RawURLEncoding.EncodeToString(raw))) {
			t.Errorf("the private half of %s is in the document", name)
		}
		if !bytes.Contains(plain, []byte(name)) {
			t.Errorf("the document does not name %s; the test looks at something else", name)
		}
	}
}

// A KMS that is taken over, or confused, must not have us hand out what nobody can verify.
func TestSignatureOfAnotherKeyIsNotHandedOut(t *testing.T) {
	t.Parallel()
	f := newFakeKMS()
	k := opened(t, inKMS(t, t.TempDir(), kek(t), f))
	f.other = true
	if token, err := k.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]any{}); !errors.Is(err, keys.ErrKMS) {
		t.Errorf("signed %q, %v; want ErrKMS", token, err)
	}
	if err := k.KMS(); err == nil {
		t.Error("a KMS that signs with another key is called well")
	}
}

func TestKMSThatFailsIsSaidAndFoundAgain(t *testing.T) {
	t.Parallel()
	f := newFakeKMS()
	k := opened(t, inKMS(t, t.TempDir(), kek(t), f))
	if err := k.KMS(); err != nil {
		t.Fatalf("a KMS that signs: %v", err)
	}
	f.fail(errors.New("it is sealed"))
	if _, err := k.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, map[string]any{}); !errors.Is(err, keys.ErrKMS) {
		t.Fatalf("want ErrKMS, not %v", err)
	}
	if err := k.KMS(); err == nil || !strings.Contains(err.Error(), "it is sealed") {
		t.Errorf("KMS says %v", err)
	}
	if err := k.Refresh(t.Context()); err != nil {
		t.Errorf("keys that stand are read without the KMS: %v", err)
	}
	f.fail(nil)
	if err := k.Refresh(t.Context()); err != nil { // nobody asks for a signature: it is tried all the same
		t.Fatal(err)
	}
	if err := k.KMS(); err != nil {
		t.Errorf("it is well again, and it says %v", err)
	}
	// A caller who hangs up says nothing of the KMS.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.fail(context.Canceled)
	if _, err := k.Tokens().Sign(ctx, keys.Header{Type: "at+jwt"}, map[string]any{}); !errors.Is(err, keys.ErrKMS) {
		t.Fatal(err)
	}
	if err := k.KMS(); err != nil {
		t.Errorf("a caller hung up, and the KMS is blamed: %v", err)
	}
}

// A replica that nobody asks finds out by itself.
func TestKMSThatFailsBeforeAnybodyAsksIsNoticed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f, c := newFakeKMS(), keys.Config{}
	c = inKMS(t, t.TempDir(), kek(t), f)
	c.Now = func() time.Time { return now }
	k := opened(t, c)
	f.fail(errors.New("it is gone"))
	now = now.Add(15 * time.Second)
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.KMS(); err == nil {
		t.Error("nobody asked the KMS for 15 s, it is gone, and nobody notices")
	}
}

func TestKeysMoveIntoAKMSAndBack(t *testing.T) {
	t.Parallel()
	f, dir, k := newFakeKMS(), t.TempDir(), kek(t)
	before := signs(t, opened(t, config(t, dir, k)))
	c := inKMS(t, dir, k, f)
	c.Initialised, c.Logged = true, true
	moving := opened(t, c)
	signs(t, moving)
	if f.signed != 0 {
		t.Fatal("a key that was made here signs in the KMS")
	}
	if err := moving.Rotate(t.Context(), keys.Rotation{Now: true}); err != nil {
		t.Fatal(err)
	}
	there := signs(t, moving)
	if f.signed == 0 {
		t.Fatal("after the rotation the KMS signs nothing")
	}
	// Without the KMS nothing starts while a key in it signs.
	here := config(t, dir, k)
	here.Initialised, here.Logged = true, true
	if _, err := keys.Open(t.Context(), here); !errors.Is(err, keys.ErrKMS) || !strings.Contains(err.Error(), "signing.vault") {
		t.Fatalf("opened without the KMS that signs: %v", err)
	}
	here.KMS = f // known, and new keys are made here
	back := opened(t, here)
	if err := back.Rotate(t.Context(), keys.Rotation{Now: true}); err != nil {
		t.Fatal(err)
	}
	signed := f.signed
	signs(t, back)
	if f.signed != signed {
		t.Error("after moving back the KMS still signs")
	}
	here.KMS = nil
	last := opened(t, here) // the key in the KMS retires, which needs no KMS
	for _, token := range []string{before, there} {
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := last.Tokens().VerifySignature(t.Context(), jws); err != nil {
			t.Errorf("a token from before the move does not verify: %v", err)
		}
	}
	c.KMS = nil
	if _, err := keys.Open(t.Context(), c); err == nil {
		t.Error("a plan for a KMS that is not there is opened")
	}
}

// hangingKMS is a KMS that takes calls and does not answer.
type hangingKMS struct {
	*fakeKMS
	hang chan struct{}
	in   chan struct{}
}

func (h *hangingKMS) SignWith(ctx context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error) {
	if h.hang != nil {
		h.in <- struct{}{}
		<-h.hang
	}
	return h.fakeKMS.SignWith(ctx, name, alg, input)
}

// While a KMS hangs, nobody who shows a kid that we do not have waits for it, and what another replica changed is read.
func TestHangingKMSHoldsUpNoVerificationAndNoReading(t *testing.T) {
	t.Parallel()
	f, dir, k := &hangingKMS{fakeKMS: newFakeKMS()}, t.TempDir(), kek(t)
	c := inKMS(t, dir, k, f.fakeKMS)
	c.KMS = f
	one := opened(t, c)
	f.fail(errors.New("down"))
	if _, err := one.Tokens().Sign(t.Context(), keys.Header{Type: "at+jwt"}, 1); err == nil {
		t.Fatal("signed")
	}
	f.hang, f.in = make(chan struct{}), make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); one.Run(ctx, 10*time.Millisecond, func(error) {}) }()
	defer func() { close(f.hang); cancel(); <-done }()
	<-f.in // the probe
	read := keys.Loaded(one)
	time.Sleep(1100 * time.Millisecond) // longer than strangers wait for a reading
	if keys.Loaded(one).Equal(read) {
		t.Error("the document is not read while the KMS hangs")
	}
	verified := make(chan struct{})
	go func() {
		defer close(verified)
		_, private, _ := ed25519.GenerateKey(rand.Reader)
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: strings.Repeat("A", 43)}}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		jws, _ := s.Sign([]byte("{}"))
		text, _ := jws.CompactSerialize()
		jws, _ = jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.EdDSA})
		_, _ = one.Tokens().VerifySignature(context.Background(), jws)
	}()
	select {
	case <-verified:
	case <-time.After(5 * time.Second):
		t.Error("a stranger's token waits for the KMS")
	}
}
