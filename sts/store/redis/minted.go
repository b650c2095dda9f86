package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/minted"
)

const (
	tell  = 200 * time.Millisecond // between tellings of what was minted
	young = time.Minute            // of a deployment that begins
	slack = 20 * time.Second       // how long a request lasts at most, and some: what it minted is told after this
)

// Minted tells other replicas which tokens this one minted, and asks what they did. What is told stands in one set for each
// minute of issue; when a replica has told of everything up to a moment, its field of the hash "minted:at" says so. It is
// safe for concurrent use.
type Minted struct {
	db       *DB
	id       string
	maxStale time.Duration
	now      func() time.Time
	own      *minted.Index
	born     time.Time // of the keys of a deployment that is new; zero for one that is not

	mu      sync.Mutex
	pending []told
	at      string // what our field should be in Redis; "" for nothing
}

type told struct {
	token   minted.Token
	slot    int64
	expires time.Time
}

// Minted returns what this replica tells and asks. own has what it minted before, which it may not have told when it ended. A
// replica that has not heard from Redis for maxStale mints nothing. keys is when the oldest key was made that signs or signed: when
// that was just now, nothing was minted before that Redis could have lost, and nobody need be told that it cannot be known.
func (d *DB) Minted(own *minted.Index, maxStale time.Duration, keys time.Time, now func() time.Time) *Minted {
	m := &Minted{db: d, id: name(), maxStale: maxStale, now: now, own: own, pending: living(own, now())}
	if now().Sub(keys) < young {
		m.born = keys.Add(-slack)
	}
	return m
}

// living is what of an index has not expired.
func living(own *minted.Index, now time.Time) (all []told) {
	own.Each(now, func(t minted.Token, slot int64, expires time.Time) { all = append(all, told{t, slot, expires}) })
	return all
}

// Add implements sts.Minted.
func (m *Minted) Add(t minted.Token, issued, expires time.Time) {
	m.own.Add(t, issued, expires)
	m.mu.Lock()
	m.pending = append(m.pending, told{t, minted.Slot(issued), expires})
	m.mu.Unlock()
}

// Look implements sts.Minted: what this replica minted it knows.
func (m *Minted) Look(t minted.Token, issued time.Time) (was, known bool) {
	was = m.own.Has(t, issued)
	return was, was
}

// Follow tells until ctx ends.
func (m *Minted) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		_ = m.tell(ctx) // what is not told is told next time, and until then nothing is missed
		pause(ctx, tell)
	}
}

// arrive is our field, when it was what we left there: else Redis has lost something, and everything is told anew.
var arrive = redis.NewScript(`
local at = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if at ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSETNX', KEYS[1], 'since', ARGV[4])
return 1`)

// tell writes what was minted since the last time, and then up to when that is all.
func (m *Minted) tell(ctx context.Context) error {
	m.mu.Lock()
	now := m.now()
	news, before := m.pending, m.at
	m.pending = nil
	m.mu.Unlock()
	err := m.write(ctx, news)
	at := strconv.FormatInt(now.UnixMilli(), 10)
	if err == nil {
		var same int
		since := at
		if before == "" && !m.born.IsZero() {
			since = strconv.FormatInt(m.born.UnixMilli(), 10)
		}
		if same, err = arrive.Run(ctx, m.db.rdb, []string{m.db.key("minted:at")}, m.id, before, at, since).Int(); err == nil && same == 0 {
			err = m.again(ctx, at)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.pending = append(news, m.pending...)
		return err
	}
	m.at = at
	return nil
}

// anew is our field after everything was told once more. What we do not remember ourselves is told by nobody: of what was
// minted before, nothing can be said.
var anew = redis.NewScript(`
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local since = redis.call('HGET', KEYS[1], 'since')
if not since then
  redis.call('HSET', KEYS[1], 'since', ARGV[2])
elseif tonumber(since) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'since', ARGV[3])
end
return 1`)

// again tells of everything that this replica has minted and that lives: Redis has none of it, or not all.
func (m *Minted) again(ctx context.Context, at string) error {
	if err := m.write(ctx, living(m.own, m.now())); err != nil {
		return err
	}
	return anew.Run(ctx, m.db.rdb, []string{m.db.key("minted:at")}, m.id, at, m.own.Since().UnixMilli()).Err()
}

// write adds tokens to the sets of their minutes, which live as long as the longest of theirs.
func (m *Minted) write(ctx context.Context, list []told) error {
	for len(list) > 0 {
		part := list[:min(len(list), 1000)]
		list = list[len(part):]
		members, until := map[int64][]any{}, map[int64]time.Time{}
		for _, t := range part {
			members[t.slot] = append(members[t.slot], t.token[:])
			if t.expires.After(until[t.slot]) {
				until[t.slot] = t.expires
			}
		}
		p := m.db.rdb.Pipeline()
		for slot, tokens := range members {
			life := until[slot].Sub(m.now()) + 2*slack
			p.SAdd(ctx, m.slot(slot), tokens...)
			p.ExpireNX(ctx, m.slot(slot), life)
			p.ExpireGT(ctx, m.slot(slot), life)
		}
		ctx, cancel := within(ctx)
		_, err := p.Exec(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("telling of what was minted: %w", err)
		}
	}
	return nil
}

func (m *Minted) slot(n int64) string { return m.db.key("minted:" + strconv.FormatInt(n, 10)) }

// Ask implements sts.Minted. It asks Redis.
func (m *Minted) Ask(ctx context.Context, t minted.Token, issued time.Time) (minted.Fate, error) {
	if m.own.Has(t, issued) {
		return minted.Genuine, nil
	}
	ctx, cancel := within(ctx)
	defer cancel()
	// Who has told up to when is read first: what is told between the two looks is found by the second.
	at, err := m.db.rdb.HGetAll(ctx, m.db.key("minted:at")).Result()
	if err != nil {
		return minted.Undecided, fmt.Errorf("asking what was minted: %w", err)
	}
	is, err := m.db.rdb.SIsMember(ctx, m.slot(minted.Slot(issued)), t[:]).Result()
	if err != nil {
		return minted.Undecided, fmt.Errorf("asking what was minted: %w", err)
	}
	since, told := at["since"]
	switch {
	case is:
		return minted.Genuine, nil
	case told && issued.Before(moment(since).Add(slack)):
		return minted.Forgotten, nil
	case !told || !m.passed(ctx, at, issued):
		return minted.Undecided, nil
	}
	return minted.Missing, nil
}

func moment(s string) time.Time {
	ms, _ := strconv.ParseInt(s, 10, 64)
	return time.UnixMilli(ms)
}

// passed reports whether every replica that could have minted something then has told of it. One that ended has told up to a
// moment, and cannot have minted long after: it hears from Redis, or mints nothing.
func (m *Minted) passed(ctx context.Context, at map[string]string, issued time.Time) bool {
	for id, s := range at {
		up := moment(s)
		switch {
		case id == "since":
		case up.Before(m.now().Add(-minted.Longest - slack)):
			m.db.rdb.HDel(ctx, m.db.key("minted:at"), id) // nothing of it lives
		case !issued.Before(up.Add(-slack)) && !issued.After(up.Add(m.maxStale+slack)):
			return false
		}
	}
	return true
}
