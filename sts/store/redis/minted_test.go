package redis_test

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// slotOf is the key of the tokens of a minute.
func slotOf(t *testing.T, s *redistest.Server, issued time.Time) string {
	t.Helper()
	for _, k := range s.Client.Keys(t.Context(), "*").Val() {
		if strings.HasSuffix(k, "minted:"+strconv.FormatInt(minted.Slot(issued), 10)) {
			return k
		}
	}
	t.Fatal("nothing was told of that minute")
	return ""
}

func someToken() (t minted.Token) { _, _ = rand.Read(t[:]); return t }

// minter is what one replica has; its clock is the test's.
type minter struct {
	*redis.Minted
	t *testing.T
}

func (m minter) missing(token minted.Token, issued time.Time) bool {
	m.t.Helper()
	return m.is(minted.Missing, token, issued)
}

func (m minter) is(want minted.Fate, token minted.Token, issued time.Time) bool {
	m.t.Helper()
	fate, err := m.Ask(m.t.Context(), token, issued)
	if err != nil {
		m.t.Fatal(err)
	}
	return fate == want
}

func (m minter) told() {
	m.t.Helper()
	if err := m.Tell(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// Redis goes back to what it was a moment ago, as a failover does: what was told since is told anew, or a good token would be called
// forged.
func TestMintedIsToldAnewWhenRedisWentBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	var clock atomic.Int64
	start := time.Now().Truncate(time.Second)
	clock.Store(start.UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	replica := func() minter {
		return minter{open(t, s, "").Minted(minted.NewIndex(start.Add(-minted.Longest)), 3*time.Second, time.Time{}, now), t}
	}
	a, b := replica(), replica()
	a.told()
	b.told()
	clock.Add(int64(5 * time.Minute))
	b.told()
	var at string
	for _, k := range s.Client.Keys(t.Context(), "*").Val() {
		if strings.HasSuffix(k, "minted:at") {
			at = k
		}
	}
	before := s.Client.HGetAll(t.Context(), at).Val()
	clock.Add(int64(time.Second))
	mine, issued := someToken(), now()
	b.Add(mine, issued, issued.Add(10*time.Minute))
	b.told()
	if err := s.Client.Del(t.Context(), slotOf(t, s, issued)).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client.HSet(t.Context(), at, before).Err(); err != nil {
		t.Fatal(err)
	}
	clock.Add(int64(5 * time.Minute))
	for _, m := range []minter{a, b} {
		m.told()
	}
	if !a.missing(someToken(), issued) {
		t.Fatal("nothing is missed at all: the test shows nothing")
	}
	if a.missing(mine, issued) {
		t.Error("a token that was minted is missed after Redis went back")
	}
}

// A token that another replica minted is never called missing: not before it was told, not after Redis lost everything, and
// not when that replica ended before it could tell. One that nobody minted is, as soon as everybody has told of its time.
func TestMintedIsMissedOnlyWhenAllHaveTold(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	const stale = 3 * time.Second
	var clock atomic.Int64
	start := time.Now().Truncate(time.Second)
	clock.Store(start.UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	after := func(d time.Duration) { clock.Add(int64(d)) }
	replica := func() minter {
		return minter{open(t, s, "").Minted(minted.NewIndex(start.Add(-minted.Longest)), stale, time.Time{}, now), t}
	}
	a, b, c := replica(), replica(), replica()
	forged := someToken()
	if !a.is(minted.Undecided, forged, now()) {
		t.Error("decided before anybody told anything")
	}
	for _, m := range []minter{a, b, c} {
		m.told()
	}
	after(time.Minute)
	b.told() // as it does all the time: who cannot mints nothing
	mine, issued := someToken(), now()
	b.Add(mine, issued, issued.Add(10*time.Minute))
	if was, known := b.Look(mine, issued); !was || !known {
		t.Error("a replica does not know what it minted")
	}
	if was, known := a.Look(mine, issued); was || known {
		t.Error("a replica says what only others know")
	}
	for _, m := range []minter{a, c} {
		m.told()
	}
	if !a.is(minted.Undecided, mine, issued) || !a.is(minted.Undecided, forged, issued) {
		t.Error("decided before its replica told of that time")
	}
	after(25 * time.Second)
	a.told()
	c.told()
	if a.missing(mine, issued) {
		t.Error("missed although the replica that minted it, which lives, has not told yet")
	}
	b.told()
	if !a.is(minted.Genuine, mine, issued) || !c.is(minted.Genuine, mine, issued) {
		t.Error("not known although it was told")
	}
	if !a.missing(forged, issued) {
		t.Error("a token that nobody minted is not missed")
	}
	if !a.is(minted.Undecided, forged, now()) || !a.is(minted.Undecided, forged, now().Add(-15*time.Second)) {
		t.Error("decided while the request that minted it could still run")
	}
	if !a.is(minted.Forgotten, forged, start.Add(-time.Minute)) {
		t.Error("something is said of a token from before anybody told")
	}

	// Redis comes back without anything: who has minted tells anew, before it says that it has.
	if err := s.Client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if a.missing(mine, issued) {
		t.Error("missed after Redis lost everything")
	}
	for _, m := range []minter{a, c, b} {
		m.told()
		if a.missing(mine, issued) || c.missing(mine, issued) {
			t.Error("missed while replicas tell anew")
		}
	}
	after(5 * time.Minute)
	for _, m := range []minter{a, b, c} {
		m.told()
	}
	late := now().Add(-2 * time.Minute)
	if a.missing(mine, issued) || !a.missing(forged, late) {
		t.Errorf("after Redis lost everything: the token that was minted is missed: %v, one that was not: %v", a.missing(mine, issued), a.missing(forged, late))
	}

	// B mints and ends before it tells.
	b.told()
	lost, at := someToken(), now().Add(time.Second)
	after(time.Second)
	b.Add(lost, at, at.Add(10*time.Minute))
	after(time.Minute)
	a.told()
	c.told()
	if a.missing(lost, at) {
		t.Error("missed although its replica ended before it could tell")
	}
	again := minted.NewIndex(start.Add(-minted.Longest)) // as its log has it when it starts anew
	again.Add(lost, at, at.Add(10*time.Minute))
	minter{open(t, s, "").Minted(again, stale, time.Time{}, now), t}.told()
	if err := s.Client.SIsMember(t.Context(), slotOf(t, s, at), lost[:]).Err(); err != nil || !s.Client.SIsMember(t.Context(), slotOf(t, s, at), lost[:]).Val() {
		t.Errorf("what was minted before the start is not told (%v)", err)
	}
	beyond := at.Add(stale + 30*time.Second)
	after(time.Minute)
	a.told()
	c.told()
	if !a.missing(forged, beyond) {
		t.Error("a replica that has ended hides what is forged after its end")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if fate, err := a.Ask(ctx, forged, beyond); fate != minted.Undecided || err == nil {
		t.Errorf("without Redis: %v, %v", fate, err)
	}
	if err := s.Continue(); err != nil {
		t.Fatal(err)
	}
}

// Attack: on a busy deployment, whose replicas do not remember themselves all that lives, a forged token is dated back to what
// they have forgotten. Redis has it.
func TestMintedThatReplicasForgotIsAskedOfRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t, false)
	var clock atomic.Int64
	start := time.Now().Truncate(time.Second)
	clock.Store(start.UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	replica := func(since time.Time) minter {
		return minter{open(t, s, "").Minted(minted.NewIndex(since), 3*time.Second, time.Time{}, now), t}
	}
	a, b := replica(start), replica(start)
	a.told()
	b.told()
	clock.Add(int64(5 * time.Minute))
	mine, issued := someToken(), now()
	a.Add(mine, issued, issued.Add(30*time.Minute))
	clock.Add(int64(5 * time.Minute))
	a.told()
	b.told()
	forgot := replica(now()) // remembers nothing of that time
	forgot.told()
	if !forgot.missing(someToken(), issued) {
		t.Error("a token that nobody minted, of a time that a replica has forgotten, is not missed")
	}
	if !forgot.is(minted.Genuine, mine, issued) {
		t.Error("a token that another replica minted at that time is not known")
	}

	// Redis goes back to before it was told, and the one who minted it has forgotten it since: nothing can be said of that time.
	if err := s.Client.Del(t.Context(), slotOf(t, s, issued)).Err(); err != nil {
		t.Fatal(err)
	}
	for _, k := range s.Client.Keys(t.Context(), "*").Val() {
		if strings.HasSuffix(k, "minted:at") {
			for field := range s.Client.HGetAll(t.Context(), k).Val() {
				if field != "since" {
					if err := s.Client.HSet(t.Context(), k, field, strconv.FormatInt(issued.UnixMilli(), 10)).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	clock.Add(int64(time.Minute))
	for _, m := range []minter{b, forgot} {
		m.told()
	}
	if !b.is(minted.Forgotten, mine, issued) {
		t.Error("something is said of what nobody remembers")
	}
}

// On a deployment that begins nothing can have been lost: what it mints in its first seconds is known, and what nobody minted is missed.
// Where keys are older, somebody may have minted before Redis lost it.
func TestMintedOfADeploymentThatBeginsIsKnownFromTheFirst(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]minted.Fate{3 * time.Second: minted.Missing, time.Hour: minted.Forgotten} {
		s := startServer(t, false)
		var clock atomic.Int64
		start := time.Now().Truncate(time.Second)
		clock.Store(start.UnixNano())
		now := func() time.Time { return time.Unix(0, clock.Load()) }
		replica := func() minter {
			return minter{open(t, s, "").Minted(minted.NewIndex(start.Add(-minted.Longest)), 3*time.Second, start.Add(-age), now), t}
		}
		a, b := replica(), replica()
		mine, issued := someToken(), now()
		b.told()
		a.Add(mine, issued, issued.Add(10*time.Minute))
		a.told()
		if !b.is(minted.Genuine, mine, issued) || !b.is(minted.Undecided, someToken(), issued) && want == minted.Missing {
			t.Errorf("keys of %s: what was minted at first is not known, or something is said too soon", age)
		}
		clock.Add(int64(time.Minute))
		a.told()
		b.told()
		if !b.is(want, someToken(), issued) {
			t.Errorf("keys of %s: of a token that nobody minted at first it is not said that it is %v", age, want)
		}

		// Redis loses everything: of then nothing can be said, however young the keys are.
		if err := s.Client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		a.told()
		if !a.is(minted.Forgotten, someToken(), issued) {
			t.Errorf("keys of %s: something is said of what Redis lost", age)
		}
	}
}
