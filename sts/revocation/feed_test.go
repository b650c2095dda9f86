package revocation

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// silent is a log that keeps nothing.
type silent struct{ n uint64 }

func (l *silent) Append(context.Context, Entry) (Position, error) {
	l.n++
	return Position{Epoch: 1, N: l.n}, nil
}
func (l *silent) Load(context.Context, func(Position, Entry) error) (Position, error) {
	return Position{Epoch: 1}, nil
}
func (l *silent) Prune(context.Context, time.Time) (int, error) { return 0, nil }

func newSet(t testing.TB) *Set {
	t.Helper()
	s, err := New(t.Context(), new(silent), []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asText is news as it travels.
func asText(t testing.TB, n News) News {
	t.Helper()
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var out News
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// leaseName is an id of the shape that leases have.
func leaseName(n int) string {
	var k id
	k[3], k[15] = byte(n), byte(n>>8)
	return nameOf(k)
}

// Whoever follows the news, from the start or from everything that is in force, decides as the set does, in whatever order it
// hears: the model is the set itself.
func TestCopyDecidesAsTheSet(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	rapid.Check(t, func(rt *rapid.T) {
		s, early := newSet(t), NewCopy()
		var at uint64
		hear := func(c *Copy, from uint64) uint64 {
			list, last, ok := s.News(from)
			if !ok {
				rt.Fatalf("news after %d are gone", from)
			}
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for _, n := range list {
				if err := c.Add(asText(t, n)); err != nil {
					rt.Fatal(err)
				}
			}
			return last
		}
		value := rapid.IntRange(0, 2)
		var decisions []string
		facts := func() (Facts, []Digest) {
			f := Facts{Lease: leaseName(value.Draw(rt, "lease"))}
			for range value.Draw(rt, "ancestors") {
				f.Ancestors = append(f.Ancestors, leaseName(value.Draw(rt, "ancestor")))
			}
			for range 1 + value.Draw(rt, "parts") {
				p := Part{At: Position{1, uint64(rapid.IntRange(0, 6).Draw(rt, "at"))}}
				for _, key := range []string{KeySubject, KeyTarget, KeyToken} {
					p.Terms = append(p.Terms, s.Hasher().Term(key, fmt.Sprint(value.Draw(rt, key))))
				}
				f.Parts = append(f.Parts, p)
			}
			own := Own("https://sts", f.Lease, fmt.Sprint(value.Draw(rt, "own")), "k"+fmt.Sprint(value.Draw(rt, "kid")))
			return f, own
		}
		for range rapid.IntRange(1, 8).Draw(rt, "entries") {
			e := Entry{Decision: fmt.Sprint("d", len(decisions)), At: now, Until: now.Add(time.Hour)}
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0:
				e.Lease = leaseName(value.Draw(rt, "dead"))
			case 1:
				if len(decisions) > 0 {
					e.Lifts = rapid.SampledFrom(decisions).Draw(rt, "lifts")
				}
			case 2:
				e.Selector = Selector{KeyToken + "=" + fmt.Sprint(value.Draw(rt, "token"))}
			case 3:
				e.Selector = Selector{KeySigningKey + "=k" + fmt.Sprint(value.Draw(rt, "key"))}
			case 4:
				e.Selector, e.Lock = Selector{KeySubject + "=" + fmt.Sprint(value.Draw(rt, "locked"))}, true
			}
			if e.Lease == "" && e.Lifts == "" && e.Selector == nil {
				e.Selector = Selector{KeySubject + "=" + fmt.Sprint(value.Draw(rt, "s")), KeyTarget + "=" + fmt.Sprint(value.Draw(rt, "t"))}
			}
			if _, _, err := s.Revoke(t.Context(), e); err != nil {
				rt.Fatal(err)
			}
			decisions = append(decisions, e.Decision)
			if rapid.Bool().Draw(rt, "hears") {
				at = hear(early, at)
			}
		}
		hear(early, at)
		late := NewCopy()
		var all []News
		if _, err := s.Everything(now, func(n News) error { all = append(all, asText(t, n)); return nil }); err != nil {
			rt.Fatal(err)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, n := range all {
			if err := late.Add(n); err != nil {
				rt.Fatal(err)
			}
		}
		for range 8 {
			f, own := facts()
			// The set sees what the token is by itself under the key; whoever verifies sees it without.
			withKey := f
			withKey.Parts = append([]Part{}, f.Parts...)
			withKey.Parts[0].Terms = append(append([]Digest{}, f.Parts[0].Terms...), keyed(s, own, f)...)
			open := f
			open.Parts = append([]Part{}, f.Parts...)
			open.Parts[0].Terms = append(append([]Digest{}, f.Parts[0].Terms...), own...)
			_, want := s.Dead(withKey)
			if got := early.Dead(open); got != want {
				rt.Fatalf("who heard one by one says dead: %v, the set %v; %+v", got, want, f)
			}
			if got := late.Dead(open); got != want {
				rt.Fatalf("who was told everything says dead: %v, the set %v; %+v", got, want, f)
			}
		}
	})
}

// keyed is what Own says, under the key: by trying all that the test draws from.
func keyed(s *Set, own []Digest, f Facts) (out []Digest) {
	for n := range 3 {
		for i, term := range []string{KeyToken + "=" + fmt.Sprint(n), KeyJTI + "=https://sts/" + f.Lease, KeySigningKey + "=k" + fmt.Sprint(n)} {
			if public.digest(term) == own[i] {
				out = append(out, s.Hasher().digest(term))
			}
		}
	}
	return out
}

// A reader that comes back is told what it missed, or that it missed too much; never a part.
func TestNewsAreToldWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	for i := range feedKept + 10 {
		s.feed.tell([]News{{Lease: leaseName(i)}})
	}
	for _, tc := range []struct {
		from uint64
		ok   bool
		n    int
	}{{0, false, 0}, {9, false, 0}, {10, true, feedKept}, {feedKept + 9, true, 1}, {feedKept + 10, true, 0}, {feedKept + 11, false, 0}} {
		list, last, ok := s.News(tc.from)
		if ok != tc.ok || len(list) != tc.n || last != feedKept+10 {
			t.Errorf("after %d: %d news up to %d, %v; want %d, %v", tc.from, len(list), last, ok, tc.n, tc.ok)
		}
		for i, n := range list {
			if n.Lease != leaseName(int(tc.from)+i) {
				t.Fatalf("after %d: news %d is another's", tc.from, i)
			}
		}
	}
	woken := make(chan struct{})
	go func() { s.Wait(t.Context(), feedKept+10); close(woken) }()
	s.feed.tell([]News{{Lease: leaseName(1)}})
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Error("nobody is woken by news")
	}
}

// What a revocation with a moment kills is what was decided before it, as far as is known; who follows the news decides the same.
func TestMomentDividesForSetAndCopy(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	moment := time.Unix(1_800_000_000, 0)
	e := Entry{Selector: Selector{"attr.team=shop"}, Decision: "d", At: moment.Add(time.Hour), Before: moment, Until: moment.Add(24 * time.Hour)}
	at := s.Position()
	if _, _, err := s.Revoke(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	c := NewCopy()
	if _, err := s.Everything(moment, func(n News) error { return c.Add(asText(t, n)) }); err != nil {
		t.Fatal(err)
	}
	terms := []Digest{s.Hasher().Term("attr.team", "shop")}
	for name, tc := range map[string]struct {
		part Part
		dead bool
	}{
		"decided before":         {Part{At: at, Decided: moment.Add(-time.Minute), Terms: terms}, true},
		"decided at it":          {Part{At: at, Decided: moment, Terms: terms}, true},
		"within the clocks":      {Part{At: at, Decided: moment.Add(issuedSkew), Terms: terms}, true},
		"decided after":          {Part{At: at, Decided: moment.Add(issuedSkew + time.Second), Terms: terms}, false},
		"nobody knows when":      {Part{At: at, Terms: terms}, true},
		"before, and of another": {Part{At: at, Decided: moment.Add(-time.Minute), Terms: []Digest{1}}, false},
		"after the revocation":   {Part{At: s.Position(), Decided: moment.Add(-time.Minute), Terms: terms}, false},
		"issued before":          {Part{Platform: true, Issued: moment.Add(-time.Minute), Terms: terms}, true},
		"issued after":           {Part{Platform: true, Issued: moment.Add(time.Minute), Terms: terms}, false},
		"issued nobody knows":    {Part{Platform: true, Terms: terms}, true},
	} {
		parts := []Part{tc.part}
		if !tc.part.Platform { // as a token carries it
			again, err := DecodePart(tc.part.Encode())
			if err != nil {
				t.Fatal(err)
			}
			parts[0] = again
		}
		if _, dead := s.Dead(Facts{Parts: parts}); dead != tc.dead {
			t.Errorf("%s: dead %v, want %v", name, dead, tc.dead)
		}
		if dead := c.Dead(Facts{Parts: parts}); !tc.part.Platform && dead != tc.dead { // it is of tokens of ours
			t.Errorf("%s: to who follows it is dead %v, want %v", name, dead, tc.dead)
		}
	}
	for _, bad := range []Entry{
		{Lease: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Before: moment, Until: e.Until},
		{Selector: e.Selector, Lock: true, Decision: "l", Before: moment, Until: e.Until},
	} {
		if _, _, err := s.Revoke(t.Context(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	for _, bad := range []string{"1.2@:AAAA", "1.2@-1:AAAA", "1.2@zz z:AAAA", "1.2@0:AAAA"} {
		if p, err := DecodePart(bad); err == nil {
			t.Errorf("%s is %+v", bad, p)
		}
	}
}

// Of two terms one may be what a token is itself, and the other what it was exchanged from: who follows the feed calls it dead as the
// server does.
func TestTermsOfATokenItselfAndOfItsParentAddUpForReaders(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	h := s.Hasher()
	parentFP := "aa"
	at := s.Position()
	carried := []Digest{h.Term(KeySubject, "w"), h.Term(KeyToken, parentFP)}
	server := Facts{Lease: leaseName(1), Parts: []Part{{At: at, Terms: append(append([]Digest{}, carried...), h.Term(KeySigningKey, "K"), h.Term(KeyToken, "own"), h.Term(KeyJTI, "https://sts/"+leaseName(1)))}}}
	reader := Facts{Lease: leaseName(1), Parts: []Part{{At: at, Terms: append(append([]Digest{}, carried...), Own("https://sts", leaseName(1), "own", "K")...)}}}
	now := time.Now()
	if _, _, err := s.Revoke(t.Context(), Entry{Selector: Selector{KeySigningKey + "=K", KeyToken + "=" + parentFP}, Decision: "d", At: now, Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	c := NewCopy()
	if _, err := s.Everything(now, func(n News) error { return c.Add(asText(t, n)) }); err != nil {
		t.Fatal(err)
	}
	if _, dead := s.Dead(server); !dead {
		t.Fatal("premise: the server calls it dead")
	}
	if !c.Dead(reader) {
		t.Error("the server calls it dead, a fresh reader of the feed calls it alive")
	}
}
