package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/verify"
)

const (
	platformIssuer   = "https://cluster.example"
	platformAudience = "https://sts.example/prod.example"
	orders           = "https://orders.prod.example/" // aud of tokens for the target orders
	gateway          = "spiffe://prod.example/cluster/gateway"
)

// clock stands still unless a test moves it.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// deployment is a running Sallyport, from the platform's token to the wire: real keys, policy, broker, handler.
type deployment struct {
	issuer   string
	caFile   string // "" over http
	clock    *clock
	keys     *keys.Keys
	platform jose.Signer
	server   *httptest.Server

	algorithms []jose.SignatureAlgorithm

	mu     sync.Mutex
	asked  map[string]int
	before func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	after  func(r *http.Request)                             // between the answer and its sending
}

// deploy runs a deployment until the test ends. It signs with ES256, and tokens for billing with the last of more.
func deploy(t testing.TB, more ...jose.SignatureAlgorithm) *deployment {
	t.Helper()
	d, err := start(t.TempDir(), false, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.Close)
	return d
}

// start runs a deployment whose files are in dir.
func start(dir string, tls bool, more ...jose.SignatureAlgorithm) (*deployment, error) {
	d := &deployment{clock: new(clock), asked: map[string]int{}, algorithms: append([]jose.SignatureAlgorithm{jose.ES256}, more...)}
	d.clock.nanos.Store(time.Now().Truncate(time.Second).UnixNano())
	d.server = httptest.NewUnstartedServer(nil)
	if tls {
		d.server.StartTLS()
		d.caFile = filepath.Join(dir, "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.server.Certificate().Raw})
		if err := os.WriteFile(d.caFile, block, 0o600); err != nil {
			return nil, err
		}
	} else {
		d.server.Start()
	}
	d.issuer = d.server.URL + "/sts"
	handler, err := d.handler(dir)
	if err != nil {
		d.server.Close()
		return nil, err
	}
	d.server.Config.Handler = d.watched(handler)
	return d, nil
}

func (d *deployment) handler(dir string) (http.Handler, error) {
	kek, err := keys.NewKEK(secret.New(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		return nil, err
	}
	sealer, err := keys.NewSealer(kek)
	if err != nil {
		return nil, err
	}
	d.keys, err = keys.Open(context.Background(), keys.Config{Dir: dir, Sealer: sealer, Now: d.clock.now, Plan: keys.Plan{
		Algorithms: d.algorithms, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore,
	}})
	if err != nil {
		return nil, err
	}
	state, err := d.state()
	if err != nil {
		return nil, err
	}
	revocations, err := revocation.New(context.Background(), &journal{}, d.keys.MAC())
	if err != nil {
		return nil, err
	}
	x, err := sts.NewExchanger(state, unrecorded{}, revocations, nil, d.clock.now, newID)
	if err != nil {
		return nil, err
	}
	return x.Handler(sts.Published{Issuer: d.issuer, Tokens: d.keys.Tokens(), Assertions: d.keys.Assertions()}, zerolog.Nop())
}

// state is two doors: one cluster, whose workloads are named by sub, and three targets.
func (d *deployment) state() (*sts.State, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "c", Algorithm: string(jose.ES256), Use: "sig"}
	if d.platform, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil); err != nil {
		return nil, err
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	if err != nil {
		return nil, err
	}
	es256 := []jose.SignatureAlgorithm{jose.ES256}
	source, err := federation.NewKeyCache(d.clock.now, zerolog.Nop()).Source(federation.KeySpec{Issuer: platformIssuer, Inline: set, Algorithms: es256})
	if err != nil {
		return nil, err
	}
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: "prod.example", Name: "cluster", URL: platformIssuer, Audiences: []string{platformAudience},
		Algorithms: es256, Keys: source, Adapter: bySubject{},
	}}, &federation.Own{URL: d.issuer, Keys: d.keys.Tokens(), Algorithms: keys.Supported()})
	if err != nil {
		return nil, err
	}
	who := policy.Workloads{TrustDomain: "prod.example", Issuer: "cluster", Where: map[string]policy.Matcher{
		"sub": {OneOf: []federation.Value{federation.String("checkout"), federation.String("gateway")}},
	}}
	rules, problems := policy.New(policy.Config{
		Issuers: []policy.Issuer{{TrustDomain: "prod.example", Name: "cluster", Schema: bySubject{}.Schema()}},
		Targets: []policy.Target{
			{Name: "orders", Resource: orders, Scopes: []string{"read", "write"}, ResourceServers: []string{gateway}},
			{Name: "billing"},
			{Name: "legacy"},
			{Name: sts.IntrospectionTarget},
		},
		Rules: []policy.Rule{
			{Name: "orders", Source: "p.yaml:1", Effect: policy.Allow, Workloads: who, Targets: []string{"orders"}, Scopes: []string{"read", "write"}},
			{Name: "delegated", Source: "p.yaml:2", Effect: policy.Allow, Workloads: who, Actors: &who, Targets: []string{"orders"}, Scopes: []string{"read"}},
			{Name: "others", Source: "p.yaml:3", Effect: policy.Allow, Workloads: who, Targets: []string{"legacy", "billing", sts.IntrospectionTarget}},
		},
	})
	if len(problems) > 0 {
		return nil, fmt.Errorf("policy: %v", problems)
	}
	state := &sts.State{Trust: trust, Policy: rules, Brokers: map[string]brokers.Broker{}, Hash: "config-1"}
	for target, settings := range map[string]jwt.Settings{"orders": {}, "billing": {Algorithm: string(d.algorithms[len(d.algorithms)-1])}, "legacy": {Type: "JWT"}, sts.IntrospectionTarget: {}} {
		about := brokers.Target{Name: target}
		if target == "orders" {
			about.Resource = orders
		}
		state.Brokers[target], err = jwt.Kind().Build(about, &settings, nil, brokers.Deps{Issuer: d.issuer, Signer: d.keys.Tokens(), Assertions: d.keys.Assertions(), Now: d.clock.now})
		if err != nil {
			return nil, err
		}
	}
	return state, nil
}

