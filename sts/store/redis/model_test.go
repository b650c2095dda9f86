package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// This file checks the protocol by which replicas share revocations in every order, in the small: two or three replicas run the
// real code against a real Redis, and stop before every command that they send. At each stop a choice is made: who goes on,
// or what breaks. All choices are tried, depth first, with at most one fault and so many switches between replicas that go on by
// themselves (all interleavings when there is no fault). What is checked in every one of them:
//
//   - A replica that calls itself fresh refuses everything that was acknowledged before it looked.
//   - When all have caught up, everything acknowledged is dead at every replica, also at one that starts with nothing, whatever
//     broke; and all refuse the same.
//   - What was decided before a revocation is dead by it, what is decided after everything is not.
//   - No replica's position goes back within an epoch.

// memoryLog is a journal: what Append has returned of is synced, and outlives its replica.
type memoryLog struct {
	mu   sync.Mutex
	list []revocation.Entry
}

func (l *memoryLog) Append(_ context.Context, e revocation.Entry) (revocation.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
	return revocation.Position{Epoch: 1, N: uint64(len(l.list))}, nil
}

func (l *memoryLog) Load(_ context.Context, each func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	l.mu.Lock()
	list := append([]revocation.Entry(nil), l.list...)
	l.mu.Unlock()
	for i, e := range list {
		if err := each(revocation.Position{Epoch: 1, N: uint64(i + 1)}, e); err != nil {
			return revocation.Position{}, err
		}
	}
	return revocation.Position{Epoch: 1, N: uint64(len(list))}, nil
}

func (l *memoryLog) Prune(context.Context, time.Time) (int, error) { return 0, nil }

// actor is one replica with its journal and its connection. Its commands wait for the scheduler.
type actor struct {
	name    string
	db      *redis.DB
	journal *memoryLog
	set     *revocation.Set
	replica *redis.Replica
	last    revocation.Position
	parked  chan struct{} // it stands before a command, or has ended
	resume  chan verdict
	ended   bool
	cut     bool // the scheduler says nothing more to it: it was killed
}

// verdict is what becomes of the command that an actor stands before.
type verdict int

const (
	goOn verdict = iota
	loseReply
	die
)

var errCut = errors.New("cut by the test")

func (a *actor) wait(send func() error) error {
	if a.cut {
		return errCut
	}
	if a.parked == nil { // nobody schedules: the end of a run
		return send()
	}
	a.parked <- struct{}{}
	switch <-a.resume {
	case loseReply:
		_ = send()
		return errCut
	case die:
		a.cut = true
		return errCut
	default:
		return send()
	}
}

func (a *actor) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (a *actor) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := a.wait(func() error { return next(ctx, cmd) })
		if errors.Is(err, errCut) {
			cmd.SetErr(err)
		}
		return err
	}
}

func (a *actor) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		err := a.wait(func() error { return next(ctx, cmds) })
		if errors.Is(err, errCut) {
			for _, c := range cmds {
				c.SetErr(err)
			}
		}
		return err
	}
}

// model is one run.
type model struct {
	t      *testing.T
	server *redistest.Server
	actors []*actor
	keys   struct{ head, stream, settling string }
	saved  []string              // DUMP of head and stream, from before
	acked  []string              // selectors' subjects
	before []revocation.Position // of decisions that were there before everything
	trace  []string
	failed string
}

const modelStale = time.Hour // time passes when the test says so

func (m *model) open(a *actor) {
	m.t.Helper()
	var err error
	if a.set, err = revocation.New(m.t.Context(), a.journal, mac); err != nil {
		m.t.Fatal(err)
	}
	if a.replica, err = a.db.Replica(a.set, mac, modelStale); err != nil {
		m.t.Fatal(err)
	}
	a.set.Share(a.replica)
	a.cut, a.last = false, revocation.Position{}
}

