package sts_test

import (
	"context"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/keys"
	index "github.com/sallyport-sts/sallyport/sts/minted"
)

// forge signs claims with the deployment's own key, as a thief of that key can.
func (d *deployment) forge(m minted, change func(map[string]any)) string {
	d.t.Helper()
	claims := maps.Clone(m.claims)
	change(claims)
	token, err := d.keys.Tokens().Sign(context.Background(), keys.Header{Type: "at+jwt"}, claims)
	if err != nil {
		d.t.Fatal(err)
	}
	d.keepSecret(token)
	return token
}

// remember gives a deployment an index that begins at since, and counts alarms.
func (d *deployment) remember(since time.Time) *atomic.Int64 {
	alarms := new(atomic.Int64)
	d.exchanger.Remember(sts.Alone{Index: index.NewIndex(since)}, func(federation.Token) { alarms.Add(1) }, func() {})
	return alarms
}

// Attack: somebody has our signing key, and makes a token of their own. It introspects inactive, buys nothing, and raises an
// alarm once; the token whose names it took lives on.
func TestForgedTokenIsInactiveAndRaisesAnAlarm(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	alarms := d.remember(d.clock.now().Add(-time.Hour))
	caller := d.gateway()
	real := d.mint(d.checkout(), "orders")
	for name, change := range map[string]func(map[string]any){
		"another workload's name":         func(c map[string]any) { c["sub"] = "spiffe://prod.example/cluster/root" },
		"more scopes":                     func(c map[string]any) { c["scope"] = "read write admin" },
		"longer life":                     func(c map[string]any) { c["exp"] = d.clock.now().Add(14 * time.Minute).Unix() },
		"another id, and the same family": func(c map[string]any) { c["jti"] = newID() },
	} {
		before := alarms.Load()
		forged := d.forge(real, change)
		if d.active(caller, forged) {
			t.Errorf("%s: a forged token is called active", name)
		}
		d.wantRefusal(name, d.exchange(te(forged, "audience", "billing")), 400, "invalid_request")
		if d.active(caller, forged) || alarms.Load() != before+1 {
			t.Errorf("%s: %d alarms, want one", name, alarms.Load()-before)
		}
	}
	if !d.active(caller, real.token) {
		t.Error("the token whose names were taken is dead")
	}
	d.issued(d.exchange(te(real.token, "audience", "billing")))
	told := 0
	for _, r := range d.recorder.records {
		if r.Signal == audit.SignalForged && r.Type == audit.TypeRevocation && r.Revocation.By == "sallyport" && r.Subject != nil {
			told++
		}
	}
	if told != 4 {
		t.Errorf("%d forgeries are on record, want 4", told)
	}
}

// Attack: a forged token is exchanged before anybody has asked about it.
func TestForgedTokenBuysNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	alarms := d.remember(d.clock.now().Add(-time.Hour))
	real := d.mint(d.checkout(), "orders")
	forged := d.forge(real, func(c map[string]any) { c["sub"] = "spiffe://prod.example/cluster/root" })
	d.wantRefusal("a forged token", d.exchange(te(forged, "audience", "billing")), 400, "invalid_request")
	if alarms.Load() != 1 {
		t.Errorf("%d alarms, want one", alarms.Load())
	}
	d.issued(d.exchange(te(real.token, "audience", "billing")))
}

// What the index does not reach back to is not called forged: its signature is good. Attack: a thief dates tokens so far back.
// The operator is told that nothing can be said, each time.
func TestTokenFromBeforeTheIndexIsGenuineAndCounted(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller := d.gateway()
	early := d.mint(d.checkout(), "orders")
	var alarms, unsure atomic.Int64
	d.exchanger.Remember(sts.Alone{Index: index.NewIndex(d.clock.now().Add(time.Second))}, func(federation.Token) { alarms.Add(1) }, func() { unsure.Add(1) })
	before := unsure.Load()
	if !d.active(caller, early.token) || alarms.Load() != 0 {
		t.Errorf("a token from before is called forged; %d alarms", alarms.Load())
	}
	if unsure.Load() <= before {
		t.Error("nobody is told of a token of which nothing can be said")
	}
	before = unsure.Load()
	d.issued(d.exchange(te(early.token, "audience", "billing")))
	if unsure.Load() <= before {
		t.Error("nobody is told of an exchange of such a token")
	}
}

// Attack: tokens are dated back to where an index is sure to end. What we mint lives an hour at most, so nothing that claims
// to be older is good.
func TestTokenOfOursThatLivesLongerThanAnyIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.remember(d.clock.now().Add(time.Second)) // knows nothing of what was before
	caller := d.gateway()
	real := d.mint(d.checkout(), "orders")
	for back, good := range map[time.Duration]bool{50 * time.Minute: true, 62 * time.Minute: false, 23 * time.Hour: false} {
		forged := d.forge(real, func(c map[string]any) {
			c["iat"], c["exp"] = d.clock.now().Add(-back).Unix(), d.clock.now().Add(5*time.Minute).Unix()
			delete(c, "nbf")
		})
		if d.active(caller, forged) != good {
			t.Errorf("a token that is dated back by %s is active: %v", back, !good)
		}
	}
}

