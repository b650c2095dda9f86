package brokertest

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Upstream is a running server as the suite sees it. Its functions use the vendor's own client, not the broker's.
type Upstream struct {
	Target  policy.Target // defines the scope read
	Address string        // HOST:PORT of the server

	// Build returns a broker that reaches the server at address, with what it needs of its own. It is called many times,
	// as processes are: brokers share nothing.
	Build func(t testing.TB, address string) brokers.Revoker
	// Works returns nil when the credential opens what its scope allows, and why not otherwise.
	Works func(c brokers.Credential) error
	// Session opens a session with the credential and returns a function that reports whether it still serves; nil when
	// there are no sessions upstream.
	Session func(t testing.TB, c brokers.Credential) (alive func() bool)
	// Count returns how many objects of ours, by their names, stand upstream. Nil when that cannot be told.
	Count func(t testing.TB) int
	// Lag is how long the upstream may take to forget what it was told to; 0 for not at all.
	Lag time.Duration
	// Early is how much before its grant a credential may end, where the upstream takes a duration and counts from when
	// it reads the request; 0 for a second.
	Early time.Duration
	// Lost: a crash before Mint returns, or notes, can leave a credential that nobody finds (it ends by itself).
	Lost bool
}

// RunRevoker runs the suite of brokers whose credentials live outside: [Run], and whatever can go wrong between us and
// the upstream.
func RunRevoker(t *testing.T, u Upstream) {
	p := NewProxy(t, u.Address)
	b := u.Build(t, p.Addr())
	suite := &revokerSuite{u, p, b}
	t.Run("as every broker", func(t *testing.T) { run(t, u.Target, suite.cleaning(t, b), max(u.Early, time.Second)) })
	t.Run("a revoked credential is dead with its session, and nothing is left", suite.lives)
	t.Run("revoking twice, or what never was, says dead and gone", suite.gone)
	t.Run("what is known by its name alone can be revoked", suite.nameless)
	t.Run("the same order twice leaves nothing after one revocation", suite.twice)
	t.Run("a cut after any message of a mint leaves nothing that a revocation does not find", suite.cutMint)
	t.Run("a cut after any message of a revocation can be mended by another", suite.cutRevoke)
	t.Run("an upstream that is down is said so, quickly", suite.down)
	t.Run("an upstream that does not answer does not hold a caller", suite.slow)
	t.Run("names that are not ours are not listed", suite.listed)
	t.Run("many are revoked at once", suite.many)
}

type revokerSuite struct {
	Upstream
	proxy  *Proxy
	broker brokers.Revoker
}

// cleaning revokes what is minted when the test ends.
func (s *revokerSuite) cleaning(t *testing.T, b brokers.Revoker) brokers.Broker {
	return &cleaner{t, s, b}
}

type cleaner struct {
	t *testing.T
	s *revokerSuite
	b brokers.Revoker
}

func (c *cleaner) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	cred, err := c.b.Mint(ctx, o)
	if !o.IsZero() {
		c.t.Cleanup(func() { c.s.revoke(c.t, c.b, HandleOf(o, cred.Data)) })
	}
	return cred, err
}

// HandleOf is the handle that the ledger would keep of an order.
func HandleOf(o brokers.Order, data secret.Value) brokers.Handle {
	return brokers.Handle{Lease: o.Lease().ID, Name: o.Name(), Expires: o.Grant().Expires(), Data: data}
}

// NewID returns a lease id as the service makes them: 128 random bits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// order returns an order with a lease of its own.
func (s *revokerSuite) order(t testing.TB) brokers.Order {
	t.Helper()
	return NewOrder(t, time.Now().Truncate(time.Second), Spec{Target: s.Target, Scopes: []string{"read"}, Lifetime: s.lifetime(), Lease: brokers.Lease{ID: NewID()}})
}

func (s *revokerSuite) lifetime() time.Duration { return max(10*time.Minute, s.Target.MinLifetime) }

func (s *revokerSuite) mint(t testing.TB, b brokers.Broker, o brokers.Order) brokers.Credential {
	t.Helper()
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatalf("minting: %v", err)
	}
	return c
}

func (s *revokerSuite) revoke(t testing.TB, b brokers.Revoker, h brokers.Handle) brokers.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	r, err := b.Revoke(ctx, h)
	if err != nil {
		t.Errorf("revoking %s: %v", h.Name, err)
	}
	return r
}

// eventually waits for as long as the upstream may lag behind.
func (s *revokerSuite) eventually(what string, t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(s.Lag + 2*time.Second); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s", what)
			return
		}
	}
}

func (s *revokerSuite) nothingLeft(t testing.TB) {
	t.Helper()
	if s.Count != nil {
		s.eventually("something of ours is left upstream", t, func() bool { return s.Count(t) == 0 })
	}
}

