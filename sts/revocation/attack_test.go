package revocation_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// late is a log that holds the answer to one append back, when it is durable already.
type late struct {
	memory
	hold map[string]chan struct{}
}

func (l *late) Append(ctx context.Context, e revocation.Entry) (revocation.Position, error) {
	p, err := l.memory.Append(ctx, e)
	if c := l.hold[e.Decision]; c != nil {
		c <- struct{}{}
		<-c
	}
	return p, err
}

func selecting(decision string, terms ...string) revocation.Entry {
	return revocation.Entry{Selector: terms, Decision: decision, At: time.Unix(1000, 0), Until: time.Unix(2000, 0)}
}

// Of two revocations at once the second may be in force first. What is decided then was decided before the first.
func TestPositionNeverPassesARevocationThatIsNotInForceYet(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := newSet(t, &late{hold: map[string]chan struct{}{"first": hold}})
	done := make(chan error)
	go func() {
		_, _, err := s.Revoke(context.Background(), selecting("first", "subject=x"))
		done <- err
	}()
	<-hold // durable, and not in force
	if _, _, err := s.Revoke(context.Background(), selecting("second", "subject=y")); err != nil {
		t.Fatal(err)
	}
	minted := revocation.Facts{Parts: []revocation.Part{{At: s.Position(), Terms: []revocation.Digest{s.Hasher().Term("subject", "x")}}}}
	if _, dead := s.Dead(minted); dead {
		t.Fatal("the first is in force: the test shows nothing")
	}
	hold <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, dead := s.Dead(minted); !dead {
		t.Errorf("what was decided at %v before a revocation was in force lives on", minted.Parts[0].At)
	}
	if p := s.Position(); p.N != 2 {
		t.Errorf("both are in force, and the position is %v", p)
	}
}

// An entry that is none of those that this program knows is not passed over and ends no replica: it may kill anything, so nothing
// is served.
func TestEntryOfNoKnownKindIsRefusedAndNotPassedOver(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]revocation.Entry{
		"nothing that it names":    {Decision: "d", At: time.Unix(1000, 0), Until: time.Unix(2000, 0)},
		"a lease and a selector":   {Decision: "d", Lease: "l", Selector: revocation.Selector{"subject=x"}},
		"a selector without an id": {Selector: revocation.Selector{"subject=x"}},
	} {
		s := newSet(t, new(memory))
		if err := s.Learn(context.Background(), []revocation.Entry{e}); err == nil {
			t.Errorf("%s: learned", name)
		}
		if _, err := revocation.New(context.Background(), &memory{entries: []revocation.Entry{e}}, mac); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

// A revocation that names one token is about that token, whatever the clock of its issuer said.
func TestRevocationOfOneTokenIsNotAboutTime(t *testing.T) {
	t.Parallel()
	for _, key := range []string{revocation.KeyToken, revocation.KeyJTI} {
		s := newSet(t, new(memory))
		e := selecting("d", key+"=x")
		if _, _, err := s.Revoke(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		stolen := revocation.Part{Platform: true, Issued: e.At.Add(25 * time.Second), Terms: []revocation.Digest{s.Hasher().Term(key, "x")}}
		if _, dead := s.Dead(revocation.Facts{Parts: []revocation.Part{stolen}}); !dead {
			t.Errorf("%s: a token of an issuer whose clock is ahead lives although it is named", key)
		}
	}
}

// Revocations of many tokens of one issuer, each named with its issuer, do not make every decision about that issuer go through
// all of them, nor forgetting them.
func TestManyRevocationsThatShareATermDoNotStandUnderIt(t *testing.T) {
	t.Parallel()
	s := newSet(t, new(memory))
	const n = 500
	for i := range n {
		if _, _, err := s.Revoke(context.Background(), selecting(fmt.Sprint("d", i), "issuer=prod.example/ci", fmt.Sprint("token=", i))); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Longest(); got > 2 {
		t.Errorf("%d of %d stand under one term", got, n)
	}
	for i := range n {
		terms := []revocation.Digest{s.Hasher().Term("issuer", "prod.example/ci"), s.Hasher().Term("token", fmt.Sprint(i))}
		if _, dead := s.Dead(revocation.Facts{Parts: []revocation.Part{{Terms: terms}}}); !dead {
			t.Fatalf("%d is not found", i)
		}
	}
	if err := s.Prune(context.Background(), time.Unix(3000, 0)); err != nil || s.Len() != 0 || s.Longest() != 0 {
		t.Errorf("after their time %d are left, %d under one term (%v)", s.Len(), s.Longest(), err)
	}
}

// A lock refuses until its end, also when it was not forgotten yet: neither on a replica that has started since nor before the next
// pruning. What it was placed after stays dead.
func TestLockEndsWhenItIsSaidTo(t *testing.T) {
	t.Parallel()
	now := time.Unix(1500, 0)
	lock := selecting("l", "subject=x")
	lock.Lock = true
	log := &memory{entries: []revocation.Entry{lock}}
	for name, s := range map[string]*revocation.Set{"one that runs": newSet(t, new(memory)), "one that starts": newSet(t, log)} {
		s.Clock(func() time.Time { return now })
		if name == "one that runs" {
			if _, _, err := s.Revoke(context.Background(), lock); err != nil {
				t.Fatal(err)
			}
		}
		at := func(n uint64) revocation.Facts {
			return revocation.Facts{Parts: []revocation.Part{{At: revocation.Position{Epoch: 1, N: n}, Terms: []revocation.Digest{s.Hasher().Term("subject", "x")}}}}
		}
		later := at(5)
		for _, tc := range []struct {
			now    time.Time
			stands bool
		}{{time.Unix(1500, 0), true}, {time.Unix(2000, 0), true}, {time.Unix(2001, 0), false}} {
			now = tc.now
			e, dead := s.Dead(later)
			if dead != tc.stands || dead && !e.Lock || len(s.Locks(now)) > 0 != tc.stands {
				t.Errorf("%s, at %v: it refuses: %v, listed: %d; want %v", name, now, dead, len(s.Locks(now)), tc.stands)
			}
			if e, dead := s.Dead(at(0)); !dead || e.Lock != tc.stands {
				t.Errorf("%s, at %v: what was before it is dead: %v, by a lock: %v", name, now, dead, e.Lock)
			}
		}
		now = time.Unix(1500, 0)
	}
}
