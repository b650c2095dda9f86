package sts_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/limit"
	"github.com/sallyport-sts/sallyport/sts/metrics"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

// BenchmarkExchange is one whole exchange without HTTP, RS256 in and ES256 out, audited. Its floor is
// BenchmarkExchangeFloor: the two signatures alone, with the raw crypto of the same process.
//
//	go test ./sts -run '^$' -bench Exchange -cpuprofile cpu.out
func BenchmarkExchange(b *testing.B) {
	for _, durability := range []audit.Durability{audit.Process, audit.Machine} {
		b.Run(string(durability), func(b *testing.B) {
			x, in := benchExchanger(b, durability)
			ctx := context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := x.Exchange(ctx, in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkExchangeFloor verifies one RS256 signature and makes one ES256 signature.
func BenchmarkExchangeFloor(b *testing.B) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("signing input"))
	signature, err := rsaKey.Sign(rand.Reader, digest[:], rsaHash)
	if err != nil {
		b.Fatal(err)
	}
	ecKey := ecdsaKey(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if rsa.VerifyPKCS1v15(&rsaKey.PublicKey, rsaHash, digest[:], signature) != nil {
				b.Error("the signature does not verify")
				return
			}
			if _, err := ecdsa.SignASN1(rand.Reader, ecKey, digest[:]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func benchExchanger(b *testing.B, durability audit.Durability) (*sts.Exchanger, sts.Request) {
	b.Helper()
	const self = "https://sts.example"
	dir := b.TempDir()
	kek, err := keys.NewKEK(secret.New(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	mustBench(b, err)
	sealer, err := keys.NewSealer(kek)
	mustBench(b, err)
	k, err := keys.Open(b.Context(), keys.Config{
		Dir: dir, Sealer: sealer, Now: time.Now,
		Plan: keys.Plan{Algorithms: []jose.SignatureAlgorithm{jose.ES256}, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore},
	})
	mustBench(b, err)
	store, err := embedded.Open(dir)
	mustBench(b, err)
	b.Cleanup(func() { _ = store.Close() })
	journal, err := store.Revocations(k.MAC())
	mustBench(b, err)
	revoked, err := revocation.New(context.Background(), journal, k.MAC())
	mustBench(b, err)
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), HeadFile: filepath.Join(dir, "head"), Durability: durability, Signer: ed25519.PrivateKey(k.Audit())})
	mustBench(b, err)
	b.Cleanup(func() { _ = log.Close() })

	platform := federationtest.NewNamed(b, "https://k8s.example", jose.RS256)
	adapter, err := kubernetes.Kind().Build(kubernetes.Kind().Settings())
	mustBench(b, err)
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: "prod.example", Name: "cluster-1", URL: platform.URL(), Audiences: []string{self},
		Algorithms: platform.Algorithms(), Keys: platform.KeySet(), Adapter: adapter,
	}}, &federation.Own{URL: self, Keys: k.Tokens(), Algorithms: keys.Supported()})
	mustBench(b, err)
	p, problems := policy.New(policy.Config{
		Issuers: []policy.Issuer{{TrustDomain: "prod.example", Name: "cluster-1", Schema: adapter.Schema()}},
		Targets: []policy.Target{{Name: "orders", Scopes: []string{"read"}}},
		Rules: []policy.Rule{{Name: "r", Effect: policy.Allow, Targets: []string{"orders"}, Scopes: []string{"read"},
			Workloads: policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster-1",
				Where: map[string]policy.Matcher{"namespace": {OneOf: []federation.Value{federation.String("shop")}}}}}},
	})
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	broker, err := jwt.Kind().Build(brokers.Target{Name: "orders"}, jwt.Kind().Settings(), nil, brokers.Deps{Issuer: self, Signer: k.Tokens(), Now: time.Now})
	mustBench(b, err)
	counted := metrics.New(metrics.Sources{})
	counted.Configure(metrics.Names{Issuers: map[string]bool{"prod.example/cluster-1": true}, Targets: map[string]string{"orders": "orders"}})
	x, err := sts.NewExchanger(&sts.State{Trust: trust, Policy: p, Brokers: map[string]brokers.Broker{"orders": broker}, Hash: "bench"},
		counted.Audit(log), revoked, nil, time.Now, func() string { return strings.ToLower(rand.Text()) })
	mustBench(b, err)
	x.Limit(sts.NewLimits(limit.Rate{}, limit.Rate{PerSecond: 1_000_000, Burst: 1_000_000}))
	now := time.Now()
	token := platform.Sign(federationtest.Claims{
		"iss": platform.URL(), "aud": []string{self}, "sub": "system:serviceaccount:shop:checkout", "jti": "1",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(30 * time.Minute).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "checkout", "uid": "u"},
			"pod": map[string]any{"name": "p", "uid": "u"}},
	})
	return x, sts.Request{Remote: netip.MustParseAddr("127.0.0.1"), Form: url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "audience": {"orders"}, "scope": {"read"},
		"subject_token": {token.Reveal()}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
	}}
}

const rsaHash = crypto.SHA256

func ecdsaKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustBench(b, err)
	return k
}

func mustBench(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