func (s *revokerSuite) lives(t *testing.T) {
	o := s.order(t)
	c := s.mint(t, s.broker, o)
	if err := s.Works(c); err != nil {
		t.Fatalf("a fresh credential does not work: %v", err)
	}
	if s.Count != nil && s.Count(t) != 1 {
		t.Errorf("%d objects of ours stand upstream, want 1", s.Count(t))
	}
	alive := func() bool { return false }
	if s.Session != nil {
		if alive = s.Session(t, c); !alive() {
			t.Fatal("a session does not serve")
		}
	}
	r := s.revoke(t, s.broker, HandleOf(o, c.Data))
	if r.State != brokers.Dead || r.Gone || time.Since(r.At).Abs() > time.Minute {
		t.Errorf("the receipt says %s (gone %v) at %s, want dead, now", r.State, r.Gone, r.At)
	}
	s.eventually("the credential still works", t, func() bool { return s.Works(c) != nil })
	s.eventually("its session still serves", t, func() bool { return !alive() })
	s.nothingLeft(t)
}

func (s *revokerSuite) gone(t *testing.T) {
	o := s.order(t)
	c := s.mint(t, s.broker, o)
	h := HandleOf(o, c.Data)
	s.revoke(t, s.broker, h)
	if r := s.revoke(t, s.broker, h); r.State != brokers.Dead || !r.Gone {
		t.Errorf("the second receipt says %s (gone %v), want dead and gone", r.State, r.Gone)
	}
	never := s.revoke(t, s.broker, HandleOf(s.order(t), secret.Value{}))
	if want := s.unknown(); never.State != want || want == brokers.Dead && !never.Gone {
		t.Errorf("the receipt of what never was says %s (gone %v), want %s", never.State, never.Gone, want)
	}
}

func (s *revokerSuite) unknown() brokers.State {
	if s.Lost {
		return brokers.MayExist
	}
	return brokers.Dead
}

func (s *revokerSuite) nameless(t *testing.T) {
	o := s.order(t)
	c := s.mint(t, s.broker, o)
	r := s.revoke(t, s.broker, HandleOf(o, secret.Value{}))
	if r.State != s.unknown() {
		t.Errorf("the receipt says %s, want %s", r.State, s.unknown())
	}
	if r.State == brokers.Dead {
		s.eventually("the credential still works", t, func() bool { return s.Works(c) != nil })
	}
	s.revoke(t, s.broker, HandleOf(o, c.Data))
	s.nothingLeft(t)
}

func (s *revokerSuite) twice(t *testing.T) {
	o := s.order(t)
	first := s.mint(t, s.broker, o)
	second, err := s.broker.Mint(t.Context(), o)
	s.revoke(t, s.broker, HandleOf(o, first.Data))
	if err == nil && second.Data.Reveal() != first.Data.Reveal() {
		s.revoke(t, s.broker, HandleOf(o, second.Data))
	}
	s.eventually("the first credential still works", t, func() bool { return s.Works(first) != nil })
	s.nothingLeft(t)
}

// most is how many messages a mint or a revocation may take; more, and the suite stops looking.
const most = 60

