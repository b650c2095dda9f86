package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

const (
	beat       = 250 * time.Millisecond // between looks
	live       = 8 * beat               // a replica that has not looked for so long is not waited for
	forgotten  = time.Minute            // and after this, its field is removed
	page       = 512                    // entries read by one look
	batch      = 128                    // entries appended by one script
	pushWithin = 4 * time.Second        // how long a revocation waits to be acknowledged
)

// Replica tells other replicas what this one revoked, and this one what they did (see the package comment). It
// implements [revocation.Shared] and is safe for concurrent use.
type Replica struct {
	db       *DB
	set      *revocation.Set
	mac      []byte
	id       string
	maxStale time.Duration
	started  time.Time
	turn     chan struct{} // holds one token: whoever has it may touch what follows
	at       mark
	epoch    uint64
	synced   bool            // at is a place in the stream of epoch, and the stream has all that we have
	seen     map[string]bool // keys of entries read while not synced
	offer    []revocation.Entry
	checked  struct { // the settings of Redis
		run string
		at  time.Time
	}

	mu    sync.Mutex
	own   map[string]*pushed // by key: revoked here, not yet acknowledged
	ever  atomic.Bool        // synced once since the start
	heard atomic.Int64       // nanoseconds since started of the last look that made us fresh; 0 for never
	why   atomic.Pointer[string]
	lossy atomic.Pointer[string] // how Redis can lose what it confirmed, nil when it cannot
}

// pushed is an entry on its way.
type pushed struct {
	entry    revocation.Entry
	epoch, n uint64 // where it is in the stream; 0 while it is not
}

var _ revocation.Shared = (*Replica)(nil)

// Replica returns the replica whose journal and mirror are in set. mac is the deployment's key for stored
// revocations. It does nothing before [Replica.Follow] runs.
func (d *DB) Replica(set *revocation.Set, mac []byte, maxStale time.Duration) (*Replica, error) {
	if len(mac) < sha256.Size {
		return nil, fmt.Errorf("revocations in Redis: MAC key has %d bytes, needs %d", len(mac), sha256.Size)
	}
	r := &Replica{
		db: d, set: set, mac: mac, id: name(), maxStale: maxStale, started: time.Now(),
		turn: make(chan struct{}, 1), own: map[string]*pushed{},
	}
	r.turn <- struct{}{}
	r.reason("it has not been reached yet")
	return r, nil
}

func (r *Replica) reason(s string) { r.why.Store(&s) }

// Fresh implements [revocation.Shared]. Time is monotonic.
func (r *Replica) Fresh() error {
	age, ok := r.Age()
	if ok && age <= r.maxStale {
		return nil
	}
	said := "never"
	if ok {
		said = age.Round(time.Millisecond).String() + " ago"
	}
	return fmt.Errorf("%w: Redis was last heard %s, allowed are %s: %s", revocation.ErrStale, said, r.maxStale, *r.why.Load())
}

// Age returns how long ago the look began that made this replica fresh, and false when there was none.
func (r *Replica) Age() (time.Duration, bool) {
	heard := time.Duration(r.heard.Load())
	return time.Since(r.started) - heard, heard != 0
}

// Follow keeps this replica up to date until ctx ends.
func (r *Replica) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-r.turn:
		case <-ctx.Done():
			return
		}
		err := r.catchUp(ctx)
		id := r.at.id()
		r.turn <- struct{}{}
		if err == nil {
			wait, cancel := context.WithTimeout(ctx, beat+commandTimeout)
			err = r.db.rdb.XRead(wait, &redis.XReadArgs{Streams: []string{r.db.key("stream"), id}, Count: 1, Block: beat}).Err()
			cancel()
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			pause(ctx, beat)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// catchUp looks until everything up to the head is applied and everything of ours is in the stream. The caller
// has the turn.
func (r *Replica) catchUp(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.reason(err.Error())
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Since(r.started)
		from := "-"
		if r.at.anchored {
			from = r.at.id()
		}
		v, err := r.look(ctx, from, page)
		if err != nil {
			r.synced = r.synced && !errors.Is(err, errDamaged)
			return err
		}
		switch {
		case !v.exists || v.headRun != v.run || v.epoch < r.set.Epoch() || r.synced && v.epoch == r.epoch && r.wentBack(v):
			if err := r.begin(ctx, v); err != nil {
				return err
			}
			r.restart(v)
			continue
		case v.epoch != r.epoch || !r.synced && r.seen == nil:
			r.restart(v)
			continue
		}
		more, err := r.apply(ctx, v)
		if err != nil {
			r.synced, r.seen, r.at, r.epoch = false, nil, mark{}, 0 // from the floor next time
			return err
		}
		if more {
			continue
		}
		if err := r.settled(ctx, v.run); err != nil {
			return err
		}
		if lost, err := r.flush(ctx, v); err != nil {
			return err
		} else if lost {
			continue // another replica was faster: read what it wrote
		}
		if err := r.publish(ctx, v); err != nil {
			return err
		}
		if v.settling {
			r.reason("an epoch has just begun, because Redis was emptied, restarted or replaced, or is new; replicas are putting back what they know")
			return nil
		}
		r.ever.Store(true)
		r.reason("it has not answered since")
		r.heard.Store(int64(max(began, 1)))
		return nil
	}
}