// Attack: the thief of our key has a forged token revoked, or an operator does, so that it is dead before anybody looks at
// whether it was minted.
func TestForgedTokenThatIsDeadRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	alarms := d.remember(d.clock.now().Add(-time.Hour))
	caller := d.gateway()
	_, ask := d.adminListener("uid=0", append(d.exchanger.RevocationRoutes(d.recorder.scan), d.exchanger.ReachRoute())...)
	stolen := func(token string) {
		if a := ask("POST", "/admin/v1/revocations", `{"selector":["token=`+fingerprint(t, token)+`"],"reason":"stolen"}`); a.status != 200 {
			t.Fatalf("revoking it: %d %s", a.status, a.body)
		}
	}
	real, n := d.mint(d.checkout(), "orders"), 0
	forge := func() string {
		return d.forge(real, func(c map[string]any) { // with the id of a good one
			n++
			c["sub"] = "spiffe://prod.example/cluster/checkout/other"
			c["exp"] = d.clock.now().Add(5*time.Minute + time.Duration(n)*time.Second).Unix()
		})
	}
	for name, tc := range map[string]struct{ kill, show func(token string) }{
		"its holder revokes it":        {func(s string) { d.revoke(s) }, func(string) {}},
		"revoked, then introspected":   {stolen, func(s string) { d.active(caller, s) }},
		"revoked, then exchanged":      {stolen, func(s string) { d.exchange(te(s, "audience", "billing")) }},
		"revoked, then revoked again":  {stolen, func(s string) { d.revoke(s) }},
		"an operator asks what it can": {func(string) {}, func(s string) { ask("POST", "/admin/v1/reach", `{"token":"`+s+`"}`) }},
	} {
		before, forged := alarms.Load(), forge()
		tc.kill(forged)
		tc.show(forged)
		if alarms.Load() != before+1 {
			t.Errorf("%s: %d alarms, want one", name, alarms.Load()-before)
		}
		if d.active(caller, forged) || alarms.Load() != before+1 {
			t.Errorf("%s: it is active, or told of twice", name)
		}
	}
	if !d.active(caller, real.token) {
		t.Error("the token whose id they took was revoked by them")
	}
}

// late is what several replicas have: of what others minted nobody can say until they have told.
type late struct {
	*index.Index
	told atomic.Bool
}

func (l *late) Look(t index.Token, issued time.Time) (was, known bool) {
	was = l.Has(t, issued)
	return was, was
}

func (l *late) Ask(_ context.Context, t index.Token, issued time.Time) (index.Fate, error) {
	switch {
	case l.Has(t, issued):
		return index.Genuine, nil
	case l.told.Load():
		return index.Missing, nil
	}
	return index.Undecided, nil
}

// Attack: with several replicas a forged token is exchanged, and introspected, the moment after it was made, before anybody can
// say that nobody minted it. What it bought dies when that can be said, although nobody presents it again.
func TestForgedTokenThatWasQuickLosesWhatItBought(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	var alarms, unsure atomic.Int64
	others := &late{Index: index.NewIndex(d.clock.now().Add(-time.Hour))}
	d.exchanger.Remember(others, func(federation.Token) { alarms.Add(1) }, func() { unsure.Add(1) })
	caller := d.gateway()
	real := d.mint(d.checkout(), "orders")
	forge := func() string {
		return d.forge(real, func(c map[string]any) { c["sub"] = "spiffe://prod.example/cluster/checkout/other"; c["jti"] = newID() })
	}
	exchanged, asked := forge(), forge()
	bought := d.issued(d.exchange(te(exchanged, "audience", "orders"))).token
	if !d.active(caller, asked) || !d.active(caller, bought) {
		t.Fatal("they are dead at once, and the test shows nothing")
	}
	others.told.Store(true)
	for end := time.Now().Add(20 * time.Second); d.active(caller, bought) || alarms.Load() < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("what it bought is active: %v; %d alarms, want one for each", d.active(caller, bought), alarms.Load())
		}
	}
	if !d.active(caller, real.token) || unsure.Load() != 0 {
		t.Errorf("the token whose names they took is dead, or %d were not looked for", unsure.Load())
	}
}

// Attack: the thief is quicker than replicas tell, buys something, and has the forged token revoked, so that it is dead when it
// can be said that nobody minted it. The alarm is raised all the same.
func TestForgedTokenThatWasQuickAndRevokedRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	var alarms atomic.Int64
	others := &late{Index: index.NewIndex(d.clock.now().Add(-time.Hour))}
	d.exchanger.Remember(others, func(federation.Token) { alarms.Add(1) }, func() {})
	caller := d.gateway()
	real := d.mint(d.checkout(), "orders")
	forged := d.forge(real, func(c map[string]any) { c["sub"] = "spiffe://prod.example/cluster/checkout/other"; c["jti"] = newID() })
	bought := d.issued(d.exchange(te(forged, "audience", "orders"))).token
	d.revoke(forged)
	others.told.Store(true)
	for end := time.Now().Add(20 * time.Second); alarms.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no alarm")
		}
	}
	if d.active(caller, bought) || d.active(caller, forged) || alarms.Load() != 1 {
		t.Errorf("alive after the alarm, or %d alarms", alarms.Load())
	}
}

// slow is what several replicas have while their store hangs.
type slow struct {
	*late
	asked func()
}

func (s *slow) Ask(ctx context.Context, _ index.Token, _ time.Time) (index.Fate, error) {
	s.asked()
	<-ctx.Done()
	return index.Undecided, ctx.Err()
}

// The store hangs, and a replica grows stale while it asks who minted a token: it does not call the token alive after that, and it
// does not wait long.
func TestReplicaThatGrowsStaleWhileItAsksCallsNothingAlive(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	store := new(others)
	d.revocations.Share(store)
	caller, m := d.gateway(), d.mint(d.checkout(), "orders")
	d.exchanger.Remember(&slow{&late{Index: index.NewIndex(d.clock.now().Add(-time.Hour))}, func() { store.gone.Store(true) }}, func(federation.Token) {}, func() {})
	start := time.Now()
	if a := d.ask(caller, m.token); a.status != 503 {
		t.Errorf("a replica that grew stale answers %d %s", a.status, a.body)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}
