package sts_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

const fruitType = brokers.TypePrefix + "fruit"

// orchard is an upstream: what is alive there, by name, with its secret.
type orchard struct {
	mu     sync.Mutex
	alive  map[string]string
	down   bool
	err    error                 // of the next mints
	during func(o brokers.Order) // called while one is made
	dies   time.Time             // not zero: nothing can be killed, and dies then
	stays  string                // not "": nothing can be killed, nor dies
}

func (u *orchard) Mint(_ context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.down:
		return brokers.Credential{}, brokers.ErrUnavailable
	case u.err != nil:
		if errors.Is(u.err, brokers.ErrUncertain) {
			u.alive[o.Name()] = "lost"
		}
		return brokers.Credential{}, u.err
	}
	if u.during != nil {
		u.mu.Unlock()
		u.during(o)
		u.mu.Lock()
	}
	password := newID()
	u.alive[o.Name()] = password
	v, err := brokers.Object(struct {
		Type     string `json:"type"`
		User     string `json:"user"`
		Password string `json:"password"`
	}{"fruit", o.Name(), password})
	return brokers.Credential{
		Type: fruitType, TokenType: brokers.NotApplicable, Value: v, Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(),
		Expires: o.Grant().Expires().Truncate(time.Second), Data: secret.New("data-" + password), Stays: u.stays,
	}, err
}

func (u *orchard) Forms() []string { return []string{fruitType} }

func (u *orchard) Revoke(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down {
		return brokers.Receipt{}, brokers.ErrUnavailable
	}
	if !u.dies.IsZero() {
		return brokers.Receipt{State: brokers.DiesAt, At: u.dies, Reason: "fruit cannot be picked twice"}, nil
	}
	if u.stays != "" {
		return brokers.Receipt{State: brokers.Stays, Reason: u.stays}, nil
	}
	_, there := u.alive[h.Name]
	delete(u.alive, h.Name)
	return brokers.Receipt{State: brokers.Dead, At: time.Now(), Gone: !there}, nil
}

func (u *orchard) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.alive)
}

func (u *orchard) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

// outside is a deployment with a target whose credentials live outside.
type outside struct {
	*deployment
	orchard    *orchard
	keeper     *lease.Keeper
	store      *embedded.Leases
	ledgerDown atomic.Bool // nobody can walk over it
}

// ledger is a store of leases that can be down.
type ledger struct {
	*embedded.Leases
	down *atomic.Bool
}

func (l ledger) Each(ctx context.Context, do func(lease.Lease) error) error {
	if l.down.Load() {
		return lease.ErrUnavailable
	}
	return l.Leases.Each(ctx, do)
}

func deployOutside(t *testing.T, limits lease.Limits, changes ...func(*world)) *outside {
	t.Helper()
	u := &orchard{alive: map[string]string{}}
	d := &outside{orchard: u}
	d.deployment = deploy(t, append([]func(*world){func(w *world) {
		w.policy.Targets = append(w.policy.Targets, policy.Target{Name: "fruit", Scopes: []string{"pick"}})
		w.policy.Rules = append(w.policy.Rules,
			allow("checkout-fruit", "prod.example", "cluster", "checkout", "fruit", 10*time.Minute, "pick"),
			onward("orders-fruit", "orders", "fruit", "pick"))
		w.brokers["fruit"] = u
	}}, changes...)...)
	db, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if d.store, err = db.Leases(); err != nil {
		t.Fatal(err)
	}
	seal, err := lease.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	d.keeper, err = lease.NewKeeper(lease.Config{
		Store: ledger{d.store, &d.ledgerDown}, Seal: seal, Brokers: d.exchanger.Revoker, Limits: limits, Now: d.clock.now, Log: zerolog.New(d.logs),
		Dead: func(l lease.Lease) (string, bool) {
			e, dead := d.revocations.Dead(sts.FactsOf(d.revocations.Hasher(), l))
			return e.Decision, dead
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.exchanger.Keep(d.keeper)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.keeper.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; d.store.Close(); _ = db.Close() })
	return d
}

func (d *outside) leases() int {
	d.t.Helper()
	counts, err := d.store.Counts(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return counts["fruit"]
}

// nothing waits until nothing lives outside, and no lease is left.
func (d *outside) nothing() {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); d.orchard.count() > 0 || d.leases() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("%d credentials live outside and there are %d leases", d.orchard.count(), d.leases())
		}
	}
}

