package federation

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// How long fetched keys live, design section 6.
const (
	minKeyLife   = time.Minute      // however short the server's max-age
	maxKeyLife   = time.Hour        // however long
	refetchFloor = 30 * time.Second // between the starts of two fetches of one source
	staleWindow  = time.Hour        // that keys serve past their life while no fetch succeeds
	maxWaiting   = 128              // callers that may wait for one fetch; junk must not pile up behind a slow issuer
)

// Refusals of key sources.
var (
	errNoKeys      = &refusal{ErrKeysUnavailable, "no keys could be had"}
	errSourceEnded = &refusal{ErrKeysUnavailable, "the issuer was removed"}
)

// problemError is a failure of a source as operators see it: constant text.
type problemError string

func (e problemError) Error() string { return string(e) }

// What can be wrong with a source beyond the network.
const (
	errNotKeySet = problemError("document is not a JWK set of at most 64 keys")
	errNoKey     = problemError("issuer publishes no usable key")
	errRoots     = problemError("ca_file cannot be read")
	errDiscovery = problemError("discovery document is not usable")
	errIssuer    = problemError("discovery document names another issuer")
	errOrigin    = problemError("jwks_uri is not on the issuer's origin; pin it with jwks_url if it is right")
)

// problemOf returns the constant text for err.
func problemOf(err error) string {
	var p problemError
	if errors.As(err, &p) {
		return string(p)
	}
	if r := fetch.Reason(err); r != "" {
		return r
	}
	return "server cannot be reached"
}

// remoteSource fetches keys at first use and keeps them fresh while it is used.
type remoteSource struct {
	spec KeySpec
	now  func() time.Time
	log  zerolog.Logger
	ctx  context.Context // ends with the source; fetches hang on it, not on whoever asked first
	stop context.CancelFunc

	state   atomic.Pointer[remoteState]
	waiting atomic.Int32

	mu        sync.Mutex
	flight    chan struct{} // closed when the fetch under way is over; nil when none is
	attempted time.Time     // start of the newest fetch, recorded before it
}

// remoteState is immutable.
type remoteState struct {
	keys     *keySet // nil when none were ever had
	number   uint64  // of these keys, one more with each good answer
	fetched  time.Time
	refresh  time.Time // when to fetch again, in the background
	fresh    time.Time // until when keys are fresh
	deadline time.Time // until when they serve at all
	problem  string    // of the newest fetch, "" when it succeeded
}

func newRemoteSource(spec KeySpec, now func() time.Time, log zerolog.Logger) (*remoteSource, error) {
	if _, err := fetch.New(spec.Network); err != nil {
		return nil, err
	}
	s := &remoteSource{spec: spec, now: now, log: log.With().Str("issuer", spec.Issuer).Str("source", spec.source()).Logger()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.state.Store(&remoteState{})
	return s, nil
}

// VerifySignature implements oidc.KeySet. ctx bounds how long the caller waits, not the fetch.
func (s *remoteSource) VerifySignature(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	now := s.now()
	st, err := s.current(ctx, now)
	if err != nil {
		return nil, err
	}
	payload, err := st.keys.verify(jws)
	if err == nil || !errors.Is(err, errUnknownKey) && jws.Signatures[0].Protected.KeyID != "" {
		return payload, err
	}
	// The issuer may have rotated: to a kid not seen before, or without any.
	newer := s.refetch(ctx, now, st)
	if newer.keys == st.keys || !newer.serves(now) {
		return nil, err
	}
	return newer.keys.verify(jws)
}

// current returns keys that may be used at now.
func (s *remoteSource) current(ctx context.Context, now time.Time) (*remoteState, error) {
	st := s.state.Load()
	if st.ready(now) {
		return st, nil // the hot path
	}
	// Fresh keys serve while newer ones are fetched. So do stale ones of an issuer known to be down; but keys
	// that went stale because nobody asked are not used before a fetch was tried.
	if flight := s.start(now, st); flight != nil && !(st.serves(now) && st.settled(now)) {
		s.wait(ctx, flight)
	}
	st = s.state.Load()
	if s.ctx.Err() != nil {
		return nil, errSourceEnded
	}
	if !st.serves(now) {
		return nil, errNoKeys
	}
	return st, nil
}

// generation implements generational.
func (s *remoteSource) generation() uint64 {
	st := s.state.Load()
	if !st.ready(s.now()) {
		return 0
	}
	return st.number
}

// ready reports whether the keys serve as they are, with nothing to be done first.
func (st *remoteState) ready(now time.Time) bool {
	return now.Before(st.refresh) && st.serves(now) && st.settled(now)
}

// serves reports whether there are keys that are not too old.
func (st *remoteState) serves(now time.Time) bool {
	return st.keys != nil && now.Before(st.deadline)
}

// settled reports whether keys are fresh, or stale for the reason that the issuer is known to be down.
func (st *remoteState) settled(now time.Time) bool {
	return now.Before(st.fresh) || st.problem != ""
}

// refetch returns the keys after one more fetch, or those there are when the floor forbids one.
func (s *remoteSource) refetch(ctx context.Context, now time.Time, st *remoteState) *remoteState {
	if flight := s.start(now, st); flight != nil {
		s.wait(ctx, flight)
	}
	return s.state.Load()
}

// start begins a fetch unless one is under way, the last began less than refetchFloor ago, or somebody
// brought newer keys than st. It returns what to wait for, nil for nothing.
func (s *remoteSource) start(now time.Time, st *remoteState) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight
	}
	current := s.state.Load()
	if s.ctx.Err() != nil || current.keys != st.keys || !s.attempted.IsZero() && now.Sub(s.attempted) < refetchFloor {
		return nil
	}
	s.attempted = now // before the fetch: failures count, too
	flight := make(chan struct{})
	s.flight = flight
	later := *current
	later.refresh = now.Add(refetchFloor) // sends everybody else back to the hot path
	s.state.Store(&later)
	go s.fetch(now, flight)
	return flight
}