// watched counts requests by path and lets a test answer, or wait, in the deployment's place.
func (d *deployment) watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/sts")
		d.mu.Lock()
		d.asked[path]++
		before, after := d.before, d.after
		d.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		if after == nil {
			next.ServeHTTP(w, r)
			return
		}
		kept := httptest.NewRecorder()
		next.ServeHTTP(kept, r)
		after(r)
		for name, values := range kept.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(kept.Code)
		_, _ = w.Write(kept.Body.Bytes())
	})
}

func (d *deployment) intercept(before func(http.ResponseWriter, *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

func (d *deployment) hold(after func(*http.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = after
}

// down makes every request to a path fail; "" for none.
func (d *deployment) down(path string) {
	d.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if path == "" || !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
}

// count returns how often a path below the issuer was asked for.
func (d *deployment) count(path string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[path]
}

// identity is what the platform gives to a workload.
func (d *deployment) identity(sub string) (string, error) {
	now := d.clock.now()
	payload, err := json.Marshal(map[string]any{"iss": platformIssuer, "aud": platformAudience, "sub": sub, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	jws, err := d.platform.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// exchange gets a token for a target; pairs are more of the form.
func (d *deployment) exchange(sub, target string, pairs ...string) (string, error) {
	subject, err := d.identity(sub)
	if err != nil {
		return "", err
	}
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "audience": {target},
		"subject_token": {subject}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
	}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	res, err := d.server.Client().PostForm(d.issuer+"/token", form)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return "", err
	}
	token, _ := body["access_token"].(string)
	if token == "" {
		return "", fmt.Errorf("exchange for %s is answered %d %v", target, res.StatusCode, body)
	}
	return token, nil
}

// acted is mint with an actor, who proves to be one.
func (d *deployment) acted(t *testing.T, sub, actor, target string) string {
	t.Helper()
	proof, err := d.identity(actor)
	if err != nil {
		t.Fatal(err)
	}
	return d.mint(t, sub, target, "actor_token", proof, "actor_token_type", "urn:ietf:params:oauth:token-type:jwt")
}

func (d *deployment) mint(t testing.TB, sub, target string, pairs ...string) string {
	t.Helper()
	token, err := d.exchange(sub, target, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// revoke kills a token, as its holder does.
func (d *deployment) revoke(t testing.TB, token string) {
	t.Helper()
	res, err := d.server.Client().PostForm(d.issuer+"/revoke", url.Values{"token": {token}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("revoking is answered %d", res.StatusCode)
	}
}

// sign signs any claims with the deployment's own keys, as only it can.
func (d *deployment) sign(t testing.TB, typ string, claims map[string]any) string {
	t.Helper()
	token, err := d.keys.Tokens().Sign(t.Context(), keys.Header{Type: typ}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claimsOf reads a token's claims, unverified.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	return partOf(t, token, 1)
}

func partOf(t testing.TB, token string, part int) map[string]any {
	t.Helper()
	var out map[string]any
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[part])
	if err = errors.Join(err, json.Unmarshal(raw, &out)); err != nil {
		t.Fatal(err)
	}
	return out
}

// config is what a resource server of the target orders says.
func (d *deployment) config() verify.Config {
	return verify.Config{Issuer: d.issuer, Audience: orders, Algorithms: []string{"ES256", "RS256"}, CAFile: d.caFile, Now: d.clock.now}
}

// asking is config with introspection by a bearer of the gateway's, answers good for a time.
func (d *deployment) asking(t testing.TB, maxAge time.Duration) verify.Config {
	t.Helper()
	bearer := d.mint(t, "gateway", sts.IntrospectionTarget)
	c := d.config()
	c.Introspect = &verify.Introspection{MaxAge: maxAge, Bearer: func(context.Context) (secret.Value, error) { return secret.New(bearer), nil }}
	return c
}

func newVerifier(t testing.TB, c verify.Config) *verify.Verifier {
	t.Helper()
	v, err := verify.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// bySubject names workloads by their sub.
type bySubject struct{}

func (bySubject) Schema() federation.Schema {
	return federation.Schema{{Name: "sub", Type: federation.TypeString}}
}

func (bySubject) Name(c federation.Claims) (federation.Naming, error) {
	sub, _ := c.Lookup("sub")
	path, _ := sub.(string)
	return federation.Naming{Path: path, Attributes: federation.Attributes{"sub": federation.String(path)}}, nil
}

// journal is a revocation log in memory.
type journal struct{ n atomic.Uint64 }

func (j *journal) Append(context.Context, revocation.Entry) (revocation.Position, error) {
	return revocation.Position{Epoch: 1, N: j.n.Add(1)}, nil
}

func (j *journal) Load(context.Context, func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	return revocation.Position{Epoch: 1}, nil
}

func (j *journal) Prune(context.Context, time.Time) (int, error) { return 0, nil }

// unrecorded is an audit log that nobody reads.
type unrecorded struct{}

func (unrecorded) Append(context.Context, *audit.Record) error { return nil }
func (unrecorded) Junk(string, *audit.Record)                  {}

// newID is the binary's: 128 random bits in lower-case base32.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
