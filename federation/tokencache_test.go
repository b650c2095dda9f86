package federation_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// side is one of two services that see the same tokens and the same issuer at the same time.
type side struct {
	keys  *federation.KeyCache
	trust *federation.Trust
}

// world is two services, of which one remembers tokens.
type world struct {
	t            *testing.T
	rt           *rapid.T
	clock        *clock
	issuer       *federationtest.Issuer
	spec         federation.KeySpec
	file         string // written by publish, "" unless keys come from there
	with, none   side
	presented    []secret.Value
	kids         []string
	hits, passes uint64
}

func newWorld(t *testing.T, rt *rapid.T, kind string) *world {
	w := &world{t: t, rt: rt, clock: &clock{now: noon}, issuer: federationtest.New(t)}
	w.issuer.SetMaxAge(time.Hour)
	w.kids = []string{w.issuer.Key().ID}
	w.spec = w.issuer.KeySpec()
	if kind == "file" {
		w.file = filepath.Join(t.TempDir(), "jwks.json")
		w.spec = federation.KeySpec{Issuer: w.issuer.URL(), JWKSFile: w.file, Algorithms: w.issuer.Algorithms()}
	}
	if kind == "inline" {
		w.spec = federation.KeySpec{Issuer: w.issuer.URL(), Inline: w.issuer.JWKS(), Algorithms: w.issuer.Algorithms()}
	}
	w.publish()
	for _, s := range []*side{&w.with, &w.none} {
		s.keys = federation.NewKeyCache(w.clock.Now, zerolog.Nop())
		t.Cleanup(s.keys.Close)
	}
	w.reload(true)
	return w
}

// reload builds both trusts anew, with the issuer or without.
func (w *world) reload(trusted bool) {
	w.count()
	for _, s := range []*side{&w.with, &w.none} {
		list := []federation.Issuer(nil)
		if trusted {
			source, err := s.keys.Source(w.spec)
			if err != nil {
				w.t.Fatal(err)
			}
			e := federation.Issuer{
				TrustDomain: "prod.example", Name: "ci", URL: w.issuer.URL(), Audiences: []string{audience},
				Algorithms: w.spec.Algorithms, Keys: source, Adapter: bySubject{}, MaxLifetime: federation.MaxMaxLifetime,
			}
			list = append(list, e)
		}
		s.trust = newTrust(w.t, list...)
	}
	w.with.trust = w.with.trust.Caching()
}

func (w *world) count() {
	if w.with.trust != nil {
		w.hits += w.with.trust.CacheStatus().Hits
	}
}