// pick exchanges for a credential that lives outside.
func (d *outside) pick(subject string) (token string, a answer) {
	d.t.Helper()
	a = d.exchange(te(subject, "audience", "fruit"))
	if a.status != http.StatusOK {
		d.t.Fatalf("exchange answered %d %s; recorded: %+v", a.status, a.body, d.recorder.of(a.decision()))
	}
	body := object(d.t, a.body)
	token, _ = body["access_token"].(string)
	if body["issued_token_type"] != fruitType || body["token_type"] != "N_A" || !strings.HasPrefix(token, `{"type":"fruit",`) {
		d.t.Errorf("the answer is %v", body)
	}
	d.keepSecret(object(d.t, token)["password"].(string))
	return token, a
}

func TestCredentialThatLivesOutsideIsALeaseUntilItIsRevoked(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	token, a := d.pick(d.checkout())
	if d.orchard.count() != 1 || d.leases() != 1 {
		t.Fatalf("%d credentials and %d leases, want one of each", d.orchard.count(), d.leases())
	}
	rec := d.recorder.of(a.decision())[0]
	if rec.Lease == nil || rec.Lease.Kind != fruitType || rec.Lease.Fingerprint != lease.Fingerprint(secret.New(token)) || rec.Lease.Audience != "fruit" {
		t.Errorf("recorded lease %+v", rec.Lease)
	}
	for what, other := range map[string]string{"a shorter one": token[:len(token)-1], "another": `{"type":"fruit"}`, "a longer one": token + "x"} {
		d.killed(other) // RFC 7009 section 2.2: no token of ours
		if d.orchard.count() != 1 {
			t.Fatalf("%s than the credential killed it", what)
		}
	}
	killed := d.killed(token)
	if d.orchard.count() != 0 || d.leases() != 0 {
		t.Errorf("after its revocation %d credentials live, and there are %d leases", d.orchard.count(), d.leases())
	}
	if rec := d.recorder.of(killed.decision())[0]; rec.Revocation == nil || len(rec.Revocation.Receipts) != 1 || rec.Revocation.Receipts[0].State != "dead" || rec.Revocation.Receipts[0].Target != "fruit" {
		t.Errorf("recorded %+v, want one receipt that says dead", rec.Revocation)
	}
	d.killed(token)
}

func TestRevokingATokenKillsWhatItBecameOutside(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	parent, other := d.mint(d.checkout(), "orders").token, d.mint(d.checkout(), "orders").token
	for range 3 {
		d.pick(parent)
	}
	d.pick(other)
	d.killed(parent)
	if d.orchard.count() != 1 || d.leases() != 1 {
		t.Errorf("%d live outside with %d leases, want the one of the other token", d.orchard.count(), d.leases())
	}
	d.refused("a dead parent", 400, "invalid_request", func() answer { return d.exchange(te(parent, "audience", "fruit")) })
	d.killed(other)
	d.nothing()
}

// 200 says dead. An upstream that does not answer is 503, and dead as soon as it does.
func TestRevocationThatNobodySawIsNotClaimedOutsideEither(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	token, _ := d.pick(d.checkout())
	d.orchard.set(func() { d.orchard.down = true })
	a := d.revoke(token)
	d.wantRefusal("an upstream that is down", a, 503, "temporarily_unavailable")
	if rec := d.recorder.of(a.decision())[0]; rec.Revocation == nil || len(rec.Revocation.Receipts) != 1 || rec.Revocation.Receipts[0].State != lease.Pending {
		t.Errorf("recorded %+v, want one receipt that says pending", rec.Revocation)
	}
	if _, dead := d.revocations.Dead(revocation.Facts{Lease: a.decision()}); dead {
		t.Error("the decision to revoke is dead itself")
	}
	d.orchard.set(func() { d.orchard.down = false })
	d.clock.advance(time.Minute) // past its rest
	d.nothing()
	d.killed(token)
}

func TestWhatCannotBeKilledIsSaidSo(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	token, _ := d.pick(d.checkout())
	d.orchard.set(func() { d.orchard.dies = d.clock.now().Add(5 * time.Minute) })
	a := d.revoke(token)
	d.wantRefusal("a credential that nobody can kill", a, 400, "unsupported_token_type")
	if rec := d.recorder.of(a.decision())[0]; rec.Revocation == nil || rec.Revocation.Receipts[0].State != "dies" || rec.Revocation.Receipts[0].At.IsZero() {
		t.Errorf("recorded %+v, want one receipt that says when it dies", rec.Revocation)
	}
}

