package lease_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// deed is one thing that happens in a drawn story.
type deed struct {
	what   string
	target string
	root   string
	how    string
	wait   time.Duration
	steps  int
}

func (d deed) String() string {
	return fmt.Sprintf("%s %s %s %s %s %d", d.what, d.target, d.root, d.how, d.wait, d.steps)
}

func drawDeed(t *rapid.T) deed {
	return deed{
		what:   rapid.SampledFrom([]string{"mint", "mint", "mint", "mint aside", "kill", "kill aside", "withdraw", "wait", "down", "up", "ledger fails", "ledger works", "fuse", "crash"}).Draw(t, "what"),
		target: rapid.SampledFrom([]string{aTarget, "other"}).Draw(t, "target"),
		root:   rapid.SampledFrom([]string{"root1", "root2"}).Draw(t, "root"),
		how:    rapid.SampledFrom([]string{"well", "well", "made nothing", "uncertain, made", "uncertain, not made", "made later", "panics", "slowly"}).Draw(t, "how"),
		wait:   time.Duration(rapid.SampledFrom([]int{1, 5, 16, 61, 700}).Draw(t, "seconds")) * time.Second,
		steps:  rapid.IntRange(0, 12).Draw(t, "steps"),
	}
}

// life is one process: what it does goes through its own fuse, so that what it began does not go on when it is dead.
type life struct {
	fuse
	world  *drawn
	keeper *lease.Keeper
	stop   context.CancelFunc
	ended  chan struct{}
}

// drawn is the world of a drawn story.
type drawn struct {
	*world
	life *life

	mu     sync.Mutex
	down   map[string]bool
	faults int               // of the ledger, that are yet to come
	how    map[string]string // how a mint goes, by lease
}

// step burns the fuse, and has the ledger fail.
func (p *life) step(what string) error {
	_ = p.fuse.step(what)
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	if strings.HasSuffix(what, "of the ledger") && p.world.faults > 0 {
		p.world.faults--
		return fmt.Errorf("%w: %w", lease.ErrUnavailable, errInjected)
	}
	return nil
}

// ledgerOf is the ledger as a process reaches it.
type ledgerOf struct {
	*memory
	life *life
}

func (v ledgerOf) Open(ctx context.Context, l lease.Lease, max lease.Limits) error {
	if err := v.life.step("before open of the ledger"); err != nil {
		return err
	}
	if err := v.memory.Open(ctx, l, max); err != nil {
		return err
	}
	return v.life.step("after open of the ledger")
}

func (v ledgerOf) Update(ctx context.Context, ids []string, change func(*lease.Lease) lease.Verdict) ([]lease.Lease, error) {
	if err := v.life.step("before update of the ledger"); err != nil {
		return nil, err
	}
	out, _ := v.memory.Update(ctx, ids, change)
	if err := v.life.step("after update of the ledger"); err != nil {
		return nil, err
	}
	return out, nil
}

// brokerOf is a target's broker in a process.
type brokerOf struct {
	*upstream
	name string
	life *life
}

func (b brokerOf) fails() bool {
	b.life.world.mu.Lock()
	defer b.life.world.mu.Unlock()
	return b.life.world.down[b.name]
}

func (b brokerOf) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	_ = b.life.step("before mint")
	if b.fails() {
		return brokers.Credential{}, errDown
	}
	b.life.world.mu.Lock()
	how := b.life.world.how[o.Lease().ID]
	b.life.world.mu.Unlock()
	make := func() { b.set(o.Name(), true) }
	uncertain := func() (brokers.Credential, error) {
		_ = b.life.step("after an uncertain mint")
		return brokers.Credential{}, brokers.ErrUncertain
	}
	switch how {
	case "made nothing":
		return brokers.Credential{}, brokers.ErrMisconfigured
	case "uncertain, made":
		make()
		return uncertain()
	case "uncertain, not made":
		return uncertain()
	case "made later": // the upstream goes on with what it was sent, whatever becomes of us
		go func() { time.Sleep(12 * time.Second); make() }()
		return uncertain()
	case "panics":
		make()
		panic("a fault")
	case "slowly":
		time.Sleep(3 * time.Second)
	}
	if err := o.Note(ctx, secret.New("note")); err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, err) // nothing was made
	}
	_ = b.life.step("before it is made")
	make()
	_ = b.life.step("after it is made")
	return credential(o), nil
}

func (b brokerOf) Revoke(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
	_ = b.life.step("before revoke")
	if b.fails() {
		return brokers.Receipt{}, errDown
	}
	r := b.kill(h)
	_ = b.life.step("after revoke")
	return r, nil
}