// restart makes the next look read the whole stream of the epoch.
func (r *Replica) restart(v view) {
	r.synced, r.seen, r.offer = false, map[string]bool{}, nil
	r.at, r.epoch = v.floor, v.epoch
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.own {
		p.epoch, p.n = 0, 0
	}
}

// wentBack reports whether Redis holds less than it did: the head is before our place, or what stands there is
// something else.
func (r *Replica) wentBack(v view) bool {
	if v.n < r.at.n || v.n == r.at.n && !same(v.mac, r.at.mac) {
		return true
	}
	for name, text := range v.replicas {
		if h, ok := parseHeartbeat(r.mac, name, text); ok && h.epoch == v.epoch && h.n > v.n {
			return true
		}
	}
	if !r.at.anchored || v.floor.n >= r.at.n {
		return false
	}
	return len(v.entries) == 0 || v.entries[0].ID != r.at.id() || v.entries[0].Values["mac"] != r.at.mac
}

// apply checks, journals and applies what the look saw, and reports whether there is more of it.
func (r *Replica) apply(ctx context.Context, v view) (more bool, err error) {
	entries, full := v.entries, len(v.entries) == page
	switch {
	case r.at.anchored && len(entries) > 0 && entries[0].ID == r.at.id() && entries[0].Values["mac"] == r.at.mac:
		entries = entries[1:]
	case r.at.anchored && v.floor.n == r.at.n && same(v.floor.mac, r.at.mac):
		r.at = mark{epoch: r.at.epoch, n: r.at.n, mac: r.at.mac} // our entry expired and was trimmed
	case r.at.anchored || v.floor.n > r.at.n:
		r.restart(v) // ours and more were trimmed
		return true, nil
	}
	learned := make([]revocation.Entry, 0, len(entries))
	at := r.at
	for _, m := range entries {
		var e revocation.Entry
		if at, e, err = next(r.mac, at, m); err != nil {
			return false, err
		}
		learned = append(learned, e)
	}
	if !full && (at.n != v.n || !same(at.mac, v.mac)) {
		return false, fmt.Errorf("%w: the stream ends at %d and the head is %d", errDamaged, at.n, v.n)
	}
	if err := r.set.Learn(ctx, learned); err != nil {
		return false, err
	}
	r.mu.Lock()
	for i, e := range learned {
		if p := r.own[e.Key()]; p != nil && p.n == 0 {
			p.epoch, p.n = r.epoch, r.at.n+uint64(i)+1
		}
		if r.seen != nil {
			r.seen[e.Key()] = true
		}
	}
	r.mu.Unlock()
	r.at = at
	if full {
		return true, nil
	}
	r.set.Reached(revocation.Position{Epoch: v.epoch, N: v.n}, !v.settling)
	if !r.synced {
		now := time.Now()
		err := r.set.Each(ctx, func(e revocation.Entry) error {
			if !r.seen[e.Key()] && now.Before(e.Until) {
				r.offer = append(r.offer, e)
				r.seen[e.Key()] = true
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		r.synced, r.seen = true, nil
	}
	return false, nil
}

// flush appends what the stream lacks, and reports whether another replica appended first.
func (r *Replica) flush(ctx context.Context, v view) (lost bool, err error) {
	r.mu.Lock()
	offered := make(map[string]bool, len(r.offer))
	for _, e := range r.offer {
		offered[e.Key()] = true
	}
	for _, p := range r.own {
		if p.n == 0 && !offered[p.entry.Key()] {
			r.offer = append(r.offer, p.entry)
		}
	}
	r.mu.Unlock()
	for len(r.offer) > 0 {
		some := slices.Clone(r.offer[:min(batch, len(r.offer))])
		args := []any{strconv.FormatUint(v.epoch, 10), strconv.FormatUint(r.at.n, 10), r.at.mac, v.run}
		at := r.at
		for i, e := range some {
			if !e.Placed() { // where it stands is what it is older than; it keeps that in later epochs
				e.Position = revocation.Position{Epoch: v.epoch, N: at.n + 1}
				some[i] = e
			}
			text, err := json.Marshal(e)
			if err != nil {
				return false, fmt.Errorf("encoding a revocation: %w", err)
			}
			at = mark{epoch: v.epoch, n: at.n + 1, mac: at.mac, anchored: true}
			at.mac = entryMAC(r.mac, at.id(), at.mac, string(text))
			args = append(args, string(text), at.mac)
		}
		done, err := r.run(ctx, appendEntries, args...).Int()
		if err != nil {
			r.offer = r.unsent()
			return false, fmt.Errorf("appending to Redis: %w", err)
		}
		if done == 0 {
			r.offer = r.unsent()
			return true, nil
		}
		r.mu.Lock()
		for i, e := range some {
			if p := r.own[e.Key()]; p != nil {
				p.epoch, p.n = v.epoch, r.at.n+uint64(i)+1
			}
		}
		r.mu.Unlock()
		if err := r.set.Learn(ctx, some); err != nil { // those that have a place now
			r.synced, r.seen, r.at, r.epoch = false, nil, mark{}, 0 // from the floor next time
			return false, err
		}
		r.at, r.offer = at, r.offer[len(some):]
		r.set.Reached(revocation.Position{Epoch: v.epoch, N: at.n}, !v.settling)
	}
	r.offer = nil
	return false, nil
}

// unsent forgets an offer that was not taken whole: another replica may have made the same one. What the stream lacks
// is found by reading all of it again.
func (r *Replica) unsent() []revocation.Entry {
	r.synced, r.seen = false, nil
	return nil
}

// begin begins an epoch, unless another replica does.
func (r *Replica) begin(ctx context.Context, v view) error {
	epoch := ""
	if v.exists {
		epoch = strconv.FormatUint(v.epoch, 10)
	}
	fresh := max(v.millis/1000, v.epoch+1, r.epoch+1, r.set.Epoch()+1) // seconds: greater than what another deployment's replicas remember
	if _, err := r.run(ctx, begin, epoch, v.headRun, fresh, v.run, r.maxStale.Milliseconds()).Int(); err != nil {
		return fmt.Errorf("beginning an epoch: %w", err)
	}
	return nil
}

func (r *Replica) publish(ctx context.Context, v view) error {
	ctx, cancel := within(ctx)
	defer cancel()
	h := heartbeat{millis: v.millis, epoch: v.epoch, n: r.at.n}
	p := r.db.rdb.Pipeline()
	p.HSet(ctx, r.db.key("replicas"), r.id, h.text(r.mac, r.id))
	for name, text := range v.replicas {
		if h, ok := parseHeartbeat(r.mac, name, text); !ok || h.millis+uint64(forgotten.Milliseconds()) < v.millis {
			p.HDel(ctx, r.db.key("replicas"), name)
		}
	}
	if _, err := p.Exec(ctx); err != nil {
		return fmt.Errorf("publishing to Redis: %w", err)
	}
	return nil
}

func (r *Replica) look(ctx context.Context, from string, count int) (view, error) {
	raw, err := r.run(ctx, look, from, count).Result()
	if err != nil {
		return view{}, fmt.Errorf("looking into Redis: %w", err)
	}
	return parseView(raw, r.mac)
}

func (r *Replica) run(ctx context.Context, s *redis.Script, args ...any) *redis.Cmd {
	ctx, cancel := within(ctx)
	defer cancel()
	return s.Run(ctx, r.db.rdb, []string{r.db.key("head"), r.db.key("stream"), r.db.key("replicas"), r.db.key("settling")}, args...)
}

// Push implements [revocation.Shared].
func (r *Replica) Push(ctx context.Context, e revocation.Entry, news bool) error {
	ctx, cancel := context.WithTimeout(ctx, pushWithin)
	defer cancel()
	r.mu.Lock()
	p := r.own[e.Key()]
	if p == nil {
		if !news && r.ever.Load() {
			r.mu.Unlock()
			return nil // acknowledged before, or another replica's
		}
		p = &pushed{entry: e}
		r.own[e.Key()] = p
	}
	r.mu.Unlock()
	select {
	case <-r.turn:
	case <-ctx.Done():
		return fmt.Errorf("waiting for Redis: %w: %s", ctx.Err(), *r.why.Load())
	}
	err := r.catchUp(ctx)
	r.turn <- struct{}{}
	if err != nil {
		return err
	}
	if err := r.held(ctx, p); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.own, e.Key())
	r.mu.Unlock()
	return nil
}

// Replicas implements [revocation.Shared].
func (r *Replica) Replicas(ctx context.Context) ([]revocation.Replica, error) {
	v, err := r.look(ctx, "+", 1)
	if err != nil {
		return nil, err
	}
	var out []revocation.Replica
	for name, text := range v.replicas {
		h, ok := parseHeartbeat(r.mac, name, text)
		if !ok {
			continue
		}
		silent := time.Duration(v.millis-min(h.millis, v.millis)) * time.Millisecond
		out = append(out, revocation.Replica{Name: name, At: revocation.Position{Epoch: h.epoch, N: h.n}, Silent: silent, Serves: silent <= r.maxStale+beat})
	}
	slices.SortFunc(out, func(a, b revocation.Replica) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// name is this replica among others: its host, and something that no other process has.
func name() string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	return host[:min(len(host), 63)] + "/" + strings.ToLower(rand.Text()[:8])
}

// held waits until one other place than this machine and the Redis has the entry, if there is one.
func (r *Replica) held(ctx context.Context, p *pushed) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		r.mu.Lock()
		epoch, n := p.epoch, p.n
		r.mu.Unlock()
		v, err := r.look(ctx, "+", 1)
		if err != nil {
			return err
		}
		others := 0
		for name, text := range v.replicas {
			h, ok := parseHeartbeat(r.mac, name, text)
			if !ok || name == r.id || h.millis+uint64(live.Milliseconds()) < v.millis {
				continue
			}
			others++
			if n != 0 && h.epoch == epoch && h.n >= n {
				return nil
			}
		}
		if n != 0 && v.epoch == epoch && others == 0 {
			return r.copied(ctx)
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return errors.New("no other replica has confirmed the revocation yet")
		}
	}
}

// copied returns nil when a replica of Redis has confirmed all we wrote, or Redis has none.
func (r *Replica) copied(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	info, err := r.db.rdb.Info(ctx, "replication").Result()
	if err != nil {
		return fmt.Errorf("asking Redis for its replicas: %w", err)
	}
	if strings.Contains(info, "connected_slaves:0") {
		return nil
	}
	conn := r.db.rdb.Conn()
	defer conn.Close()
	if err := conn.HSet(ctx, r.db.key("replicas"), "wait", "").Err(); err != nil { // WAIT counts from this connection's last write
		return fmt.Errorf("writing to Redis: %w", err)
	}
	n, err := conn.Wait(ctx, 1, commandTimeout/2).Result()
	if err != nil || n < 1 {
		return fmt.Errorf("no replica of Redis has confirmed the revocation (%v)", err)
	}
	return nil
}

// long is how long an entry has to live for others not to wait for its end: it is appended again, and keeps its place.
const long = 30 * time.Hour

// again appends entries that stand before what is trimmed.
func (r *Replica) again(ctx context.Context, entries []revocation.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	select {
	case <-r.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { r.turn <- struct{}{} }()
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.offer = append(r.offer, entries...)
	return r.catchUp(ctx)
}

// Prune implements [revocation.Shared]: it trims the oldest entries that have expired. Those between them that live for
// long are appended again first.
func (r *Replica) Prune(ctx context.Context, now time.Time) error {
	if !r.ever.Load() || r.Fresh() != nil {
		return nil
	}
	for {
		v, err := r.look(ctx, "-", page)
		if err != nil {
			return err
		}
		at, end := v.floor, v.floor // end is behind the last one that has expired
		var kept, carried []revocation.Entry
		for _, m := range v.entries {
			after, e, err := next(r.mac, at, m)
			if err != nil {
				return err
			}
			if now.After(e.Until) {
				end, carried = after, kept
			} else if e.Until.Sub(now) < long {
				break
			} else {
				kept = append(kept, e)
			}
			at = after
		}
		if at = end; at.n == v.floor.n {
			return nil
		}
		if err := r.again(ctx, carried); err != nil {
			return err
		}
		keep := mark{epoch: at.epoch, n: at.n + 1}
		err = r.run(ctx, trim, strconv.FormatUint(v.floor.n, 10), strconv.FormatUint(at.n, 10), at.mac, floorMAC(r.mac, at.n, at.mac), keep.id()).Err()
		if err != nil || at.n-v.floor.n < page {
			return err
		}
	}
}
