package redis

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	dropped  bool     // something was offered and not taken; see again
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
	r.dropped = r.dropped || len(r.offer) > 0
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
	r.synced, r.seen, r.dropped = false, nil, true
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