// look catches up once, and checks what that promises.
func (m *model) look(a *actor) {
	known := len(m.acked)
	fresh, err := a.replica.CatchUp(m.t.Context())
	if err == nil && fresh {
		for _, subject := range m.acked[:known] {
			if !m.dead(a, subject, revocation.Position{}) {
				m.fail("%s calls itself fresh and does not refuse %s, which was acknowledged before it looked", a.name, subject)
			}
		}
	}
	if p := a.set.Position(); a.last.After(p) {
		m.fail("%s went back from %s to %s", a.name, a.last, p)
	} else {
		a.last = p
	}
}

// dead asks a replica about what was decided at a position.
func (m *model) dead(a *actor, subject string, at revocation.Position) bool {
	_, dead := a.set.Dead(revocation.Facts{Parts: []revocation.Part{{At: at, Terms: []revocation.Digest{a.set.Hasher().Term(revocation.KeySubject, subject)}}}})
	return dead
}

// revoke is what a replica does with a revocation: into its journal, into force, to the others, and once it looks whether it may
// say so.
func (m *model) revoke(a *actor, subject string) {
	e := revocation.Entry{Selector: revocation.Selector{revocation.KeySubject + "=" + subject}, Decision: "d-" + subject, At: time.Now(), Until: time.Now().Add(time.Hour)}
	if err := a.set.Learn(m.t.Context(), []revocation.Entry{e}); err != nil { // durable here, and in force
		m.t.Fatal(err)
	}
	a.replica.Queue(e)
	for range 3 { // as Push goes on: it looks again while nobody confirms
		m.look(a)
		if ok, err := a.replica.Acknowledged(m.t.Context(), e.Key()); err == nil && ok {
			m.acked = append(m.acked, subject)
			return
		}
		if a.cut {
			return
		}
	}
}

// agreed is a revocation that everybody has heard of.
func (m *model) agreed(subject string) {
	m.t.Helper()
	e := revocation.Entry{Selector: revocation.Selector{revocation.KeySubject + "=" + subject}, Decision: "d-" + subject, At: time.Now(), Until: time.Now().Add(time.Hour)}
	if err := m.actors[0].set.Learn(m.t.Context(), []revocation.Entry{e}); err != nil {
		m.t.Fatal(err)
	}
	m.actors[0].replica.Queue(e)
	for _, a := range m.actors {
		m.look(a)
	}
	if ok, err := m.actors[0].replica.Acknowledged(m.t.Context(), e.Key()); err != nil || !ok {
		m.t.Fatalf("what all have heard is not acknowledged (%v)", err)
	}
	m.acked = append(m.acked, subject)
	m.trace = nil
}

func (m *model) fail(format string, args ...any) {
	if m.failed == "" { // a program may not end before its time: the run is told of at its end
		m.failed = fmt.Sprintf(format+"\nafter: %v", append(args, m.trace)...)
	}
}

// settle lets the time of a new epoch pass.
func (m *model) settle() { m.server.Client.Del(m.t.Context(), m.keys.settling) }

func (m *model) save() {
	m.saved = nil
	for _, k := range []string{m.keys.head, m.keys.stream} {
		m.saved = append(m.saved, m.server.Client.Dump(m.t.Context(), k).Val())
	}
}

// faults are what can break, once.
var faults = []struct {
	name string
	do   func(m *model) bool // false: it cannot now
}{
	{"Redis loses everything", func(m *model) bool { return m.server.Client.FlushAll(m.t.Context()).Err() == nil }},
	{"Redis loses what came last", func(m *model) bool {
		for i, k := range []string{m.keys.head, m.keys.stream} {
			m.server.Client.Del(m.t.Context(), k)
			if m.saved[i] != "" {
				m.server.Client.RestoreReplace(m.t.Context(), k, 0, m.saved[i])
			}
		}
		m.server.Client.HSet(m.t.Context(), m.keys.head, "run", "another server") // it was restarted, or another one took over
		return true
	}},
	{"time passes", func(m *model) bool { m.settle(); return true }},
}

// schedule is a sequence of choices, and how many there were at each.
type schedule struct{ take, of []int }

