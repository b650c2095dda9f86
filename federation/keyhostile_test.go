package federation_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// Hostile issuers cost bounded time and memory and yield no keys; nothing they say is repeated.
func TestHostileIssuerIsRefused(t *testing.T) {
	logs := captureSlog(t)
	for name, tc := range map[string]struct {
		behaviour federationtest.Behaviour
		problem   string
	}{
		"endless body":         {federationtest.EndlessBody, "answer is too large"},
		"endless discovery":    {federationtest.EndlessDiscovery, "answer is too large"},
		"redirect":             {federationtest.Redirects, "server redirects"},
		"redirected discovery": {federationtest.RedirectDiscovery, "server redirects"},
		"10,000 keys":          {federationtest.ManyKeys, ""},
		"foreign jwks_uri":     {federationtest.ForeignJWKS, "jwks_uri is not on the issuer's origin; pin it with jwks_url if it is right"},
		"wrong issuer":         {federationtest.WrongIssuer, "discovery document names another issuer"},
		"compressed":           {federationtest.Compressed, "answer is compressed, which was not asked for"},
		"deep JSON":            {federationtest.DeepJSON, "document is not a JWK set of at most 64 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t, federationtest.NewHostile(t, tc.behaviour))
			err := wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
			s := r.status()
			if s.Healthy || tc.problem != "" && s.LastError != tc.problem {
				t.Errorf("status %+v, want the problem %s", s, tc.problem)
			}
			if strings.Contains(err.Error()+s.LastError+r.log.String()+logs.String(), federationtest.SecretBody) {
				t.Error("the answer's text got out")
			}
		})
	}
	r := newRemote(t, federationtest.New(t))
	r.SetDown(true)
	err := wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	if s := r.status(); strings.Contains(err.Error()+s.LastError+r.log.String()+logs.String(), federationtest.SecretBody) {
		t.Error("the text of a 503 got out")
	}
}

func captureSlog(t *testing.T) *syncBuffer {
	t.Helper()
	before := slog.Default()
	b := &syncBuffer{}
	slog.SetDefault(slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })
	return b
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var _ io.Writer = (*syncBuffer)(nil)

func TestIssuerThatLiesAboutKeyIDsIsRefused(t *testing.T) {
	r := newRemote(t, federationtest.NewHostile(t, federationtest.LyingKeyID))
	wantRejected(t, r.identify(), federation.ErrSignature)
}

// A caller waits as long as it likes, a fetch ten seconds at most.
func TestSlowIssuerHoldsNobodyLongerThanTheyWish(t *testing.T) {
	for _, b := range []federationtest.Behaviour{federationtest.SlowDrip, federationtest.NoAnswer} {
		r := newRemote(t, federationtest.NewHostile(t, b))
		raw := r.Sign(r.Claims(noon, "api", audience))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := r.trust.Identify(ctx, raw, noon)
		cancel()
		wantRejected(t, err, federation.ErrKeysUnavailable)
		// The fetch itself would end only after TotalTimeout, and say so: the caller left before.
		if s := r.status(); s.LastError != "" {
			t.Errorf("behaviour %d: a caller with 50 ms waited until the fetch ended: %s", b, s.LastError)
		}
		r.cache.Close() // ends the fetch at once
	}
}

func TestSlowIssuerFailsAfterTenSeconds(t *testing.T) {
	t.Parallel()
	r := newRemote(t, federationtest.NewHostile(t, federationtest.SlowDrip))
	start := time.Now()
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	if took := time.Since(start); took < fetch.TotalTimeout-time.Second || took > fetch.TotalTimeout+liveness {
		t.Errorf("a drip was listened to for %s, want %s", took, fetch.TotalTimeout)
	}
	if s := r.status(); s.LastError != "server does not answer in time" {
		t.Errorf("status %+v", s)
	}
}

// Loopback and private addresses need allow_private, plain http needs allow_http.
func TestNetworkIsClosedByDefault(t *testing.T) {
	iss := federationtest.NewTLS(t)
	spec := iss.KeySpec()
	spec.Network.AllowPrivate = false
	r := newRemoteSpec(t, iss, spec)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	if s := r.status(); s.LastError != fetch.ErrAddress.Error() {
		t.Errorf("status %+v, want %v", s, fetch.ErrAddress)
	}
	spec = iss.KeySpec()
	spec.Network.CAFile = ""
	r = newRemoteSpec(t, iss, spec)
	wantRejected(t, r.identify(), federation.ErrKeysUnavailable)
	if s := r.status(); s.LastError != "server certificate does not verify" {
		t.Errorf("status %+v", s)
	}
}

// Junk tokens must not pile up behind a slow issuer: only so many callers wait for a fetch.
func TestFewCallersWaitForASlowIssuer(t *testing.T) {
	r := newRemote(t, federationtest.NewHostile(t, federationtest.NoAnswer))
	raw := r.Sign(r.Claims(noon, "api", audience))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const callers, waiting = 200, 128
	done := make(chan error, callers)
	for range callers {
		go func() {
			_, err := r.trust.Identify(ctx, raw, noon)
			done <- err
		}()
	}
	for range callers - waiting {
		select {
		case err := <-done:
			wantRejected(t, err, federation.ErrKeysUnavailable)
		case <-time.After(liveness):
			t.Fatalf("more than %d callers wait for an issuer that does not answer", waiting)
		}
	}
	if n := len(done); n != 0 {
		t.Errorf("fewer than %d callers wait", waiting)
	}
	cancel()
	for range waiting {
		wantRejected(t, <-done, federation.ErrKeysUnavailable)
	}
}

// Removing an issuer ends what is under way for it (standards 4.26).
func TestEndingASourceEndsItsFetch(t *testing.T) {
	r := newRemote(t, federationtest.NewHostile(t, federationtest.NoAnswer))
	raw := r.Sign(r.Claims(noon, "api", audience))
	done := make(chan error, 1)
	go func() {
		_, err := r.trust.Identify(t.Context(), raw, noon)
		done <- err
	}()
	r.eventually("the fetch", func() bool { return r.Discoveries() == 1 })
	r.cache.Retain(nil)
	select {
	case err := <-done:
		wantRejected(t, err, federation.ErrKeysUnavailable)
	case <-time.After(liveness):
		t.Error("a caller still waits for an issuer that was removed")
	}
}