// What works until somebody changes it has no end that anybody could be told of: not its holder, not an operator.
func TestWhatStaysIsSaidSoToHolderOperatorAndRecord(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	const why = "fruit keeps until somebody eats it"
	d.orchard.set(func() { d.orchard.stays = why })
	token, minted := d.pick(d.checkout())
	_, ask := d.adminListener("uid=0", append(d.exchanger.RevocationRoutes(d.recorder.scan), sts.LeasesRoute(d.keeper.Store.Each, d.revocations.Hasher()))...)
	listed := func() map[string]any {
		a := ask("GET", "/admin/v1/leases?lease="+minted.decision())
		leases, _ := object(t, a.body)["leases"].([]any)
		if len(leases) != 1 {
			t.Fatalf("listing it answers %d %s", a.status, a.body)
		}
		return leases[0].(map[string]any)
	}
	if l := listed(); l["state"] != "live" || l["stays"] != why {
		t.Errorf("while it lives, it is listed as %v", l)
	}
	dry := object(t, ask("POST", "/admin/v1/revocations", `{"selector":["lease=`+minted.decision()+`"],"dry_run":true}`).body)
	if would, _ := dry["receipts"].([]any); len(would) != 1 || would[0].(map[string]any)["reason"] != why {
		t.Errorf("of what would die, an operator is told %v", dry)
	}
	a := d.revoke(token)
	d.wantRefusal("a credential that stays", a, 400, "unsupported_token_type")
	rec := d.recorder.of(a.decision())[0]
	if rec.Revocation == nil || rec.Revocation.Receipts[0].State != "stays" || !rec.Revocation.Receipts[0].At.IsZero() || rec.Revocation.Receipts[0].Reason != why {
		t.Errorf("recorded %+v, want one receipt that says that it stays, without a time", rec.Revocation)
	}
	if !strings.Contains(rec.Reason, "does not end: "+why) {
		t.Errorf("it is refused because %q", rec.Reason)
	}
	if l := listed(); l["state"] != "dying" || l["dies"] != "stays: "+why {
		t.Errorf("when it was revoked, it is listed as %v", l)
	}
	b := ask("POST", "/admin/v1/revocations", `{"selector":["lease=`+minted.decision()+`"]}`)
	told := object(t, b.body)
	receipt, _ := told["receipts"].([]any)[0].(map[string]any)
	seen := 0
	if _, at := receipt["at"]; b.status != 200 || told["counts"].(map[string]any)["stays"] != 1.0 || receipt["state"] != "stays" || receipt["reason"] != why || at {
		t.Errorf("an operator is told %d %s", b.status, b.body)
	}
	for _, id := range []string{a.decision(), told["id"].(string)} { // whichever the lease dies of
		later := object(t, ask("GET", "/admin/v1/revocations/"+id+"?position="+told["position"].(string)).body)
		receipts, _ := later["receipts"].([]any)
		for _, r := range receipts {
			seen++
			if r := r.(map[string]any); r["state"] != "stays" || r["reason"] != why || r["at"] != nil {
				t.Errorf("an operator who asks later is told %v", r)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%d receipts say later what became of it, want one", seen)
	}
}

func TestMintThatFailsLeavesNothingOutside(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{brokers.ErrUnavailable, 503, "temporarily_unavailable"},
		{brokers.ErrUncertain, 503, "temporarily_unavailable"},
		{brokers.ErrMisconfigured, 500, "server_error"},
		{brokers.ErrTooShort, 400, "invalid_request"},
		{brokers.ErrScopes, 400, "invalid_scope"},
		{brokers.ErrInput, 400, "invalid_request"},
		{errors.New("anything else"), 500, "server_error"},
	} {
		d.orchard.set(func() { d.orchard.err = tc.err })
		d.wantRefusal(tc.err.Error(), d.exchange(te(d.checkout(), "audience", "fruit")), tc.status, tc.code)
		if !errors.Is(tc.err, brokers.ErrUncertain) && d.orchard.count() > 0 {
			t.Errorf("%v: something lives outside", tc.err)
		}
	}
	d.clock.advance(time.Minute) // what was uncertain has settled
	d.nothing()
}

// No record, no token; and what was minted for nothing is taken back.
func TestCredentialThatCannotBeRecordedIsKilled(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	d.recorder.failing(audit.ErrUnavailable)
	d.wantRefusal("a log that is down", d.exchange(te(d.checkout(), "audience", "fruit")), 503, "temporarily_unavailable")
	d.nothing()
}

func TestCredentialIsKilledWhenItsParentIsRevokedDuringTheMint(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	parent := d.mint(d.checkout(), "orders").token
	d.orchard.set(func() {
		d.orchard.during = func(brokers.Order) {
			d.orchard.set(func() { d.orchard.during = nil })
			if a := d.revoke(parent); a.status != 503 { // it waits for a mint that waits for it
				t.Errorf("revoking during a mint that does not end answered %d, want 503: it has not seen dead what may come to be", a.status)
			}
		}
	})
	a := d.exchange(te(parent, "audience", "fruit"))
	d.wantRefusal("a parent that died meanwhile", a, 400, "invalid_request")
	if rec := d.recorder.of(a.decision())[0]; rec.Outcome != audit.Withdrawn || rec.Lease == nil {
		t.Errorf("recorded %s with lease %v, want withdrawn, with it", rec.Outcome, rec.Lease)
	}
	d.clock.advance(time.Minute)
	if a := d.revoke(parent); a.status != 200 {
		t.Errorf("revoking once more answered %d, want 200", a.status)
	}
	d.nothing()
}

func TestLeasesAreLimitedBeforeTheyAreMinted(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{Workload: 2})
	first, _ := d.pick(d.checkout())
	d.pick(d.checkout())
	mints := d.mints.Load()
	a := d.exchange(te(d.checkout(), "audience", "fruit"))
	if a.status != 429 || a.header.Get("Retry-After") == "" || d.mints.Load() != mints {
		t.Errorf("a third lease of a workload that may have two answered %d, minted %d", a.status, d.mints.Load()-mints)
	}
	if rec := d.recorder.of(a.decision())[0]; !strings.Contains(rec.Reason, "which is its limit") {
		t.Errorf("the reason says %q", rec.Reason)
	}
	d.killed(first)
	d.pick(d.checkout())
}