// begin starts a process that takes over.
func (w *drawn) begin() {
	p := &life{fuse: fuse{left: -1}, world: w, ended: make(chan struct{})}
	w.life = p
	seal, err := lease.NewSealer(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	p.keeper, err = lease.NewKeeper(lease.Config{
		Store: ledgerOf{w.ledger, p}, Seal: seal, Now: time.Now,
		Brokers: func(target string) (brokers.Revoker, bool) {
			u, ok := w.targets[target]
			return brokerOf{u, target, p}, ok
		},
		Dead: func(l lease.Lease) (string, bool) {
			w.world.mu.Lock()
			defer w.world.mu.Unlock()
			for _, a := range append(slices.Clone(l.Ancestors), l.ID) {
				if w.revoked[a] {
					return "", true
				}
			}
			return "", false
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_ = p.keeper.Adopt(w.t.Context()) // when the ledger fails, what was left is due in its own time
	ctx, cancel := context.WithCancel(w.t.Context())
	p.stop = cancel
	go func() { defer close(p.ended); p.keeper.Run(ctx) }()
}

// crash ends the process at its next step, and begins another.
func (w *drawn) crash() {
	old := w.life
	old.set(0)
	old.stop()
	go func() { <-old.ended }()
	w.begin()
}

// known returns what lives upstream and is in no lease.
func (w *drawn) unknown() (out []string) {
	synctest.Wait()
	names := map[string]bool{}
	for _, l := range w.ledger.some(func(lease.Lease) bool { return true }) {
		names[l.Name] = true
	}
	for target, u := range w.targets {
		for _, name := range u.names() {
			if !names[name] {
				out = append(out, target+"/"+name)
			}
		}
	}
	return out
}

// do does a deed of a story.
func (w *drawn) do(n int, d deed) {
	p, id := w.life, fmt.Sprint("lease", n)
	mint := func() {
		o := w.orderAt(d.target, id, d.root)
		w.mu.Lock()
		w.how[id] = d.how
		w.mu.Unlock()
		_, _ = p.keeper.Mint(w.t.Context(), brokerOf{w.targets[d.target], d.target, p}, o, "")
	}
	kill := func() {
		w.world.mu.Lock()
		w.revoked[d.root] = true
		w.world.mu.Unlock()
		_, _ = p.keeper.Kill(w.t.Context(), d.root, "incident")
	}
	aside := func(do func()) { // it may not return
		done := make(chan struct{})
		go func() { defer close(done); do() }()
		if !strings.HasSuffix(d.what, "aside") {
			<-done
		}
	}
	switch d.what {
	case "mint", "mint aside":
		aside(mint)
	case "kill", "kill aside":
		aside(kill)
	case "withdraw":
		aside(func() { p.keeper.Withdraw(w.t.Context(), fmt.Sprint("lease", n-1)) })
	case "wait":
		time.Sleep(d.wait)
	case "fuse":
		p.set(d.steps)
	case "crash":
		w.crash()
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		switch d.what {
		case "down", "up":
			w.down[d.target] = d.what == "down"
		case "ledger fails":
			w.faults = d.steps
		case "ledger works":
			w.faults = 0
		}
	}
}

// Whatever happens in whatever order, nothing lives upstream that no lease knows of, and when all is over nothing lives, and
// there is no lease.
func TestNothingEverLivesThatNoLeaseKnows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		story := rapid.SliceOfN(rapid.Custom(drawDeed), 1, 25).Draw(rt, "story")
		var problems []string
		synctest.Test(t, func(t *testing.T) {
			w := &drawn{world: newWorld(t, "other"), down: map[string]bool{}, how: map[string]string{}}
			w.begin()
			for n, d := range story {
				w.do(n, d)
				if out := w.unknown(); len(out) > 0 {
					problems = append(problems, fmt.Sprintf("after deed %d, %s: no lease knows of %v", n, d, out))
				}
			}
			w.mu.Lock()
			w.faults, w.down = 0, map[string]bool{}
			w.mu.Unlock()
			w.crash()
			time.Sleep(20 * time.Minute)
			if out := w.unknown(); len(out) > 0 {
				problems = append(problems, fmt.Sprintf("in the end no lease knows of %v", out))
			}
			for _, l := range w.ledger.some(func(lease.Lease) bool { return true }) {
				problems = append(problems, fmt.Sprintf("in the end there is still %+v", l))
			}
			w.life.stop()
			<-w.life.ended
			runtime.Gosched()
		})
		if len(problems) > 0 {
			rt.Fatalf("%s", strings.Join(problems, "\n"))
		}
	})
}