// publish puts the key set where it is read from. Each version is a new file: a change within one tick of the file
// system's clock would else go unseen.
func (w *world) publish() {
	if w.file == "" {
		return
	}
	next := w.file + ".next"
	if err := os.WriteFile(next, w.issuer.JWKS(), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(next, w.file); err != nil {
		w.t.Fatal(err)
	}
}

// down takes the key set away from where it is read from.
func (w *world) down() {
	w.issuer.SetDown(true)
	if w.file != "" {
		_ = os.Remove(w.file)
	}
}

func (w *world) up() {
	w.issuer.SetDown(false)
	w.publish()
}

// present shows one token to both services and compares what they say.
func (w *world) present(what string, raw secret.Value) {
	now := w.clock.Now()
	for _, s := range []side{w.with, w.none} {
		if s.keys.Background(now) {
			_, _ = s.trust.Identify(w.t.Context(), w.issuer.Sign(w.issuer.Claims(now, "poke", audience)), now)
		}
		s.keys.Settle()
	}
	got, gotErr := w.with.trust.Identify(w.t.Context(), raw, now)
	w.with.keys.Settle()
	want, wantErr := w.none.trust.Identify(w.t.Context(), raw, now)
	w.none.keys.Settle()
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(gotErr, wantErr) {
		w.rt.Fatalf("%s at %s: with a cache %v and %v, without %v and %v", what, now, got.ID(), gotErr, want.ID(), wantErr)
	}
	if gotErr == nil {
		w.passes++
	}
}

// A token that is remembered is answered as one that is not: at every time, through rotation, withdrawal, outage,
// removal of its issuer, and with its signature altered.
func TestCacheNeverOutlives(t *testing.T) {
	var hits, passes, shown uint64
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, rt, rapid.SampledFrom([]string{"remote", "file", "inline"}).Draw(rt, "keys"))
		pick := func() secret.Value {
			return w.presented[rapid.IntRange(0, len(w.presented)-1).Draw(rt, "token")]
		}
		steps := 0 // small ones; few, so that no fetch falls due at a moment that is drawn by lot
		sign := func(*rapid.T) {
			c := w.issuer.Claims(w.clock.Now(), rapid.SampledFrom([]string{"api", "worker"}).Draw(rt, "sub"), audience).
				With("exp", w.clock.Now().Add(rapid.SampledFrom([]time.Duration{45 * time.Second, 10 * time.Minute, 20 * time.Hour, 24 * time.Hour}).Draw(rt, "life")).Unix())
			raw := w.issuer.Sign(c)
			w.presented = append(w.presented, raw)
			shown++
			w.present("a new token", raw)
		}
		sign(rt)
		again := func(*rapid.T) {
			for range 2 {
				for _, raw := range w.presented[max(0, len(w.presented)-4):] {
					shown++
					w.present("a token again", raw)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"sign":   sign,
			"again":  again,
			"again2": again,
			"altered": func(*rapid.T) {
				raw := pick()
				w.present("before it is altered", raw)
				shown += 2
				w.present("an altered signature", altered(raw, rapid.IntRange(0, 3).Draw(rt, "how")))
			},
			"wait a little": func(t *rapid.T) {
				if steps++; steps > 20 {
					t.Skip("far enough")
				}
				w.clock.Advance(31 * time.Second)
			},
			"wait": func(*rapid.T) { w.clock.Advance(time.Hour) },
			"rotate": func(*rapid.T) {
				w.kids = append(w.kids, w.issuer.Rotate(jose.ES256).ID)
				w.publish()
			},
			"withdraw": func(*rapid.T) {
				w.issuer.Withdraw(w.kids[rapid.IntRange(0, len(w.kids)-1).Draw(rt, "kid")])
				w.publish()
			},
			"outage": func(*rapid.T) { w.down() },
			"long outage": func(*rapid.T) {
				w.down()
				for range rapid.IntRange(1, 4).Draw(rt, "hours") {
					w.clock.Advance(time.Hour)
					again(rt)
				}
				w.up()
			},
			"back":   func(*rapid.T) { w.up() },
			"reload": func(*rapid.T) { w.reload(true) },
			"key source ended": func(*rapid.T) { // as during a reload, before the new trust is in force
				w.with.keys.Retain(nil)
				w.none.keys.Retain(nil)
				again(rt)
				w.reload(true)
			},
			"issuer removed": func(*rapid.T) {
				w.reload(false)
				w.present("a token of an issuer that is gone", pick())
				w.reload(true)
			},
		})
		w.count()
		hits, passes = hits+w.hits, passes+w.passes
	})
	t.Logf("%d presentations, %d accepted, %d of those from memory", shown, passes, hits)
	if shown > 2000 && (passes*10 < shown || hits*20 < shown) {
		t.Errorf("%d presentations, %d accepted, %d from memory: too few of these to say anything", shown, passes, hits)
	}
}

// altered returns raw with another signature: one that does not verify, or the other one of two that do.
func altered(raw secret.Value, how int) secret.Value {
	s := raw.Reveal()
	dot := strings.LastIndexByte(s, '.')
	signature, err := base64.RawURLEncoding.DecodeString(s[dot+1:])
	if err != nil {
		return raw
	}
	switch how {
	case 0:
		signature[0] ^= 1
	case 1:
		signature[len(signature)-1] ^= 0x80
	case 2:
		signature = append(signature, 0)
	default: // (r, n-s) verifies, too
		n := new(big.Int).Set(elliptic.P256().Params().N)
		n.Sub(n, new(big.Int).SetBytes(signature[32:])).FillBytes(signature[32:])
	}
	return secret.New(s[:dot+1] + base64.RawURLEncoding.EncodeToString(signature))
}

// The fingerprint leaves the signature out; a cache that went by it would let this one in.
func TestCacheIsNotEnteredByFingerprint(t *testing.T) {
	iss := federationtest.New(t)
	trust := newTrust(t, entry(iss)).Caching()
	raw := iss.Sign(iss.Claims(noon, "api", audience))
	for range 3 {
		if _, err := identify(t, trust, raw); err != nil {
			t.Fatal(err)
		}
	}
	if s := trust.CacheStatus(); s.Hits != 2 || s.Tokens != 1 {
		t.Fatalf("got %+v, want two hits", s)
	}
	for how := range 3 {
		forged := altered(raw, how)
		_, err := identify(t, trust, forged)
		wantRejected(t, err, federation.ErrSignature)
	}
	if s := trust.CacheStatus(); s.Hits != 2 || s.Tokens != 1 {
		t.Errorf("got %+v, want no hit and nothing remembered of forgeries", s)
	}
}

