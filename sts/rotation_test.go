package sts_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// rotating is the plan of the test: keys sign for 20 minutes, are published 10 before, and the key set may be cached for 5.
var rotating = keys.Plan{
	Algorithms: []jose.SignatureAlgorithm{jose.ES256, jose.RS256}, RotateEvery: 20 * time.Minute, PublishBefore: 10 * time.Minute,
}

// rotationStep is how far time goes at once. The second replica reads the keys every fourth step, which is nearly
// as late as it may and still sign.
const rotationStep = 50 * time.Second

// Keys change under traffic and nobody notices: two replicas over one store, each target with an algorithm of its
// own, and a relying party that keeps the key set as long as it was told and asks either replica for it. A token of
// a key that is not in the set it has is a failure, except after a rotation that did not wait for caches: then it
// reads the set again, as docs/keys.md tells relying parties.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	rotationUnderLoad(t, keys.NewFile(t.TempDir()))
}

// The same over a real Redis, where the replicas share nothing else.
func TestRotationUnderLoadOverRedis(t *testing.T) {
	t.Parallel()
	server, err := redistest.Start(false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	db, err := redis.Open(redis.Config{URL: secret.New(server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	rotationUnderLoad(t, db.Keys())
}

func rotationUnderLoad(t *testing.T, store keys.Store) {
	l := newLoad(t, store)
	first := l.kids()
	for range 4 { // as the plan says
		l.run(rotating.RotateEvery)
	}
	planned := l.count(first)
	l.rotate(keys.Rotation{}) // an operator's, and in a hurry once caches know the new keys
	l.run(6 * time.Minute)
	l.rotate(keys.Rotation{Now: true})
	l.run(rotating.PublishBefore)
	if n := l.party.misses.Load(); n != 0 {
		t.Errorf("%d tokens were signed by keys that the relying party could not know yet", n)
	}
	l.impatient.Store(true)
	l.rotate(keys.Rotation{Now: true}) // nobody knows these
	l.run(10 * time.Minute)
	l.stop()

	all := l.count(first)
	t.Logf("%d exchanges; rotations: %d of ES256, %d of RS256, of them %d and %d by plan; the key set was fetched %d times, %d times for an unknown kid after --now; failures: %d",
		l.exchanges.Load(), all[jose.ES256], all[jose.RS256], planned[jose.ES256], planned[jose.RS256],
		l.party.fetches.Load(), l.party.misses.Load(), l.failures.Load())
	for _, alg := range rotating.Algorithms {
		if planned[alg] < 3 || all[alg] < planned[alg]+2 {
			t.Errorf("%s was rotated %d times, %d of them by plan", alg, all[alg], planned[alg])
		}
	}
	if l.failures.Load() != 0 || l.exchanges.Load() == 0 {
		t.Errorf("%d of %d exchanges failed", l.failures.Load(), l.exchanges.Load())
	}
}

// load is two replicas under continuous traffic.
type load struct {
	t         *testing.T
	clock     *clock
	replicas  []*rotated
	party     *relyingParty
	impatient atomic.Bool // keys may come that the relying party cannot know
	exchanges atomic.Int64
	failures  atomic.Int64
	steps     int
	progress  chan turn
	cancel    context.CancelFunc
	workers   sync.WaitGroup

	mu   sync.Mutex
	used map[string]jose.SignatureAlgorithm // algorithm of each kid that signed
}

// rotated is one replica.
type rotated struct {
	*deployment
	url    string
	server *httptest.Server
}

// turn says that a worker went once round, and when it began.
type turn struct {
	worker int
	began  time.Time
}

func newLoad(t *testing.T, store keys.Store) *load {
	l := &load{t: t, clock: new(clock), progress: make(chan turn), used: map[string]jose.SignatureAlgorithm{}}
	l.clock.nanos.Store(time.Now().Truncate(time.Second).UnixNano())
	w := newWorld(t)
	for range 2 {
		l.replicas = append(l.replicas, newReplica(t, w, l.clock, store))
	}
	l.party = &relyingParty{clock: l.clock, replicas: l.replicas}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	t.Cleanup(l.stop)
	for i, r := range l.replicas {
		for j, target := range []string{"orders", "plain"} {
			l.workers.Go(func() { l.work(ctx, 2*i+j, r, target) })
		}
	}
	return l
}

// newReplica serves a deployment whose target plain is signed with RS256, the others with ES256.
func newReplica(t *testing.T, w *world, c *clock, store keys.Store) *rotated {
	t.Helper()
	d := &deployment{world: w, t: t, clock: c, issuer: "https://sts.example", recorder: new(recorder), logs: new(lockedBuffer)}
	d.keys = openedKeys(t, keys.Config{Store: store, Plan: rotating, Now: c.now})
	state := d.build(w, "config-1")
	plain, err := jwt.Kind().Build(brokers.Target{Name: "plain"}, &jwt.Settings{Algorithm: string(jose.RS256)}, nil,
		brokers.Deps{Issuer: d.issuer, Signer: d.keys.Tokens(), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	state.Brokers["plain"] = plain
	revocations, err := revocation.New(t.Context(), new(memory), d.keys.MAC())
	if err != nil {
		t.Fatal(err)
	}
	x, err := sts.NewExchanger(state, d.recorder, revocations, d.marks, c.now, newID)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := x.Handler(sts.Published{Issuer: d.issuer, Tokens: d.keys.Tokens(), Assertions: d.keys.Assertions()}, zerolog.New(d.logs))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &rotated{deployment: d, url: server.URL, server: server}
}

// kids lists who signs or will, by algorithm.
func (l *load) kids() map[string]bool {
	out := map[string]bool{}
	for _, k := range l.replicas[0].keys.Tokens().Published().Set.Keys {
		out[k.KeyID] = true
	}
	return out
}

// count returns how many keys of each algorithm signed that were not there at first.
func (l *load) count(first map[string]bool) map[jose.SignatureAlgorithm]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[jose.SignatureAlgorithm]int{}
	for kid, alg := range l.used {
		if !first[kid] {
			out[alg]++
		}
	}
	return out
}

func (l *load) rotate(r keys.Rotation) {
	l.t.Helper()
	if err := l.replicas[0].keys.Rotate(l.t.Context(), r); err != nil {
		l.t.Fatalf("rotating: %v", err)
	}
}

// run lets time pass. Each step waits until the replicas whose turn it is have read the keys, and every worker has
// made an exchange that began after the step: so a slow machine makes the test slower, and nothing else.
func (l *load) run(d time.Duration) {
	l.t.Helper()
	alive := time.NewTimer(2 * time.Minute)
	defer alive.Stop()
	for end := l.clock.now().Add(d); l.clock.now().Before(end); {
		l.clock.advance(rotationStep)
		now := l.clock.now()
		l.steps++
		read := make(chan error, len(l.replicas))
		waiting := 0
		for i, r := range l.replicas {
			if l.steps%(1+3*i) == 0 {
				waiting++
				go func() { read <- r.keys.Refresh(l.t.Context()) }()
			}
		}
		behind := map[int]bool{}
		for i := range 2 * len(l.replicas) {
			behind[i] = true
		}
		for waiting > 0 || len(behind) > 0 {
			select {
			case err := <-read:
				if err != nil {
					l.t.Fatalf("reading keys: %v", err)
				}
				waiting--
			case p := <-l.progress:
				if !p.began.Before(now) {
					delete(behind, p.worker)
				}
			case <-alive.C:
				l.t.Fatal("the workers stand still")
			}
		}
	}
}

// stop ends the traffic.
func (l *load) stop() {
	l.cancel()
	l.workers.Wait()
}

// work exchanges at one replica for one target and lets the relying party judge, over and over.
func (l *load) work(ctx context.Context, worker int, r *rotated, target string) {
	for {
		began := l.clock.now()
		l.exchanges.Add(1)
		if err := l.once(ctx, r, target); err != nil && ctx.Err() == nil {
			if l.failures.Add(1) <= 10 {
				l.t.Errorf("replica %d, target %s: %v", worker/2, target, err)
			}
		}
		select {
		case l.progress <- turn{worker, began}:
		case <-ctx.Done():
			return
		}
	}
}

func (l *load) once(ctx context.Context, r *rotated, target string) error {
	form := te(r.checkout(), "audience", target)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", formType)
	var got struct {
		Token string `json:"access_token"`
	}
	if _, err := fetch(req, &got); err != nil {
		return err
	}
	kid, alg, err := l.party.verify(ctx, got.Token, target, l.impatient.Load())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used[kid] = alg
	return nil
}

// fetch reads a good answer.
func fetch(req *http.Request, v any) (http.Header, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d %s", req.URL.Path, resp.StatusCode, body)
	}
	return resp.Header, json.Unmarshal(body, v)
}

// relyingParty verifies tokens offline. It keeps the key set as long as Cache-Control says, counted from when it
// asked, and asks the replicas in turn.
type relyingParty struct {
	clock    *clock
	replicas []*rotated
	fetches  atomic.Int64
	misses   atomic.Int64

	mu      sync.Mutex
	turn    int
	set     jose.JSONWebKeySet
	expires time.Time
}

// algorithms says what the relying party expects of each target.
var algorithms = map[string]jose.SignatureAlgorithm{"orders": jose.ES256, "plain": jose.RS256}

func (p *relyingParty) verify(ctx context.Context, token, target string, impatient bool) (kid string, alg jose.SignatureAlgorithm, err error) {
	alg = algorithms[target]
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return "", "", err
	}
	kid = jws.Signatures[0].Header.KeyID
	key, err := p.key(ctx, kid, impatient)
	if err != nil {
		return "", "", err
	}
	if key.Algorithm != string(alg) {
		return "", "", fmt.Errorf("key %s is one of %s", kid, key.Algorithm)
	}
	payload, err := jws.Verify(key.Key)
	if err != nil {
		return "", "", fmt.Errorf("key %s does not verify the token: %w", kid, err)
	}
	var c struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return "", "", err
	}
	if c.Issuer != "https://sts.example" || !strings.Contains(c.Audience, target) || c.Expires <= p.clock.now().Unix() {
		return "", "", fmt.Errorf("claims %s", payload)
	}
	return kid, alg, nil
}

// key returns the key of a kid. What the set does not have is a failure, unless impatient: then every replica is
// asked once.
func (p *relyingParty) key(ctx context.Context, kid string, impatient bool) (jose.JSONWebKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.clock.now().Before(p.expires) {
		if err := p.read(ctx); err != nil {
			return jose.JSONWebKey{}, err
		}
	}
	named := func(k jose.JSONWebKey) bool { return k.KeyID == kid }
	for tries := 0; ; tries++ {
		if i := slices.IndexFunc(p.set.Keys, named); i >= 0 {
			return p.set.Keys[i], nil
		}
		p.misses.Add(1)
		if !impatient || tries == len(p.replicas) {
			return jose.JSONWebKey{}, fmt.Errorf("key %s is not in the set, which may be kept until %s", kid, p.expires)
		}
		if err := p.read(ctx); err != nil {
			return jose.JSONWebKey{}, err
		}
	}
}

// read asks the next replica for the key set.
func (p *relyingParty) read(ctx context.Context) error {
	asked := p.clock.now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.replicas[p.turn%len(p.replicas)].url+"/jwks", nil)
	if err != nil {
		return err
	}
	p.turn++
	p.fetches.Add(1)
	var set jose.JSONWebKeySet
	header, err := fetch(req, &set)
	if err != nil {
		return err
	}
	age, err := strconv.Atoi(strings.TrimPrefix(header.Get("Cache-Control"), "public, max-age="))
	if err != nil || age <= 0 {
		return fmt.Errorf("the key set comes with Cache-Control %q", header.Get("Cache-Control"))
	}
	p.set, p.expires = set, asked.Add(time.Duration(age)*time.Second)
	return nil
}