// next is the schedule that differs in its last choice that has an alternative left; false when all were tried.
func (s *schedule) next() bool {
	for i := len(s.take) - 1; i >= 0; i-- {
		if s.take[i]+1 < s.of[i] {
			s.take, s.of = append(s.take[:i:i], s.take[i]+1), s.of[:i+1]
			return true
		}
	}
	return false
}

func (s *schedule) choose(depth, of int) int {
	if depth < len(s.take) {
		s.of = append(s.of[:depth:depth], of)
		return s.take[depth]
	}
	s.take, s.of = append(s.take, 0), append(s.of, of)
	return 0
}

// run plays programs against each other by a schedule, with at most one fault and at most switches changes of who goes on while
// who went on could.
func (m *model) run(s *schedule, programs []func(), fault bool, switches int) {
	for _, a := range m.actors {
		a.parked, a.resume, a.ended = make(chan struct{}), make(chan verdict), false
	}
	for i, program := range programs {
		go func() {
			program()
			m.actors[i].ended = true
			m.actors[i].parked <- struct{}{}
		}()
		<-m.actors[i].parked
	}
	current := 0
	for depth := 0; ; depth++ {
		type option struct {
			name string
			do   func()
		}
		var options []option
		grant := func(i int, v verdict) func() {
			return func() {
				a := m.actors[i]
				a.resume <- v
				<-a.parked
			}
		}
		for k := range programs { // who went on goes on, unless a switch is spent
			i := (current + k) % len(programs)
			if m.actors[i].ended || k > 0 && !m.actors[current].ended && switches == 0 {
				continue
			}
			options = append(options, option{m.actors[i].name, func() {
				if k > 0 && !m.actors[current].ended {
					switches--
				}
				current = i
				grant(i, goOn)()
			}})
		}
		if len(options) == 0 {
			break
		}
		if fault {
			for _, f := range faults {
				options = append(options, option{f.name, func() { fault = false; f.do(m) }})
			}
			for i := range programs {
				if !m.actors[i].ended {
					options = append(options, option{m.actors[i].name + " hears no reply", func() { fault = false; grant(i, loseReply)() }},
						option{m.actors[i].name + " is killed", func() { fault = false; grant(i, die)() }})
				}
			}
		}
		o := options[s.choose(depth, len(options))]
		m.trace = append(m.trace, o.name)
		o.do()
	}
	for _, a := range m.actors {
		a.parked = nil
	}
}

// finish starts anew who was killed, lets everybody catch up, and checks what has to be true then.
func (m *model) finish(subjects ...string) {
	m.t.Helper()
	late := &actor{name: "a newcomer", db: m.actors[0].db, journal: new(memoryLog)}
	for _, a := range m.actors {
		if a.cut {
			m.open(a)
		}
	}
	m.open(late)
	all := append(append([]*actor(nil), m.actors...), late)
	for range 4 {
		waiting := false
		for _, a := range all {
			m.look(a)
			waiting = waiting || a.replica.Fresh() != nil
		}
		m.settle()
		if !waiting {
			break
		}
	}
	for _, a := range all {
		m.look(a)
		if a.replica.Fresh() != nil {
			m.fail("%s is not fresh at the end: %v", a.name, a.replica.Fresh())
		}
	}
	for _, subject := range m.acked {
		for _, a := range all {
			if !m.dead(a, subject, revocation.Position{}) {
				m.fail("%s lives at %s, and was acknowledged", subject, a.name)
			}
			for _, p := range m.before {
				if !m.dead(a, subject, p) {
					m.fail("%s of position %s, before everything, lives at %s", subject, p, a.name)
				}
			}
		}
	}
	for _, subject := range subjects {
		first := m.dead(all[0], subject, revocation.Position{})
		for _, a := range all {
			if m.dead(a, subject, revocation.Position{}) != first {
				m.fail("%s and %s do not agree about %s", all[0].name, a.name, subject)
			}
			if m.dead(a, subject, a.set.Position()) {
				m.fail("%s of now is dead at %s", subject, a.name)
			}
		}
	}
}

func TestProtocolInEveryOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	var dbs []*redis.DB
	hooks := make([]*switchboard, 3)
	for i := range hooks {
		db := open(t, s, "")
		hooks[i] = new(switchboard)
		db.Hook(hooks[i])
		dbs = append(dbs, db)
	}
	var m *model
	fresh := func(n int) {
		if err := s.Client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		m = &model{t: t, server: s}
		m.keys.head, m.keys.stream, m.keys.settling = dbs[0].Key("head"), dbs[0].Key("stream"), dbs[0].Key("settling")
		for i := range n {
			a := &actor{name: string(rune('A' + i)), db: dbs[i], journal: new(memoryLog)}
			hooks[i].actor = a
			m.open(a)
			m.actors = append(m.actors, a)
		}
		for range 2 { // the epoch begins and settles, and everybody has heard
			for _, a := range m.actors {
				m.look(a)
			}
			m.settle()
		}
		for _, a := range m.actors {
			m.look(a)
		}
		for _, a := range m.actors {
			m.before = append(m.before, a.set.Position())
		}
		m.save()
		m.trace = nil
	}
	deeper := 0
	if os.Getenv("SALLYPORT_MODEL") == "deep" { // make model
		deeper = 1
	}
	fresh(2) // the scripts are known to Redis from here on, so that each run sends the same
	m.revoke(m.actors[0], "warm")
	m.look(m.actors[1])
	total := 0
	for _, tc := range []struct {
		name     string
		replicas int
		prelude  func() // in one order
		programs func() []func()
		subjects []string
		fault    bool
		switches int
	}{
		{"two revoke at once, every interleaving", 2, nil, func() []func() {
			return []func(){func() { m.revoke(m.actors[0], "x") }, func() { m.revoke(m.actors[1], "y") }}
		}, []string{"x", "y"}, false, 3},
		{"two revoke at once, and something breaks", 2, nil, func() []func() {
			return []func(){func() { m.revoke(m.actors[0], "x") }, func() { m.revoke(m.actors[1], "y") }}
		}, []string{"x", "y"}, true, 1},
		{"one revokes, one looks, and something breaks", 2, nil, func() []func() {
			return []func(){func() { m.revoke(m.actors[0], "x") }, func() { m.look(m.actors[1]); m.look(m.actors[1]) }}
		}, []string{"x"}, true, 1},
		{"a third starts with nothing after one was revoked, and something breaks", 3, func() { m.agreed("w") }, func() []func() {
			return []func(){
				func() { m.look(m.actors[0]) }, func() { m.look(m.actors[1]) },
				func() { a := m.actors[2]; a.journal = new(memoryLog); m.open(a); m.look(a); m.look(a) },
			}
		}, []string{"w"}, true, 1},
		{"one revokes what another has revoked already, and something breaks", 2, func() { m.agreed("w") }, func() []func() {
			return []func(){func() { m.revoke(m.actors[0], "x") }, func() { m.open(m.actors[1]); m.look(m.actors[1]) }}
		}, []string{"w", "x"}, true, 0},
	} {
		plan, runs := new(schedule), 0
		for more := true; more; more = plan.next() {
			fresh(tc.replicas)
			if tc.prelude != nil {
				tc.prelude()
			}
			m.run(plan, tc.programs(), tc.fault, tc.switches+deeper)
			m.finish(tc.subjects...)
			if m.failed != "" {
				t.Fatalf("%s, order %d: %s", tc.name, runs, m.failed)
			}
			runs++
		}
		total += runs
		t.Logf("%s: %d orders", tc.name, runs)
		if runs < 50 {
			t.Errorf("%s: only %d orders were tried", tc.name, runs)
		}
	}
	t.Logf("%d orders in all", total)
}

// switchboard leads a connection's commands to the actor of the run.
type switchboard struct{ actor *actor }

func (s *switchboard) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (s *switchboard) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if s.actor == nil {
			return next(ctx, cmd)
		}
		return s.actor.ProcessHook(next)(ctx, cmd)
	}
}

func (s *switchboard) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if s.actor == nil {
			return next(ctx, cmds)
		}
		return s.actor.ProcessPipelineHook(next)(ctx, cmds)
	}
}