// cutMint mints with ever more messages passing before the connection is cut, as when the process dies there, and then
// revokes with what a ledger would know: the name and the last note.
func (s *revokerSuite) cutMint(t *testing.T) {
	for n := range most {
		o := s.order(t)
		var noted secret.Value
		o = o.WithNote(func(_ context.Context, v secret.Value) error { noted = v; return nil })
		b := s.Build(t, s.proxy.Addr()) // with no connection from before
		s.proxy.CutAfter(n, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := b.Mint(ctx, o)
		cancel()
		s.proxy.Pass()
		if err == nil {
			s.revoke(t, s.broker, HandleOf(o, c.Data))
			s.nothingLeft(t)
			if n == 0 {
				t.Error("a mint took no message at all; is the proxy in its way?")
			}
			t.Logf("a mint takes %d messages; each was cut", n)
			return
		}
		if !errors.Is(err, brokers.ErrUnavailable) && !errors.Is(err, brokers.ErrUncertain) {
			t.Errorf("cut after %d messages: %v is neither ErrUnavailable nor ErrUncertain", n, err)
		}
		if errors.Is(err, brokers.ErrUnavailable) && !errors.Is(err, brokers.ErrUncertain) && s.Count != nil && s.Count(t) > 0 {
			t.Errorf("cut after %d messages: ErrUnavailable says that nothing was made, and something is there", n)
		}
		found := !s.Lost || !noted.IsZero() // what was noted is found, wherever names are not
		if r := s.revoke(t, s.broker, HandleOf(o, noted)); r.State != brokers.Dead && found {
			t.Errorf("cut after %d messages: the receipt says %s, want dead", n, r.State)
		}
		if found {
			s.nothingLeft(t)
		}
	}
	t.Errorf("a mint did not succeed with %d messages", most)
}

func (s *revokerSuite) cutRevoke(t *testing.T) {
	for n := range most {
		o := s.order(t)
		c := s.mint(t, s.broker, o)
		b := s.Build(t, s.proxy.Addr())
		s.proxy.CutAfter(n, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := b.Revoke(ctx, HandleOf(o, c.Data))
		cancel()
		s.proxy.Pass()
		if err != nil {
			if r := s.revoke(t, s.broker, HandleOf(o, c.Data)); r.State != brokers.Dead {
				t.Errorf("cut after %d messages: the next receipt says %s, want dead", n, r.State)
			}
		}
		s.eventually(fmt.Sprintf("cut after %d messages: the credential still works", n), t, func() bool { return s.Works(c) != nil })
		s.nothingLeft(t)
		if err == nil {
			t.Logf("a revocation takes %d messages; each was cut", n)
			return
		}
	}
	t.Errorf("a revocation did not succeed with %d messages", most)
}

func (s *revokerSuite) down(t *testing.T) {
	o := s.order(t)
	c := s.mint(t, s.broker, o)
	s.proxy.Refuse()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.broker.Mint(ctx, s.order(t)); !errors.Is(err, brokers.ErrUnavailable) && !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting at an upstream that is down: %v, want ErrUnavailable", err)
	}
	if _, err := s.broker.Revoke(ctx, HandleOf(o, c.Data)); err == nil {
		t.Error("a revocation that reached nobody has a receipt")
	}
	if ctx.Err() != nil {
		t.Errorf("it took %s to notice", time.Since(start))
	}
	s.proxy.Pass()
	s.revoke(t, s.broker, HandleOf(o, c.Data))
	s.nothingLeft(t)
}

func (s *revokerSuite) slow(t *testing.T) {
	o, second := s.order(t), s.order(t)
	c := s.mint(t, s.broker, o)
	s.proxy.Stall()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	_, mintErr := s.broker.Mint(ctx, second)
	cancel()
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	_, revokeErr := s.broker.Revoke(ctx, HandleOf(o, c.Data))
	cancel()
	if mintErr == nil || revokeErr == nil {
		t.Errorf("an upstream that does not answer made (%v) or revoked (%v) something", mintErr, revokeErr)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it held its callers for %s", took)
	}
	s.proxy.Refuse() // what hangs is cut
	s.proxy.Pass()
	s.revoke(t, s.broker, HandleOf(o, c.Data))
	s.revoke(t, s.broker, HandleOf(second, secret.Value{}))
	if !s.Lost {
		s.nothingLeft(t)
	}
}

func (s *revokerSuite) listed(t *testing.T) {
	l, ok := s.broker.(brokers.Lister)
	if !ok {
		if !s.Lost && s.Count != nil {
			t.Error("its credentials have names and it does not list them")
		}
		return
	}
	o := s.order(t)
	c := s.mint(t, s.broker, o)
	var found []brokers.Handle
	for h, err := range l.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := brokers.ParseName(h.Name); !ok {
			t.Errorf("it lists %q, which is not one of our names", h.Name)
		}
		found = append(found, h)
	}
	if len(found) != 1 || found[0].Name != o.Name() || !found[0].Expires.Equal(o.Grant().Expires().Truncate(time.Second)) {
		t.Errorf("it lists %d handles, want the one of %s: %v", len(found), o.Name(), found)
	}
	for _, h := range found {
		if r := s.revoke(t, s.broker, h); r.State != brokers.Dead {
			t.Errorf("revoking what was listed: the receipt says %s, want dead", r.State)
		}
	}
	s.eventually("the credential still works", t, func() bool { return s.Works(c) != nil })
	s.nothingLeft(t)
}

func (s *revokerSuite) many(t *testing.T) {
	b, ok := s.broker.(brokers.BulkRevoker)
	if !ok {
		return
	}
	const n = 20
	hs := make([]brokers.Handle, n)
	creds := make([]brokers.Credential, n)
	for i := range hs {
		o := s.order(t)
		creds[i] = s.mint(t, s.broker, o)
		hs[i] = HandleOf(o, creds[i].Data)
	}
	s.revoke(t, s.broker, hs[3]) // one of them is gone already
	results := b.RevokeAll(t.Context(), hs)
	if len(results) != n {
		t.Fatalf("%d results for %d handles", len(results), n)
	}
	for i, r := range results {
		if r.Err != nil || r.Receipt.State != brokers.Dead || r.Receipt.Gone != (i == 3) {
			t.Errorf("result %d says %s (gone %v, %v), want dead", i, r.Receipt.State, r.Receipt.Gone, r.Err)
		}
	}
	for _, c := range creds {
		s.eventually("a credential still works", t, func() bool { return s.Works(c) != nil })
	}
	s.nothingLeft(t)
}
