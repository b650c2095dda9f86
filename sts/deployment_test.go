package sts_test

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
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
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// clock is the service's time. It stands still unless a test moves it.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// newID is the binary's: 128 random bits in lower-case base32.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// deployment is a running service with real issuers, keys, policy and brokers, and a client that holds every
// answer to openapi.yaml. When the test ends, nothing that was recorded, logged or answered may contain a token.
type deployment struct {
	*world
	t           testing.TB
	issuer      string
	clock       *clock
	keys        *keys.Keys
	state       *sts.State
	recorder    *recorder
	revocations *revocation.Set
	exchanger   *sts.Exchanger
	lists       *statuslist.Lists
	handler     http.Handler
	server      *httptest.Server
	contract    *contract
	client      *http.Client
	logs        *lockedBuffer
	mints       atomic.Int64 // calls of brokers

	mu      sync.Mutex
	secrets []string
}

func deploy(t testing.TB, changes ...func(*world)) *deployment {
	t.Helper()
	d := &deployment{world: newWorld(t), t: t, clock: new(clock), logs: new(lockedBuffer)}
	d.clock.nanos.Store(time.Now().Truncate(time.Second).UnixNano())
	for _, change := range changes {
		change(d.world)
	}
	d.recorder = &recorder{also: d.audit}
	d.keys = newKeys(t, d.clock.now)
	d.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }))
	d.server.StartTLS()
	t.Cleanup(d.close)
	d.issuer = d.server.URL + d.path
	var err error
	if d.revocations, err = revocation.New(t.Context(), d.log, d.keys.MAC()); err != nil {
		t.Fatal(err)
	}
	d.revocations.Clock(d.clock.now)
	d.lists = statuslist.New(statuslist.Config{Issuer: d.issuer, Life: newID(), Signer: d.keys.Tokens(), Set: d.revocations, Now: d.clock.now})
	d.state = d.build(d.world, "config-1")
	if d.exchanger, err = sts.NewExchanger(d.state, d.recorder, d.revocations, d.marks, d.clock.now, newID); err != nil {
		t.Fatal(err)
	}
	d.exchanger.List(d.lists)
	d.handler, err = d.exchanger.Handler(sts.Published{Issuer: d.issuer, Tokens: d.keys.Tokens(), Assertions: d.keys.Assertions()}, zerolog.New(d.logs))
	if err != nil {
		t.Fatal(err)
	}
	d.client = d.server.Client()
	d.contract = newContract(t, d.path, d.client.Transport)
	d.client.Transport = d.contract
	return d
}

func newKeys(t testing.TB, now func() time.Time) *keys.Keys {
	t.Helper()
	return openedKeys(t, keys.Config{
		Now:  now,
		Plan: keys.Plan{Algorithms: []jose.SignatureAlgorithm{jose.ES256}, RotateEvery: keys.DefaultRotateEvery, PublishBefore: keys.DefaultPublishBefore},
	})
}

// openedKeys opens keys in a directory of their own.
func openedKeys(t testing.TB, c keys.Config) *keys.Keys {
	t.Helper()
	kek, err := keys.NewKEK(secret.New(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	if c.Sealer, err = keys.NewSealer(kek); err != nil {
		t.Fatal(err)
	}
	c.Dir = t.TempDir()
	k, err := keys.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// build compiles a state, as a reload does.
func (d *deployment) build(w *world, hash string) *sts.State {
	d.t.Helper()
	own := &federation.Own{URL: d.issuer, Keys: d.keys.Tokens(), Algorithms: keys.Supported()}
	if w.ownKeys != nil {
		own.Keys = w.ownKeys
	}
	trust, err := federation.NewTrust(w.issuers, own)
	if err != nil {
		d.t.Fatal(err)
	}
	rules, problems := policy.New(w.policy)
	if len(problems) > 0 {
		d.t.Fatalf("policy: %v", problems)
	}
	byTarget := map[string]brokers.Broker{}
	for _, target := range w.policy.Targets {
		b, err := jwt.Kind().Build(brokers.Target{Name: target.Name, Resource: target.Resource, Scopes: target.Scopes}, &jwt.Settings{StatusList: target.Name == "archive" || target.Name == "listed"}, nil,
			brokers.Deps{Issuer: d.issuer, Signer: d.keys.Tokens(), Assertions: d.keys.Assertions(), Now: d.clock.now, Status: d.lists})
		if err != nil {
			d.t.Fatal(err)
		}
		byTarget[target.Name] = d.counted(b)
	}
	for target, b := range w.brokers {
		byTarget[target] = d.counted(b)
	}
	return &sts.State{Trust: trust.Caching(), Policy: rules, Brokers: byTarget, Hash: hash}
}

// brokerFunc is a broker made of a function.
type brokerFunc func(context.Context, brokers.Order) (brokers.Credential, error)

func (f brokerFunc) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	return f(ctx, o)
}

func (d *deployment) counted(b brokers.Broker) brokers.Broker {
	c := counted{b, d}
	if r, ok := b.(brokers.Revoker); ok {
		return countedOutside{c, r}
	}
	return c
}

// counted counts the mints of a broker and remembers what must not show anywhere.
type counted struct {
	brokers.Broker
	d *deployment
}

func (c counted) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	c.d.mints.Add(1)
	cred, err := c.Broker.Mint(ctx, o)
	c.d.keepSecret(cred.Value.Reveal())
	return cred, err
}

// Forms implements [brokers.Former].
func (c counted) Forms() []string {
	if f, ok := c.Broker.(brokers.Former); ok {
		return f.Forms()
	}
	return nil
}

type countedOutside struct {
	counted
	revoker brokers.Revoker
}

func (c countedOutside) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	return c.revoker.Revoke(ctx, h)
}

// sign returns a subject token of an issuer for a team; change may alter its claims.
func (d *deployment) sign(iss *federationtest.Issuer, sub, team string, change ...func(federationtest.Claims)) string {
	c := iss.Claims(d.clock.now(), sub, audience).With("team", team)
	for _, f := range change {
		f(c)
	}
	token := iss.Sign(c).Reveal()
	d.keepSecret(token)
	return token
}

// checkout is a good token of the workload that may have orders.
func (d *deployment) checkout(change ...func(federationtest.Claims)) string {
	return d.sign(d.cluster, "checkout/api", "checkout", change...)
}

// gateway is a token that authenticates the resource server of orders at /introspect.
func (d *deployment) gateway() string {
	d.t.Helper()
	return d.mint(d.sign(d.cluster, "gateway/one", "gateway"), sts.IntrospectionTarget).token
}

func set(name string, value any) func(federationtest.Claims) {
	return func(c federationtest.Claims) { c[name] = value }
}

func without(name string) func(federationtest.Claims) {
	return func(c federationtest.Claims) { delete(c, name) }
}

func (d *deployment) keepSecret(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets = append(d.secrets, s)
}

// close ends the server and looks for tokens where none may be.
func (d *deployment) close() {
	d.server.Close()
	parts := map[string]bool{}
	for _, s := range d.secrets {
		split := strings.Split(s, ".")
		for _, part := range split[min(1, len(split)-1):] { // payload and signature; headers repeat
			parts[part] = len(part) > 16
		}
	}
	for name, text := range map[string]string{"audit record": d.recorder.text(), "log": d.logs.String(), "answer": d.contract.text()} {
		for _, run := range strings.FieldsFunc(text, notBase64URL) {
			if parts[run] {
				d.t.Errorf("part of a token is in an %s", name)
			}
		}
	}
}

func notBase64URL(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func (c *contract) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
