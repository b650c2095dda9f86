package lease_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// upstream is a server that holds credentials, and the broker that makes them there.
type upstream struct {
	mu    sync.Mutex
	alive map[string]bool             // by name
	told  map[string][]brokers.Handle // to be revoked, by name

	// What happens next; nil for what should.
	onMint   func(ctx context.Context, o brokers.Order, make func()) (brokers.Credential, error)
	onRevoke func(ctx context.Context, h brokers.Handle) (brokers.Receipt, error)
}

func newUpstream() *upstream {
	return &upstream{alive: map[string]bool{}, told: map[string][]brokers.Handle{}}
}

func (u *upstream) set(name string, alive bool) (was bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was = u.alive[name]
	delete(u.alive, name)
	if alive {
		u.alive[name] = true
	}
	return was
}

func (u *upstream) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.alive))
}

func (u *upstream) tries(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.told[name])
}

// credential is what the upstream makes of an order.
func credential(o brokers.Order) brokers.Credential {
	return brokers.Credential{
		Type: brokers.TypePrefix + "fake", TokenType: brokers.NotApplicable, Value: secret.New("password of " + o.Name()),
		Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(), Expires: o.Grant().Expires(), Data: secret.New("data of " + o.Name()),
	}
}

// Mint implements [brokers.Broker].
func (u *upstream) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	make := func() { u.set(o.Name(), true) }
	u.mu.Lock()
	next := u.onMint
	u.mu.Unlock()
	if next != nil {
		return next(ctx, o, make)
	}
	make()
	return credential(o), nil
}

// Revoke implements [brokers.Revoker].
func (u *upstream) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	u.mu.Lock()
	u.told[h.Name] = append(u.told[h.Name], h)
	next := u.onRevoke
	u.mu.Unlock()
	if next != nil {
		return next(ctx, h)
	}
	return u.kill(h), nil
}

func (u *upstream) kill(h brokers.Handle) brokers.Receipt {
	return brokers.Receipt{State: brokers.Dead, At: time.Now(), Gone: !u.set(h.Name, false)}
}

// List implements [brokers.Lister]; it lists strangers as well.
func (u *upstream) List(context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) {
		for _, name := range u.names() {
			expires, _ := brokers.ParseName(name)
			if !yield(brokers.Handle{Name: name, Expires: expires}, nil) {
				return
			}
		}
	}
}

var _ brokers.Lister = (*upstream)(nil)

// ending is what was told of a lease's end.
type ending struct {
	lease   lease.Lease
	receipt brokers.Receipt
}

// world is a ledger, its targets, and the keeper of the process that runs now.
type world struct {
	t       *testing.T
	ledger  *memory
	targets map[string]*upstream
	brokers map[string]brokers.Revoker // in the place of targets
	keeper  *lease.Keeper
	limits  lease.Limits
	root    []byte // what handles are sealed with

	mu      sync.Mutex
	revoked map[string]bool
	ended   []ending
	orders  map[string]brokers.Order // the newest of each target
}

const aTarget = "orders-db"

func newWorld(t *testing.T, targets ...string) *world {
	t.Helper()
	w := &world{t: t, root: []byte("0123456789abcdef0123456789abcdef"), ledger: &memory{all: map[string]lease.Lease{}}, targets: map[string]*upstream{}, revoked: map[string]bool{}, orders: map[string]brokers.Order{}}
	for _, name := range append(targets, aTarget) {
		w.targets[name] = newUpstream()
	}
	w.start()
	return w
}

// start replaces the process: a keeper that remembers nothing, over the same ledger.
func (w *world) start() {
	w.t.Helper()
	seal, err := lease.NewSealer(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	w.keeper, err = lease.NewKeeper(lease.Config{
		Store: w.ledger, Seal: seal, Now: time.Now, Log: zerolog.Nop(), Limits: w.limits,
		Brokers: func(target string) (brokers.Revoker, bool) {
			if b, ok := w.brokers[target]; ok {
				return b, true
			}
			u, ok := w.targets[target]
			return u, ok
		},
		Dead: func(l lease.Lease) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			all := append(slices.Clone(l.Ancestors), l.ID)
			i := slices.IndexFunc(all, func(id string) bool { return w.revoked[id] })
			if i < 0 || all[i] == "unknown" {
				return "", i >= 0
			}
			return "revocation of " + all[i], true
		},
		Ended: func(l lease.Lease, r brokers.Receipt) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, ending{l, r})
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs the keeper for a while, and then replaces it: a keeper runs once.
func (w *world) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	w.keeper.Run(ctx)
	w.start()
}

func (w *world) up() *upstream { return w.targets[aTarget] }

func (w *world) order(id string, ancestors ...string) brokers.Order {
	return w.orderAt(aTarget, id, ancestors...)
}

func (w *world) orderAt(target, id string, ancestors ...string) brokers.Order {
	w.t.Helper()
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.orders[target]; !ok || !old.IssuedAt().Equal(now) { // deciding takes a while
		w.orders[target] = brokertest.NewOrder(w.t, now, brokertest.Spec{
			Target: policy.Target{Name: target, Scopes: []string{"read"}, MaxLifetime: time.Hour},
			Scopes: []string{"read"}, Lifetime: 10 * time.Minute,
		})
	}
	o, err := brokers.NewOrder(w.orders[target].Grant(), brokers.Lease{ID: id, Family: "family", Ancestors: ancestors}, now)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// shorter is an order whose grant lives for so long.
func (w *world) shorter(id string, life time.Duration) brokers.Order {
	w.t.Helper()
	now := time.Now()
	g := brokertest.NewOrder(w.t, now, brokertest.Spec{Target: policy.Target{Name: aTarget, Scopes: []string{"read"}, MaxLifetime: time.Hour}, Scopes: []string{"read"}, Lifetime: life}).Grant()
	o, err := brokers.NewOrder(g, brokers.Lease{ID: id, Family: "family"}, now)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) mint(o brokers.Order) (brokers.Credential, error) {
	return w.keeper.Mint(w.t.Context(), w.targets[o.Grant().Target()], o, "")
}

func (w *world) mustMint(o brokers.Order) brokers.Credential {
	w.t.Helper()
	c, err := w.mint(o)
	if err != nil {
		w.t.Fatalf("minting %s: %v", o.Lease().ID, err)
	}
	return c
}

func (w *world) lease(id string) (lease.Lease, bool) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	l, ok := w.ledger.all[id]
	return l, ok
}

func (w *world) endings() []ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended)
}

// nothing fails the test when anything is alive, or in the ledger.
func (w *world) nothing(when string) {
	w.t.Helper()
	for target, u := range w.targets {
		if names := u.names(); len(names) > 0 {
			w.t.Errorf("%s: %v live at %s", when, names, target)
		}
	}
	if counts, _ := w.ledger.Counts(w.t.Context()); len(counts) > 0 {
		w.t.Errorf("%s: the ledger has %v", when, counts)
	}
}

var errDown = fmt.Errorf("%w: connection refused", brokers.ErrUnavailable)

// down makes a target fail without making anything, until it is made to work.
func (u *upstream) down() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onMint = func(context.Context, brokers.Order, func()) (brokers.Credential, error) {
		return brokers.Credential{}, errDown
	}
	u.onRevoke = func(context.Context, brokers.Handle) (brokers.Receipt, error) { return brokers.Receipt{}, errDown }
}

func (u *upstream) works() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onMint, u.onRevoke = nil, nil
}

var errInjected = errors.New("injected")