// Keys of our own change by rotation and by compromise, which this package does not see.
func TestOwnTokensAreNeverRemembered(t *testing.T) {
	plain, own, _ := deployment(t)
	trust := plain.Caching()
	raw := signOwn(own, ownClaims(own))
	for range 3 {
		if _, err := identify(t, trust, raw); err != nil {
			t.Fatal(err)
		}
	}
	if s := trust.CacheStatus(); s.Hits != 0 || s.Tokens != 0 {
		t.Errorf("got %+v, want nothing remembered", s)
	}
}

// A key set that cannot say when it changes is asked each time.
func TestKeySetsOfOthersAreAskedEachTime(t *testing.T) {
	iss := federationtest.New(t)
	e := entry(iss)
	e.Keys = struct{ oidc.KeySet }{iss.KeySet()}
	trust := newTrust(t, e).Caching()
	raw := iss.Sign(iss.Claims(noon, "api", audience))
	for range 3 {
		if _, err := identify(t, trust, raw); err != nil {
			t.Fatal(err)
		}
	}
	if s := trust.CacheStatus(); s.Hits != 0 || s.Tokens != 0 {
		t.Errorf("got %+v, want nothing remembered", s)
	}
}

// heavy is an adapter with an attribute of some size.
type heavy struct{ bytes int }

func (heavy) Schema() federation.Schema {
	return federation.Schema{{Name: "blob", Type: federation.TypeString}}
}

func (h heavy) Name(federation.Claims) (federation.Naming, error) {
	return federation.Naming{Path: "someone", Attributes: federation.Attributes{"blob": federation.String(strings.Repeat("x", h.bytes))}}, nil
}

// The cache is bounded by number and by bytes, and what is asked for stays.
func TestCacheIsBounded(t *testing.T) {
	for _, tc := range []struct{ bytes, tokens int }{{10, 12_000}, {100_000, 800}} {
		iss := federationtest.NewNamed(t, "https://issuer.example", jose.EdDSA)
		e := entry(iss)
		e.Adapter = heavy{tc.bytes}
		trust := newTrust(t, e).Caching()
		wanted := iss.Sign(iss.Claims(noon, "api", audience))
		for i := range tc.tokens {
			if _, err := identify(t, trust, iss.Sign(iss.Claims(noon, fmt.Sprint("w", i), audience))); err != nil {
				t.Fatal(err)
			}
			if _, err := identify(t, trust, wanted); err != nil {
				t.Fatal(err)
			}
		}
		s := trust.CacheStatus()
		if s.Tokens > 8192 || s.Bytes > 32<<20 || s.Tokens < 100 {
			t.Errorf("after %d tokens of %d bytes: %+v, want at most 8192 tokens and 32 MiB, and a good part of that", tc.tokens, tc.bytes, s)
		}
		if s.Hits != uint64(tc.tokens-1) {
			t.Errorf("the token that was asked for all the time was remembered %d times, want %d", s.Hits, tc.tokens-1)
		}
	}
}

// Rotation, expiry and presentation at once: for the race detector, and for one truth, that a token whose key was
// withdrawn is refused once the withdrawal was seen.
func TestCacheUnderRotationInFlight(t *testing.T) {
	iss := federationtest.New(t)
	first := iss.Key()
	r := newRemote(t, iss)
	trust := r.trust.Caching()
	raw := iss.Sign(iss.Claims(noon, "api", audience))
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := trust.Identify(t.Context(), raw, noon); err != nil && !errors.Is(err, federation.ErrSignature) {
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	r.eventually("a hit", func() bool { return trust.CacheStatus().Hits > 0 })
	iss.Rotate(jose.ES256)
	iss.Withdraw(first.ID)
	r.clock.Advance(2 * time.Hour)
	r.eventually("the second fetch", func() bool { return iss.Fetches() >= 2 })
	r.cache.Settle()
	_, err := trust.Identify(t.Context(), raw, noon)
	wantRejected(t, err, federation.ErrSignature)
	close(stop)
	readers.Wait()
}
