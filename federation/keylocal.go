package federation

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// inlineSource is a key set that configuration spells out.
type inlineSource struct {
	spec   KeySpec
	keys   *keySet
	since  time.Time
	closed atomic.Bool
}

func newInlineSource(spec KeySpec, now time.Time) (*inlineSource, error) {
	keys, err := parseKeySet(spec.Inline, spec.Algorithms)
	if err != nil {
		return nil, err
	}
	if len(keys.all) == 0 {
		return nil, errors.New("the inline JWK set has no usable key")
	}
	return &inlineSource{spec: spec, keys: keys, since: now}, nil
}

// VerifySignature implements oidc.KeySet.
func (s *inlineSource) VerifySignature(_ context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	if s.closed.Load() {
		return nil, errSourceEnded
	}
	return s.keys.verify(jws)
}

// generation implements generational.
func (s *inlineSource) generation() uint64 {
	if s.closed.Load() {
		return 0
	}
	return 1
}

func (s *inlineSource) close() { s.closed.Store(true) }

func (s *inlineSource) status() KeyStatus {
	return KeyStatus{
		Issuer: s.spec.Issuer, Source: s.spec.source(), Used: true, Healthy: true,
		Keys: len(s.keys.all), Dropped: s.keys.dropped, Fetched: s.since,
	}
}

// fileCheckEvery is how often a key file is looked at, at most.
const fileCheckEvery = time.Second

// fileSource reads a key file and reads it again when it changes. A file that is gone or broken leaves the
// keys of before in use for [staleWindow].
type fileSource struct {
	spec KeySpec
	now  func() time.Time
	log  zerolog.Logger

	mu    sync.Mutex // held while the file is looked at
	state atomic.Pointer[fileState]
}

// fileState is immutable.
type fileState struct {
	keys    *keySet // nil when none were ever read
	number  uint64  // of these keys, one more with each reading
	info    os.FileInfo
	read    time.Time
	next    time.Time // when to look again
	failing time.Time // since when, zero when not
	problem string
	ended   bool
}

func newFileSource(spec KeySpec, now func() time.Time, log zerolog.Logger) *fileSource {
	s := &fileSource{spec: spec, now: now, log: log.With().Str("issuer", spec.Issuer).Str("source", spec.source()).Logger()}
	s.state.Store(&fileState{})
	return s
}

// VerifySignature implements oidc.KeySet.
func (s *fileSource) VerifySignature(_ context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	now := s.now()
	st := s.state.Load()
	if !now.Before(st.next) && !st.ended {
		st = s.look(now)
	}
	switch {
	case st.ended:
		return nil, errSourceEnded
	case !st.serves(now):
		return nil, errNoKeys
	}
	return st.keys.verify(jws)
}

// generation implements generational.
func (s *fileSource) generation() uint64 {
	now, st := s.now(), s.state.Load()
	if !now.Before(st.next) || st.ended || !st.serves(now) {
		return 0
	}
	return st.number
}

// serves reports whether there are keys that are not too old.
func (st *fileState) serves(now time.Time) bool {
	return st.keys != nil && (st.failing.IsZero() || now.Sub(st.failing) <= staleWindow)
}

// look reads the file if it changed. Whoever finds another one looking uses what is there, unless nothing is.
func (s *fileSource) look(now time.Time) *fileState {
	if !s.mu.TryLock() {
		if st := s.state.Load(); st.keys != nil {
			return st
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	old := s.state.Load()
	if old.ended || now.Before(old.next) {
		return old
	}
	st := *old
	st.next = now.Add(fileCheckEvery)
	s.reread(&st, now)
	if st.problem != old.problem {
		s.log.WithLevel(level(st.problem)).Str("problem", st.problem).Int("keys", st.count()).Msg("issuer key file changed state")
	}
	s.state.Store(&st)
	return &st
}

// reread brings st up to date.
func (s *fileSource) reread(st *fileState, now time.Time) {
	info, err := os.Stat(s.spec.JWKSFile)
	if err == nil && st.failing.IsZero() && st.info != nil && sameFile(st.info, info) {
		return
	}
	keys, problem := s.read(info, err)
	if keys == nil {
		st.problem, st.info = problem, nil
		if st.failing.IsZero() {
			st.failing = now
		}
		return
	}
	st.number++
	st.keys, st.info, st.read, st.failing, st.problem = keys, info, now, time.Time{}, ""
	if len(keys.all) == 0 {
		st.problem = string(errNoKey)
	}
}

func (s *fileSource) read(info os.FileInfo, err error) (*keySet, string) {
	if err != nil || !info.Mode().IsRegular() {
		return nil, "key file cannot be read"
	}
	f, err := os.Open(s.spec.JWKSFile)
	if err != nil {
		return nil, "key file cannot be read"
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, fetch.MaxBody+1))
	if err != nil {
		return nil, "key file cannot be read"
	}
	if len(doc) > fetch.MaxBody {
		return nil, "key file is too large"
	}
	keys, err := parseKeySet(doc, s.spec.Algorithms)
	if err != nil {
		return nil, string(errNotKeySet)
	}
	return keys, ""
}

// sameFile reports whether a file is the same as at the last look, renames over it included.
func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (st *fileState) count() int {
	if st.keys == nil {
		return 0
	}
	return len(st.keys.all)
}

func (s *fileSource) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Store(&fileState{ended: true})
}

func (s *fileSource) status() KeyStatus {
	st := s.state.Load()
	out := KeyStatus{
		Issuer: s.spec.Issuer, Source: s.spec.source(), Used: !st.next.IsZero(), Healthy: st.problem == "",
		Keys: st.count(), Fetched: st.read, LastError: st.problem,
	}
	if st.keys != nil {
		out.Dropped = st.keys.dropped
	}
	return out
}