func TestFormOfACredentialIsOneThatTheTargetHas(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	if a := d.exchange(te(d.checkout(), "audience", "fruit", "requested_token_type", fruitType)); a.status != 200 {
		t.Errorf("its own form is answered with %d", a.status)
	}
	for target, form := range map[string]string{"fruit": "urn:ietf:params:oauth:token-type:jwt", "orders": fruitType} {
		d.refused(form+" from "+target, 400, "invalid_request", func() answer {
			return d.exchange(te(d.checkout(), "audience", target, "requested_token_type", form))
		})
	}
	// What a target has is told to nobody who may not have it.
	d.refused("a form of a target that is denied", 400, "invalid_target", func() answer {
		return d.exchange(te(d.checkout(), "audience", "vault", "requested_token_type", fruitType))
	})
}

func TestExpiredCredentialIsKilledOutside(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	d.pick(d.checkout())
	d.clock.advance(10*time.Minute + time.Second)
	d.nothing()
}

func object(t testing.TB, s string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		t.Fatalf("not an object: %v", err)
	}
	return out
}

func TestOperatorListsLeasesAndKillsByTheirIDs(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	_, ask := d.adminListener("uid=0 pid=1", append(d.exchanger.RevocationRoutes(d.recorder.scan), sts.LeasesRoute(d.keeper.Store.Each, d.revocations.Hasher()))...)
	parent := d.mint(d.checkout(), "orders")
	var ids []string
	for range 3 {
		_, a := d.pick(parent.token)
		ids = append(ids, a.decision())
	}
	list := func(query string) []any {
		a := ask("GET", "/admin/v1/leases"+query)
		if a.status != 200 {
			t.Fatalf("listing %s: %d %s", query, a.status, a.body)
		}
		leases, _ := object(t, a.body)["leases"].([]any)
		return leases
	}
	for query, want := range map[string]int{
		"": 3, "?target=fruit": 3, "?target=orders": 0, "?lease=" + ids[1]: 1, "?family=" + parent.decision: 3, "?state=live": 3, "?state=dying": 0, "?limit=2": 2,
		"?rule=orders-fruit&subject=spiffe://prod.example/cluster/checkout/api": 3,
	} {
		if got := list(query); len(got) != want {
			t.Errorf("%s lists %d leases, want %d", query, len(got), want)
		}
	}
	slices.Sort(ids)
	if page := list("?limit=2&after=" + ids[1]); len(page) != 1 || page[0].(map[string]any)["id"] != ids[2] {
		t.Errorf("the second page is %v, want %s", page, ids[2])
	}
	a := ask("POST", "/admin/v1/revocations", `{"selector":["lease=`+parent.decision+`"],"reason":"a drill"}`)
	if counts, _ := object(t, a.body)["counts"].(map[string]any); a.status != 200 || counts["dead"] != 3.0 {
		t.Errorf("killing the parent answered %d %s, want 3 dead", a.status, a.body)
	}
	d.nothing()
	rec := d.recorder.of(a.decision())[0]
	if rec.Revocation == nil || rec.Revocation.By != "uid=0 pid=1" || rec.Reason != "a drill" || len(rec.Revocation.Receipts) != 3 {
		t.Errorf("recorded %+v, reason %q", rec.Revocation, rec.Reason)
	}
	d.refused("the parent", 400, "invalid_request", func() answer { return d.exchange(te(parent.token, "audience", "fruit")) })
}
