package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

func leases(t *testing.T, db *redis.DB) *redis.Leases {
	t.Helper()
	s, err := db.Leases(mac, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLeases(t *testing.T) {
	t.Parallel()
	s := startServer(t, true)
	prefix := map[*testing.T]string{}
	storetest.RunLeases(t, func(t *testing.T) (lease.Store, func()) {
		if prefix[t] == "" {
			prefix[t] = fmt.Sprint("[p*]", len(prefix)) // with what would be a pattern
		} else { // after a restart of all
			s.Kill()
			if err := s.Run(); err != nil {
				t.Fatal(err)
			}
		}
		ledger := leases(t, open(t, s, prefix[t]))
		return ledger, func() {
			if err := ledger.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}

// tag is before every key of the default deployment.
const tag = "{sallyport}:"

var leaseTime = time.Date(2030, 1, 2, 3, 4, 5, 678901234, time.UTC)

func newLease(id string, ancestors ...string) lease.Lease {
	return lease.Lease{
		ID: id, Family: "family", Ancestors: ancestors, Target: "orders-db", Workload: "spiffe://prod.example/w", Name: "sts_x_" + id,
		State: lease.Live, Opened: leaseTime, Expires: leaseTime.Add(time.Hour), Due: leaseTime.Add(time.Hour), Fingerprint: "print-" + id, Handle: []byte("sealed"),
	}
}

func mustOpen(t *testing.T, s lease.Store, all ...lease.Lease) {
	t.Helper()
	for _, l := range all {
		if err := s.Open(t.Context(), l, lease.Limits{}); err != nil {
			t.Fatalf("opening %s: %v", l.ID, err)
		}
	}
}

func write(*lease.Lease) lease.Verdict  { return lease.Write }
func remove(*lease.Lease) lease.Verdict { return lease.Remove }

// every is the ids that Each tells.
func every(t *testing.T, s lease.Store) []string {
	t.Helper()
	var out []string
	if err := s.Each(t.Context(), func(l lease.Lease) error { out = append(out, l.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// keys lists what is kept for leases.
func keys(t *testing.T, s *redistest.Server) []string {
	t.Helper()
	out, err := s.Client.Keys(t.Context(), tag+"lease*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestNothingIsLeftOfALeaseThatIsRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ledger := leases(t, open(t, s, ""))
	mustOpen(t, ledger, newLease("a", "root", "mid"), newLease("b", "root"))
	if got := keys(t, s); len(got) != 10 {
		t.Errorf("two leases have the keys %v", got)
	}
	if _, err := ledger.Update(t.Context(), []string{"a", "b"}, remove); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s); len(got) != 0 {
		t.Errorf("of leases that were removed %v are left", got)
	}
}

// counter counts what goes over the network, and can have it go wrong.
type counter struct {
	mu       sync.Mutex
	trips    int
	pipeline func(next goredis.ProcessPipelineHook, ctx context.Context, cmds []goredis.Cmder) error
}

func (c *counter) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (c *counter) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips++
}

func (c *counter) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if cmd.Name() != "hello" { // of a new connection
			c.count()
		}
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		c.count()
		if c.pipeline != nil {
			return c.pipeline(next, ctx, cmds)
		}
		return next(ctx, cmds)
	}
}

func TestManyLeasesAreChangedInFewRoundTrips(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	db := open(t, s, "")
	ledger := leases(t, db)
	var ids []string
	for i := range 200 {
		ids = append(ids, fmt.Sprint(i))
		mustOpen(t, ledger, newLease(ids[i], "root"))
	}
	if err := s.Client.ScriptFlush(t.Context()).Err(); err != nil { // as a Redis that was restarted
		t.Fatal(err)
	}
	c := &counter{}
	db.Hook(c)
	for _, want := range []int{8, 5} { // to read, to write the first, to load the two scripts and write four times fifty; then without the loading
		c.trips = 0
		done, err := ledger.Update(t.Context(), ids, func(l *lease.Lease) lease.Verdict { l.Tries++; return lease.Write })
		if err != nil || len(done) != 200 || c.trips != want {
			t.Errorf("%d of 200 changed in %d round trips (%v), want all in %d", len(done), c.trips, err, want)
		}
	}
	if err := ledger.Each(t.Context(), func(l lease.Lease) error {
		if l.Tries != 2 {
			t.Errorf("lease %s was changed %d times, want twice", l.ID, l.Tries)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// go-redis sends again what it got no answer to. Neither a change nor a lease comes to be twice, and none is taken for lost.
func TestWhatIsSentTwiceHappensOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	db := open(t, s, "")
	ledger := leases(t, db)
	mustOpen(t, ledger, newLease("a", "root"))
	db.Hook(&counter{pipeline: func(next goredis.ProcessPipelineHook, ctx context.Context, cmds []goredis.Cmder) error {
		_ = next(ctx, cmds)
		return next(ctx, cmds)
	}})
	calls := 0
	done, err := ledger.Update(t.Context(), []string{"a"}, func(l *lease.Lease) lease.Verdict { calls++; l.Tries++; return lease.Write })
	if err != nil || len(done) != 1 || done[0].Tries != 1 || calls != 1 {
		t.Errorf("a change that was sent twice: %+v (%v), asked for %d times", done, err, calls)
	}
	done, err = ledger.Update(t.Context(), []string{"a"}, remove)
	if err != nil || len(done) > 1 || len(keys(t, s)) != 0 {
		t.Errorf("a removal that was sent twice: %+v (%v), left are %v", done, err, keys(t, s))
	}
}

// What is known to have been done before the connection broke is told along with the error.
func TestAnAnswerThatBreaksOffTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	db := open(t, s, "")
	ledger := leases(t, db)
	mustOpen(t, ledger, newLease("a"), newLease("b"), newLease("c"))
	if _, err := ledger.Update(t.Context(), []string{"a"}, write); err != nil { // the script is known
		t.Fatal(err)
	}
	c := &counter{pipeline: func(next goredis.ProcessPipelineHook, ctx context.Context, cmds []goredis.Cmder) error {
		_ = next(ctx, cmds)
		for _, cmd := range cmds[1:] {
			cmd.SetErr(net.ErrClosed)
		}
		return net.ErrClosed
	}}
	db.Hook(c)
	done, err := ledger.Update(t.Context(), []string{"a", "b", "c"}, func(l *lease.Lease) lease.Verdict { l.Tries++; return lease.Write })
	if !errors.Is(err, lease.ErrUnavailable) || len(done) != 1 || done[0].ID != "a" {
		t.Errorf("told are %+v with %v, want a, with ErrUnavailable", done, err)
	}
}

func TestLeasesOfTwoReplicas(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ledgers := []*redis.Leases{leases(t, open(t, s, "")), leases(t, open(t, s, ""))}
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprint(i))
		mustOpen(t, ledgers[i%2], newLease(ids[i], "root"))
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	told := map[string]int{}
	for _, ledger := range ledgers {
		for range 3 {
			all.Go(func() {
				for range 5 {
					done, err := ledger.Update(context.Background(), ids, func(l *lease.Lease) lease.Verdict { l.Tries++; return lease.Write })
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					for _, l := range done {
						told[l.ID]++
					}
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	if err := ledgers[0].Each(t.Context(), func(l lease.Lease) error {
		if l.Tries != 30 || told[l.ID] != 30 {
			t.Errorf("lease %s was changed %d times, and told %d times, want 30", l.ID, l.Tries, told[l.ID])
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	removed := make([][]lease.Lease, 2) // by exactly one
	for i, ledger := range ledgers {
		all.Go(func() {
			var err error
			if removed[i], err = ledger.Update(context.Background(), ids, remove); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(removed[0]) + len(removed[1]); n != 50 || len(keys(t, s)) != 0 {
		t.Errorf("%d removals were told of 50; left are %v", n, keys(t, s))
	}
}

// Of many leases that are to go, those that another replica changes between the reading and the writing stay, and are looked at
// again; the others go, with all of their indexes.
func TestLeasesThatAreChangedMeanwhileDoNotGo(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	a, b := leases(t, open(t, s, "")), leases(t, open(t, s, ""))
	var ids, changed []string
	for i := range 120 {
		ids = append(ids, fmt.Sprintf("id-%03d", i))
		l := newLease(ids[i], "root", fmt.Sprint("parent-", i%3))
		l.Workload, l.Target, l.Fingerprint = fmt.Sprint("workload-", i%2), fmt.Sprint("target-", i%2), fmt.Sprint("print-", i)
		mustOpen(t, a, l)
		if i%10 == 0 {
			changed = append(changed, ids[i])
		}
	}
	var once sync.Once
	done, err := a.Update(t.Context(), ids, func(l *lease.Lease) lease.Verdict {
		once.Do(func() {
			if _, err := b.Update(context.Background(), changed, func(l *lease.Lease) lease.Verdict { l.Tries = 7; return lease.Write }); err != nil {
				t.Error(err)
			}
		})
		if l.Tries == 7 {
			return lease.Leave
		}
		return lease.Remove
	})
	if err != nil || len(done) != 108 {
		t.Fatalf("%d went (%v), want 108", len(done), err)
	}
	var left []string
	if err := b.Each(t.Context(), func(l lease.Lease) error { left = append(left, l.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(left); !slices.Equal(left, changed) {
		t.Errorf("left are %v, want %v", left, changed)
	}
	for _, id := range changed {
		if l, err := b.Find(t.Context(), "print-"+strings.TrimLeft(strings.TrimPrefix(id, "id-"), "0")); id != "id-000" && (err != nil || l.ID != id) {
			t.Errorf("%s is not found by its fingerprint: %v", id, err)
		}
	}
	if below, err := b.Below(t.Context(), "root"); err != nil || !slices.Equal(below, changed) {
		t.Errorf("below root are %v (%v)", below, err)
	}
	if _, err := b.Update(t.Context(), changed, remove); err != nil || len(keys(t, s)) != 0 {
		t.Errorf("left are %v (%v)", keys(t, s), err)
	}
}

func TestOneReplicaLeads(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	one, other := leases(t, open(t, s, "")), leases(t, open(t, s, ""))
	lead := func(l *redis.Leases) bool {
		t.Helper()
		yes, err := l.Lead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for range 3 {
		if !lead(one) || lead(other) {
			t.Fatal("the first does not lead alone")
		}
	}
	if err := other.Close(t.Context()); err != nil || lead(other) {
		t.Errorf("who does not lead took the lead away by leaving (%v)", err)
	}
	if err := one.Close(t.Context()); err != nil || !lead(other) || lead(one) {
		t.Errorf("the lead that was given up is not taken (%v)", err)
	}
	if ttl, err := s.Client.PTTL(t.Context(), tag+"leases:lead").Result(); err != nil || ttl <= 0 || ttl > 5*time.Second {
		t.Errorf("the lead ends in %s (%v), want within 5 s", ttl, err)
	}
	for deadline := time.Now().Add(patience); !lead(one); time.Sleep(50 * time.Millisecond) { // other has died
		if time.Now().After(deadline) {
			t.Fatal("the lead of a replica that died is never taken")
		}
	}
}

// Without Redis nothing is taken for done, or for not there.
func TestLeasesAreUnavailableWithoutRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ledger := leases(t, open(t, s, ""))
	s.Kill()
	ctx := t.Context()
	_, lead := ledger.Lead(ctx)
	_, find := ledger.Find(ctx, "print")
	_, below := ledger.Below(ctx, "a")
	_, due := ledger.Due(ctx, "orders-db", leaseTime, 1)
	_, counts := ledger.Counts(ctx)
	_, update := ledger.Update(ctx, []string{"a"}, write)
	for what, err := range map[string]error{
		"Open": ledger.Open(ctx, newLease("a"), lease.Limits{}), "Update": update, "Find": find, "Below": below, "Due": due, "Counts": counts,
		"Each": ledger.Each(ctx, func(lease.Lease) error { return nil }), "Lead": lead, "Rebuild": ledger.Rebuild(ctx), "Close": ledger.Close(ctx),
	} {
		if !errors.Is(err, lease.ErrUnavailable) || errors.Is(err, lease.ErrUnknown) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}

// Everything that is not a lease can be lost and is made again by whoever begins to lead.
func TestIndexesAreMadeAnew(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ctx := t.Context()
	ledger := leases(t, open(t, s, ""))
	b := newLease("b", "root")
	b.Target, b.Workload = "other", "spiffe://prod.example/other"
	mustOpen(t, ledger, newLease("a", "root", "mid"), b)
	whole := dump(t, s)
	for _, key := range keys(t, s) {
		if !strings.HasPrefix(key, tag+"lease:") {
			s.Client.Del(ctx, key)
		}
	}
	for key, id := range map[string]string{"leases": "gone", "leases:of:" + b.Workload: "a", "leases:of:nobody": "a", "leases:below:x": "b", "leases:below:root": "gone"} {
		s.Client.SAdd(ctx, tag+key, id)
	}
	s.Client.ZAdd(ctx, tag+"leases:due:nothing", goredis.Z{Score: 1, Member: "a"}, goredis.Z{Score: 1, Member: "gone"})
	s.Client.Set(ctx, tag+"leases:print:print-a", "b", 0)
	s.Client.Set(ctx, tag+"leases:print:print-of-nobody", "a", 0)
	if got := every(t, ledger); len(got) != 0 {
		t.Fatalf("without an index %v are found; the test looks at nothing", got)
	}
	if lead, err := leases(t, open(t, s, "")).Lead(ctx); !lead || err != nil {
		t.Fatal(lead, err)
	}
	s.Client.Del(ctx, tag+"leases:lead")
	if again := dump(t, s); !maps.Equal(again, whole) {
		t.Errorf("the indexes are\n%v, want\n%v", again, whole)
	}
}

// dump is what the indexes hold.
func dump(t *testing.T, s *redistest.Server) map[string]string {
	t.Helper()
	ctx, out := t.Context(), map[string]string{}
	for _, key := range keys(t, s) {
		switch kind := s.Client.Type(ctx, key).Val(); {
		case strings.HasPrefix(key, tag+"lease:"): // has another revision
		case kind == "set":
			all := s.Client.SMembers(ctx, key).Val()
			slices.Sort(all)
			out[key] = fmt.Sprint(all)
		case kind == "zset":
			out[key] = fmt.Sprint(s.Client.ZRangeWithScores(ctx, key, 0, -1).Val())
		default:
			out[key] = s.Client.Get(ctx, key).Val()
		}
	}
	return out
}

// Who writes to Redis must not choose what we kill, or have us take one lease for another.
func TestEntriesOfStrangersAreNotActedUpon(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ctx := t.Context()
	db := open(t, s, "")
	var logged bytes.Buffer
	ledger, err := db.Leases(mac, zerolog.New(&logged))
	if err != nil {
		t.Fatal(err)
	}
	due := newLease("due", "root")
	due.Due = leaseTime
	mustOpen(t, ledger, newLease("changed", "root"), newLease("moved", "root"), newLease("cut", "root"), newLease("list", "root"), newLease("foreign", "root"), newLease("sibling", "root"), due)
	get := func(id string) string { return s.Client.Get(ctx, tag+"lease:"+id).Val() }
	put := func(id, entry string) { s.Client.Set(ctx, tag+"lease:"+id, entry, 0) }
	put("changed", strings.Replace(get("changed"), `"live"`, `"dying"`, 1))
	put("moved", get("due"))
	put("cut", get("cut")[:50])
	s.Client.Del(ctx, tag+"lease:list")
	s.Client.RPush(ctx, tag+"lease:list", "x")
	put("foreign", get("foreign"))
	stranger, err := open(t, s, "x").Leases([]byte("fedcba9876543210fedcba9876543210"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	mustOpen(t, stranger, newLease("foreign", "root"))
	put("foreign", s.Client.Get(ctx, "{x}:lease:foreign").Val())
	mustOpen(t, leases(t, open(t, s, "y")), newLease("sibling", "root")) // of a deployment that was copied, with its key
	put("sibling", s.Client.Get(ctx, "{y}:lease:sibling").Val())
	for i := range 300 { // more than are asked for at once
		s.Client.ZAdd(ctx, tag+"leases:due:orders-db", goredis.Z{Score: 1, Member: fmt.Sprint("junk", i)})
	}
	for _, id := range []string{"changed", "moved", "cut", "foreign", "sibling"} {
		s.Client.ZAdd(ctx, tag+"leases:due:orders-db", goredis.Z{Score: 1, Member: id})
	}

	if got := every(t, ledger); !slices.Equal(got, []string{"due"}) {
		t.Errorf("Each tells %v, want what nobody touched", got)
	}
	if got, err := ledger.Below(ctx, "root"); err != nil || !slices.Equal(got, []string{"due"}) {
		t.Errorf("below root there is %v (%v)", got, err)
	}
	got, err := ledger.Due(ctx, "orders-db", leaseTime, 2)
	if err != nil || len(got) != 1 || got[0].ID != "due" {
		t.Errorf("due is %+v (%v), behind all that is not", got, err)
	}
	for _, id := range []string{"changed", "moved", "cut", "foreign", "sibling"} {
		if _, err := ledger.Find(ctx, "print-"+id); !errors.Is(err, lease.ErrUnknown) {
			t.Errorf("finding %s: %v, want ErrUnknown", id, err)
		}
		if n := strings.Count(logged.String(), `lease:`+id+`"`); n != 1 {
			t.Errorf("%s was reported %d times, want once", id, n)
		}
		if ttl := s.Client.TTL(ctx, tag+"lease:"+id).Val(); ttl < 6*24*time.Hour {
			t.Errorf("the entry of %s is kept for %s, want a week for whoever looks", id, ttl)
		}
		if err := ledger.Open(ctx, newLease(id), lease.Limits{}); !errors.Is(err, lease.ErrUnavailable) {
			t.Errorf("a lease is opened over the entry of %s: %v", id, err)
		}
	}
	done, err := ledger.Update(ctx, []string{"changed", "moved", "cut", "list", "foreign", "sibling"}, func(l *lease.Lease) lease.Verdict {
		t.Errorf("asked about %s", l.ID)
		return lease.Remove
	})
	if err != nil || len(done) != 0 {
		t.Errorf("Update: %v (%v)", done, err)
	}
	if err := ledger.Rebuild(ctx); err != nil {
		t.Errorf("Rebuild: %v", err)
	}
}

// Indexes are nobody's word: what they say is asked of the leases.
func TestIndexesThatLieChooseNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ctx := t.Context()
	ledger := leases(t, open(t, s, ""))
	late := newLease("late", "root")
	early := newLease("early")
	early.Due = leaseTime
	mustOpen(t, ledger, newLease("a", "root"), late, early)
	index := tag + "leases:due:orders-db"

	s.Client.SAdd(ctx, tag+"leases:below:stolen", "a", "late")
	if got, err := ledger.Below(ctx, "stolen"); err != nil || len(got) != 0 {
		t.Errorf("a lease that descends from nothing is killed with another: %v (%v)", got, err)
	}
	s.Client.Set(ctx, tag+"leases:print:mine", "a", 0)
	if l, err := ledger.Find(ctx, "mine"); !errors.Is(err, lease.ErrUnknown) {
		t.Errorf("another's credential finds lease %s (%v)", l.ID, err)
	}
	s.Client.ZAdd(ctx, index, goredis.Z{Score: 1, Member: "late"})
	s.Client.ZAdd(ctx, tag+"leases:due:other", goredis.Z{Score: 1, Member: "early"})
	if got, err := ledger.Due(ctx, "orders-db", leaseTime, 10); err != nil || len(got) != 1 || got[0].ID != "early" {
		t.Errorf("due is %+v (%v), want only what is", got, err)
	}
	if got, err := ledger.Due(ctx, "other", leaseTime, 10); err != nil || len(got) != 0 {
		t.Errorf("at another target %+v is due (%v)", got, err)
	}
	if n := s.Client.ZScore(ctx, index, "late").Val(); n != float64(late.Due.UnixMicro()) {
		t.Errorf("the index still lies: %v", n)
	}
	s.Client.ZAdd(ctx, index, goredis.Z{Score: 9e15, Member: "early"}) // put off: Each finds it, and writing it mends the index
	if _, err := ledger.Update(ctx, []string{"early"}, write); err != nil {
		t.Fatal(err)
	}
	if got, err := ledger.Due(ctx, "orders-db", leaseTime, 10); err != nil || len(got) != 1 {
		t.Errorf("after it was written, due is %+v (%v)", got, err)
	}
}

// Two that are due within the same millisecond come in their order.
func TestWhatIsDueComesInItsOrderToTheMicrosecond(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ledger := leases(t, open(t, s, ""))
	for i := range 20 {
		l := newLease(fmt.Sprintf("%02d", i))
		l.Due = leaseTime.Add(time.Duration(20-i) * time.Microsecond)
		mustOpen(t, ledger, l)
	}
	got, err := ledger.Due(t.Context(), "orders-db", leaseTime.Add(time.Second), 5)
	var ids []string
	for _, l := range got {
		ids = append(ids, l.ID)
	}
	if err != nil || !slices.Equal(ids, []string{"19", "18", "17", "16", "15"}) {
		t.Errorf("due are %v (%v)", ids, err)
	}
	if got, err := ledger.Due(t.Context(), "orders-db", leaseTime.Add(10*time.Microsecond-time.Nanosecond), 20); err != nil || len(got) != 9 {
		t.Errorf("a nanosecond before the tenth %d are due (%v), want 9", len(got), err)
	}
}

func TestLeasesAreFoundUnderAPrefixThatWouldBeAPattern(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	ledger := leases(t, open(t, s, `[p*?\`))
	mustOpen(t, ledger, newLease("a"))
	s.Client.Del(t.Context(), `{[p*?\}:leases`)
	if err := ledger.Rebuild(t.Context()); err != nil || len(every(t, ledger)) != 1 {
		t.Errorf("after its index was lost %v are found (%v)", every(t, ledger), err)
	}
}
