package keys_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// shared is a deployment of replicas whose store can lose what it has.
type shared struct {
	t     *testing.T
	store *keys.File
	file  string
	kek   keys.KEK
	clock *clock
}

func newShared(t *testing.T) *shared {
	dir := t.TempDir()
	return &shared{t, keys.NewFile(dir), filepath.Join(dir, "keys.sealed"), kek(t), newClock()}
}

func (s *shared) config(dir string) keys.Config {
	c := config(s.t, dir, s.kek)
	c.Store, c.Now = s.store, s.clock.now
	return c
}

func (s *shared) lose() {
	if err := os.Remove(s.file); err != nil {
		s.t.Fatal(err)
	}
}

// A replica that runs has the keys, so their loss is mended and told once.
func TestReplicaPutsBackWhatTheStoreLost(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	a, b := opened(t, s.config(t.TempDir())), opened(t, s.config(t.TempDir()))
	before := kid(a)
	s.lose()
	if err := a.Refresh(t.Context()); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("the loss is told as %v", err)
	}
	refresh(t, a, b)
	if kid(a) != before || kid(b) != before {
		t.Error("the keys are others")
	}
}

// A store that went back, as a Redis does that forgets its last second, would bring back keys that were taken out.
// The replica that knows the newest ones overrules it, and whoever followed the older ones.
func TestNewestKeysWinOverAStoreThatWentBack(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	a, b := opened(t, s.config(t.TempDir())), opened(t, s.config(t.TempDir()))
	old, taken := read(t, s.file), kid(a)
	if err := a.Rotate(t.Context(), keys.Rotation{Compromised: true}); err != nil {
		t.Fatal(err)
	}
	put(t, s.file, old)
	refresh(t, b) // has not seen the rotation
	if err := a.Refresh(t.Context()); !errors.Is(err, keys.ErrRollback) {
		t.Errorf("the store that went back is told as %v", err)
	}
	refresh(t, a, b)
	if kid(b) == taken || kid(b) != kid(a) {
		t.Error("the compromised key is back")
	}
	s.lose() // and from another deployment nothing is overwritten
	other := config(t, t.TempDir(), s.kek)
	other.Store, other.Now = s.store, s.clock.now
	opened(t, other)
	theirs := read(t, s.file)
	if err := a.Refresh(t.Context()); !errors.Is(err, keys.ErrRollback) {
		t.Errorf("another deployment's keys are told as %v", err)
	}
	if string(read(t, s.file)) != string(theirs) {
		t.Error("another deployment's keys were overwritten")
	}
}

// What is lost is never made anew by somebody who has seen it, and comes back from a replica's copy.
func TestLostKeysAreNeverMadeAnewAndComeBackFromACopy(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	dir := t.TempDir()
	a := opened(t, s.config(dir))
	s.lose()
	if _, err := keys.Open(t.Context(), s.config(dir)); !errors.Is(err, keys.ErrMissing) {
		t.Fatalf("a replica that has seen keys starts without them: %v", err)
	}
	if _, err := os.Stat(s.file); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it made new ones: %v", err)
	}
	sealer := s.config(dir).Sealer
	if err := keys.Restore(t.Context(), t.TempDir(), s.store, sealer); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("restoring from nothing says %v", err)
	}
	if err := keys.Restore(t.Context(), dir, s.store, sealer); err != nil {
		t.Fatal(err)
	}
	if again := opened(t, s.config(dir)); kid(again) != kid(a) {
		t.Error("the keys are others")
	}
	if err := keys.Restore(t.Context(), dir, s.store, sealer); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("restoring what is there says %v", err)
	}
	stale := read(t, filepath.Join(dir, "keys.sealed"))
	if err := opened(t, s.config(dir)).Rotate(t.Context(), keys.Rotation{Compromised: true}); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "keys.sealed"), stale)
	s.lose()
	if err := keys.Restore(t.Context(), dir, s.store, sealer); !errors.Is(err, keys.ErrRollback) {
		t.Errorf("restoring an older copy than was seen says %v", err)
	}
}

// noticed tells when it was first asked for keys, and had answered.
type noticed struct {
	keys.Store
	asked chan struct{}
	once  sync.Once
}

func (n *noticed) Load(ctx context.Context) ([]byte, string, error) {
	defer n.once.Do(func() { close(n.asked) })
	return n.Store.Load(ctx)
}

// Somebody new who comes while the store is empty waits for those who know, instead of making keys of its own.
func TestNewReplicaWaitsForKeysToBePutBack(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	a := opened(t, s.config(t.TempDir()))
	s.lose()
	c := s.config(t.TempDir())
	c.Settle = time.Minute // it ends as soon as they are there
	asked := make(chan struct{})
	c.Store = &noticed{Store: s.store, asked: asked}
	done := make(chan *keys.Keys)
	go func() {
		k, err := keys.Open(t.Context(), c)
		if err != nil {
			t.Errorf("opening: %v", err)
		}
		done <- k
	}()
	<-asked
	_ = a.Refresh(t.Context()) // says that they were lost
	if b := <-done; b != nil && kid(b) != kid(a) {
		t.Error("the new replica made keys of its own")
	}
}

// slow is a store that takes two seconds for everything, which is within what one call may take.
type slow struct{ keys.Store }

func (s slow) Load(ctx context.Context) ([]byte, string, error) {
	if err := wait(ctx); err != nil {
		return nil, "", err
	}
	return s.Store.Load(ctx)
}

func (s slow) Swap(ctx context.Context, revision string, sealed []byte) (string, error) {
	if err := wait(ctx); err != nil {
		return "", err
	}
	return s.Store.Swap(ctx, revision, sealed)
}

func wait(ctx context.Context) error {
	select {
	case <-time.After(2 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Between reading and writing, keys are made. What that takes on a busy machine is none of the store's time: else no
// rotation would ever come to its end there.
func TestEachCallOfTheStoreHasItsOwnTime(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), kek(t)
	synctest.Test(t, func(t *testing.T) {
		c := config(t, dir, key)
		c.Store, c.Now = slow{keys.NewFile(dir)}, time.Now
		k := opened(t, c)
		time.Sleep(c.Plan.RotateEvery)
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatalf("reading and writing take two seconds each: %v", err)
		}
		if n := len(k.Tokens().Published().Set.Keys); n != 2 {
			t.Errorf("%d keys are published after a rotation that was due, want the old one and the next", n)
		}
	})
}
