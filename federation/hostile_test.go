package federation_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Ten thousand tokens (a thousand without SALLYPORT_FLOOD) with key ids of their own, for an issuer that misbehaves, in twenty windows of the refetch floor:
// it is asked once a window at most, memory stays where it was, and another issuer's workloads are served all the
// while. Their latency is told and not judged: machines differ. `make hostile` shows the table.
func TestFloodForAHostileIssuerCostsLittle(t *testing.T) {
	const windows, callers = 20, 25
	tokens := 1_000
	if os.Getenv("SALLYPORT_FLOOD") != "" {
		tokens = 10_000
	}
	rows := []string{fmt.Sprintf("%-22s %8s %8s %11s %11s   %-23s %-23s", "issuer", "metadata", "key set", "heap after", "heap peak", "other before p50/p99", "other during p50/p99")}
	for _, tc := range []struct {
		name      string
		behaviour federationtest.Behaviour
	}{
		{"honest", 0},
		{"slow drip", federationtest.SlowDrip},
		{"no answer", federationtest.NoAnswer},
		{"endless key set", federationtest.EndlessBody},
		{"endless metadata", federationtest.EndlessDiscovery},
		{"gzip bomb", federationtest.GzipBomb},
		{"10,000 keys", federationtest.ManyKeys},
		{"deep JSON", federationtest.DeepJSON},
		{"redirect, same host", federationtest.Redirects},
		{"redirect, other host", federationtest.RedirectsAway},
		{"redirected metadata", federationtest.RedirectDiscovery},
		{"foreign jwks_uri", federationtest.ForeignJWKS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad, good := federationtest.NewHostile(t, tc.behaviour), federationtest.New(t)
			now := &clock{now: noon}
			cache := federation.NewKeyCache(now.Now, zerolog.Nop())
			defer cache.Close()
			trust := newTrust(t, sourced(t, cache, good, "ci"), sourced(t, cache, bad, "bad"))
			wanted := good.Sign(good.Claims(noon, "api", audience))
			if _, err := trust.Identify(t.Context(), wanted, noon); err != nil {
				t.Fatal(err)
			}
			before := latencies(t, trust, wanted, 200, nil)

			heap := heapNow()
			peak, stop, over := heap, make(chan struct{}), make(chan struct{})
			var during []time.Duration
			go func() {
				defer close(over)
				during = latencies(t, trust, wanted, 1<<30, func() bool {
					peak = max(peak, heapObjects())
					select {
					case <-stop:
						return true
					default:
						return false
					}
				})
			}()
			like := bad.Sign(bad.Claims(noon, "api", audience)).Reveal()
			for range windows {
				var flood sync.WaitGroup
				for range callers {
					flood.Go(func() {
						for range tokens / windows / callers {
							ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
							if _, err := trust.Identify(ctx, otherKeyID(like), noon); err == nil {
								t.Error("a key id that no key has was accepted")
							}
							cancel()
						}
					})
				}
				flood.Wait()
				now.Advance(31 * time.Second)
			}
			close(stop)
			<-over
			grown := heapNow() - heap
			rows = append(rows, fmt.Sprintf("%-22s %8d %8d %11s %11s   %-23s %-23s", tc.name, bad.Discoveries(), bad.Fetches(),
				mebibytes(grown), mebibytes(peak-heap), halfAndTail(before), halfAndTail(during)))
			if bad.Discoveries() > windows+1 || bad.Fetches() > windows+1 {
				t.Errorf("%d requests for metadata and %d for keys in %d windows", bad.Discoveries(), bad.Fetches(), windows)
			}
			if grown > 64<<20 {
				t.Errorf("memory grew by %s", mebibytes(grown))
			}
		})
	}
	t.Log("\n" + strings.Join(rows, "\n"))
}

// sourced is an issuer whose keys are fetched.
func sourced(t *testing.T, cache *federation.KeyCache, iss *federationtest.Issuer, name string) federation.Issuer {
	t.Helper()
	source, err := cache.Source(iss.KeySpec())
	if err != nil {
		t.Fatal(err)
	}
	e := federation.Issuer{
		TrustDomain: "prod.example", Name: name, URL: iss.URL(), Audiences: []string{audience},
		Algorithms: iss.Algorithms(), Keys: source, Adapter: bySubject{},
	}
	return e
}

// latencies verifies a good token n times, or until enough says so. The token must be accepted each time.
func latencies(t *testing.T, trust *federation.Trust, raw secret.Value, n int, enough func() bool) []time.Duration {
	var out []time.Duration
	for range n {
		start := time.Now()
		if _, err := trust.Identify(context.Background(), raw, noon); err != nil {
			t.Errorf("a workload of another issuer was refused: %v", err)
			return out
		}
		out = append(out, time.Since(start))
		if enough != nil && enough() {
			break
		}
	}
	return out
}

func halfAndTail(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	return fmt.Sprintf("%s / %s", d[len(d)/2].Round(time.Microsecond), d[len(d)*99/100].Round(time.Microsecond))
}

// otherKeyID returns like with a key id that no key has. Its signature is another token's.
func otherKeyID(like string) secret.Value {
	header := encode(`{"alg":"ES256","kid":"` + federationtest.RandomID() + `","typ":"JWT"}`)
	return secret.New(header + like[strings.IndexByte(like, '.'):])
}

func heapNow() int64 {
	runtime.GC()
	return heapObjects()
}

func heapObjects() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// A hundred issuers, of which ninety-nine never answer: the trust is there at once, nobody is asked before a token
// comes, and the one good issuer's workloads do not wait for the others.
func TestOneOfAHundredIssuersServesWhileTheOthersNeverAnswer(t *testing.T) {
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	t.Cleanup(cache.Close)
	silent := federationtest.NewHostile(t, federationtest.NoAnswer)
	good := federationtest.New(t)
	list := []federation.Issuer{sourced(t, cache, good, "good")}
	for i := range 99 {
		spec := silent.KeySpec()
		spec.Discovery, spec.JWKSURL = false, fmt.Sprintf("%s?%d", silent.JWKSURL(), i)
		spec.Issuer = fmt.Sprintf("https://silent-%d.example", i)
		source, err := cache.Source(spec)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, federation.Issuer{
			TrustDomain: "prod.example", Name: fmt.Sprint("silent-", i), URL: spec.Issuer, Audiences: []string{audience},
			Algorithms: spec.Algorithms, Keys: source, Adapter: bySubject{},
		})
	}
	trust := newTrust(t, list...)
	if n := silent.Fetches() + good.Fetches() + good.Discoveries(); n != 0 {
		t.Errorf("%d requests before the first token, want none", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	now := time.Now()
	var waiting sync.WaitGroup
	for i := range 99 {
		raw := silent.Sign(silent.Claims(now, "api", audience).With("iss", fmt.Sprintf("https://silent-%d.example", i)))
		waiting.Go(func() {
			if _, err := trust.Identify(ctx, raw, now); err == nil {
				t.Error("a token was accepted without keys")
			}
		})
	}
	if _, err := trust.Identify(t.Context(), good.Sign(good.Claims(now, "api", audience)), now); err != nil {
		t.Errorf("the good issuer's workload, while 99 wait for theirs: %v", err)
	}
	cancel()
	waiting.Wait()
	cache.Close()
}