func (s *remoteSource) wait(ctx context.Context, flight chan struct{}) {
	if s.waiting.Add(1) <= maxWaiting {
		select {
		case <-flight:
		case <-ctx.Done():
		}
	}
	s.waiting.Add(-1)
}

// fetch gets the keys once and publishes what came of it.
func (s *remoteSource) fetch(now time.Time, flight chan struct{}) {
	ctx, cancel := context.WithTimeout(s.ctx, fetch.TotalTimeout)
	defer cancel()
	keys, life, err := s.get(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(flight)
	s.flight = nil
	if s.ctx.Err() != nil {
		return
	}
	old := s.state.Load()
	st := *old
	if err != nil {
		st.problem = problemOf(err)
		st.refresh = now.Add(refetchFloor)
	} else {
		st = succeeded(keys, now, life)
		st.number = old.number + 1
	}
	if st.problem != old.problem {
		s.log.WithLevel(level(st.problem)).Str("problem", st.problem).Time("fetched", st.fetched).Msg("issuer keys changed state")
	}
	s.state.Store(&st)
}

// succeeded is the state after a good answer. What the answer lacks is gone at once.
func succeeded(keys *keySet, now time.Time, life time.Duration) remoteState {
	life = min(max(life, minKeyLife), maxKeyLife)
	// Ahead of expiry, spread over a tenth of it, so that replicas do not come at one moment.
	ahead := life*7/10 + time.Duration(rand.Int64N(int64(life)/10))
	st := remoteState{
		keys: keys, fetched: now,
		refresh: now.Add(ahead), fresh: now.Add(life), deadline: now.Add(life + staleWindow),
	}
	if len(keys.all) == 0 {
		st.problem = string(errNoKey)
	}
	return st
}

// get finds the key set's address, if need be by discovery, and reads it.
func (s *remoteSource) get(ctx context.Context) (*keySet, time.Duration, error) {
	guarded, err := fetch.New(s.spec.Network)
	if err != nil {
		return nil, 0, errRoots
	}
	address := s.spec.JWKSURL
	if s.spec.Discovery {
		if address, err = discover(ctx, s.spec.Issuer, guarded); err != nil {
			return nil, 0, err
		}
	}
	doc, err := fetch.Get(ctx, guarded, address)
	if err != nil {
		return nil, 0, err
	}
	keys, err := parseKeySet(doc.Body, s.spec.Algorithms)
	return keys, doc.MaxAge, err
}

// discover returns jwks_uri of an issuer's metadata, which must name the issuer itself and stay on its
// origin (OpenID Connect Discovery section 4.3). zitadel's errors quote the answer; they end here.
func discover(ctx context.Context, issuer string, guarded *http.Client) (string, error) {
	config, err := client.Discover(ctx, issuer, guarded)
	switch {
	case errors.Is(err, oidc.ErrIssuerInvalid):
		return "", errIssuer
	case err != nil && fetch.Reason(err) != "":
		return "", problemError(fetch.Reason(err))
	case err != nil:
		return "", errDiscovery
	case origin(config.JwksURI) == "" || origin(config.JwksURI) != origin(issuer):
		return "", errOrigin
	}
	return config.JwksURI, nil
}

// origin returns scheme, host and port of a URL in one form, "" for what is no such URL (RFC 6454
// section 4).
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

func level(problem string) zerolog.Level {
	if problem == "" {
		return zerolog.InfoLevel
	}
	return zerolog.WarnLevel
}

func (s *remoteSource) close() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Store(&remoteState{problem: "ended"})
}

func (s *remoteSource) status() KeyStatus {
	st := s.state.Load()
	out := KeyStatus{
		Issuer: s.spec.Issuer, Source: s.spec.source(), Used: st.keys != nil || st.problem != "",
		Healthy: st.problem == "", Fetched: st.fetched, LastError: st.problem,
	}
	if st.keys != nil {
		out.Keys, out.Dropped = len(st.keys.all), st.keys.dropped
	}
	return out
}
