//go:build unix

package federation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// BenchmarkIdentify verifies a token of the size of a CI job's, beside the bare signature check of the same
// token, its digest included ("floor"). The difference is what everything else costs.
func BenchmarkIdentify(b *testing.B) {
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA} {
		iss := federationtest.NewNamed(b, "https://token.actions.example", alg)
		trust := newTrust(b, federation.Issuer{
			TrustDomain: "prod.example", Name: "ci", URL: iss.URL(), Audiences: []string{audience},
			Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: nothing{},
		})
		now := time.Now()
		raw := iss.Sign(jobClaims(iss, now))

		input, signature := parts(raw.Reveal())
		public := iss.Key().Signer.Public()
		identify := func() {
			if _, err := trust.Identify(b.Context(), raw, now); err != nil {
				b.Fatal(err)
			}
		}
		floor := func() {
			if !rawVerify(public, input, signature) {
				b.Fatal("bad signature")
			}
		}
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				identify()
			}
			b.StopTimer()
			ours, theirs := compare(identify, floor)
			b.ReportMetric(ours, "cpu-us/identify")
			b.ReportMetric(theirs, "cpu-us/floor")
			b.ReportMetric(ours/theirs, "ratio")
		})
	}
}

// compare returns the process time of f and g in microseconds a call, medians of rounds that take turns:
// other processes disturb that less than the time on the wall.
func compare(f, g func()) (fTime, gTime float64) {
	const rounds, calls = 9, 300
	var fs, gs []float64
	for range rounds {
		fs, gs = append(fs, cpu(calls, f)), append(gs, cpu(calls, g))
	}
	slices.Sort(fs)
	slices.Sort(gs)
	return fs[rounds/2], gs[rounds/2]
}

func cpu(calls int, f func()) float64 {
	start := used()
	for range calls {
		f()
	}
	return float64((used() - start).Nanoseconds()) / 1e3 / float64(calls)
}

// used returns the user and system time of the process, garbage collection included.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func parts(raw string) (input, signature []byte) {
	dot := strings.LastIndexByte(raw, '.')
	signature, _ = base64.RawURLEncoding.DecodeString(raw[dot+1:])
	return []byte(raw[:dot]), signature
}

func rawVerify(public any, input, signature []byte) bool {
	digest := sha256.Sum256(input)
	switch k := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return ecdsa.Verify(k, digest[:], r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(k, input, signature)
	}
	return false
}

// jobClaims are as many claims as GitHub Actions puts into a token.
func jobClaims(iss *federationtest.Issuer, now time.Time) federationtest.Claims {
	c := iss.Claims(now, "repo:octo-org/octo-repo:environment:production", audience)
	for name, value := range map[string]string{
		"ref": "refs/heads/main", "sha": "4f1c0b2a7d6e5f4c3b2a1908f7e6d5c4b3a29180", "repository": "octo-org/octo-repo",
		"repository_owner": "octo-org", "repository_owner_id": "1234567", "run_id": "9876543210", "run_number": "42",
		"run_attempt": "1", "repository_visibility": "private", "repository_id": "74", "actor_id": "12",
		"actor": "octocat", "workflow": "deploy", "head_ref": "", "base_ref": "", "event_name": "push",
		"ref_protected": "true", "ref_type": "branch", "environment": "production",
		"job_workflow_ref":   "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
		"runner_environment": "github-hosted",
	} {
		c[name] = value
	}
	return c
}

// BenchmarkIdentifyAgain is a token that was verified before, beside the same one verified anew: what the cache saves,
// and what looking into it costs.
func BenchmarkIdentifyAgain(b *testing.B) {
	iss := federationtest.NewNamed(b, "https://token.actions.example", jose.RS256)
	plain := newTrust(b, federation.Issuer{
		TrustDomain: "prod.example", Name: "ci", URL: iss.URL(), Audiences: []string{audience},
		Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: nothing{},
	})
	now := time.Now()
	raw := iss.Sign(jobClaims(iss, now))
	for name, trust := range map[string]*federation.Trust{"hit": plain.Caching(), "miss": plain} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := trust.Identify(b.Context(), raw, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
