package audit

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

// agedLog writes four days, one session a day, two hours of records each, and returns the log opened on the fifth.
func agedLog(t *testing.T) (Config, *fakeClock, *Log) {
	t.Helper()
	clock := &fakeClock{}
	clock.advance(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Sub(clock.now()))
	cfg := testConfig(t.TempDir())
	cfg.Now, cfg.Keep = clock.now, 48*time.Hour
	for day := range 4 {
		l := mustOpen(t, cfg)
		mustAppendSmall(t, l, day*100, day*100+20)
		mustClose(t, l)
		clock.advance(24 * time.Hour)
	}
	return cfg, clock, mustOpen(t, cfg)
}

func TestRetentionRemovesOldSegmentsAndSaysSo(t *testing.T) {
	cfg, clock, l := agedLog(t)
	mustPrune(t, l, clock.now())
	mustAppendSmall(t, l, 500, 510)
	mustClose(t, l)
	r := mustVerify(t, cfg)
	wantOK(t, r)
	pruned := records(t, cfg.Dir, TypePruned)
	if len(pruned) != 1 || r.FirstN == 1 || pruned[0].Pruned.First != r.FirstN || r.Pruned != r.FirstN-1 {
		t.Fatalf("pruned %+v, report %+v", pruned, r)
	}
	found := decisions(t, cfg.Dir)
	for i, want := range map[int]int{0: 0, 100: 0, 200: 1, 300: 1, 500: 1} { // days 1 and 2 are more than 48 hours old
		if found[decisionID(i)] != want {
			t.Errorf("decision %d stands there %d times, want %d", i, found[decisionID(i)], want)
		}
	}
	// The log goes on, and prunes again.
	clock.advance(24 * time.Hour)
	l = mustOpen(t, cfg)
	mustPrune(t, l, clock.now())
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}

func TestNothingIsRemovedWithoutKeep(t *testing.T) {
	cfg, clock, l := agedLog(t)
	l.cfg.Keep = 0
	before := mustList(t, cfg.Dir)
	mustPrune(t, l, clock.now())
	if !slices.Equal(before, mustList(t, cfg.Dir)) {
		t.Error("segments were removed")
	}
}

func TestVerifyAllowsExactlyWhatRetentionRemoved(t *testing.T) {
	cfg, clock, l := agedLog(t)
	mustPrune(t, l, clock.now())
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
	remove(t, cfg.Dir, segmentName(mustList(t, cfg.Dir)[0]))
	if r := mustVerify(t, cfg); r.OK() || r.Findings[0].Kind != KindMissing {
		t.Errorf("one segment more was removed: %+v", r.Findings)
	}
}

func TestInterruptedRetentionIsNoTampering(t *testing.T) {
	cfg, clock, l := agedLog(t)
	second := mustList(t, cfg.Dir)[1]
	b := readAll(t, cfg.Dir, segmentName(second))
	mustPrune(t, l, clock.now())
	mustClose(t, l)
	writeAll(t, cfg.Dir, segmentName(second), b) // as if the power had gone before it was removed
	wantOK(t, mustVerify(t, cfg))
	l = mustOpen(t, cfg)
	mustPrune(t, l, clock.now())
	mustClose(t, l)
	if mustList(t, cfg.Dir)[0] <= second {
		t.Error("the next time did not remove what was left over")
	}
	wantOK(t, mustVerify(t, cfg))
}

// The attack: whoever can write the disk makes a young segment look old, hash and all, and retention removes for
// him, with our signature, what he could not.
func TestRetentionCannotBeTrickedIntoRemovingYoungSegments(t *testing.T) {
	cfg, clock, l := agedLog(t)
	list := mustList(t, cfg.Dir)
	last := list[3]
	lines := bytes.SplitAfter(readAll(t, cfg.Dir, segmentName(last)), []byte("\n"))
	lines[0] = bytes.Replace(lines[0], []byte(`"time":"2026`), []byte(`"time":"2020`), 1)
	before := lastHash(t, cfg.Dir, list[2])
	forged, _, _ := rechain(lines, before, last-1)
	writeAll(t, cfg.Dir, segmentName(last), bytes.Join(forged, nil))
	asKeeper(l, func() {
		if err := l.prune(clock.now()); !errors.Is(err, ErrContradiction) {
			t.Errorf("prune: %v", err)
		}
	})
	if got := mustList(t, cfg.Dir); !slices.Equal(got, list) {
		t.Errorf("segments %v are left of %v", got, list)
	}
	asKeeper(l, func() { l.retain(settled(l)) })
	if err := l.Health(); !errors.Is(err, ErrContradiction) {
		t.Errorf("Health: %v", err)
	}
}

// settled is what the keeper knows of the clocks when they are in step.
func settled(l *Log) *clock {
	var c clock
	_ = c.stepped(l.cfg.Now())
	return &c
}

// asKeeper does what only the keeper may, while it rests.
func asKeeper(l *Log, do func()) {
	close(l.stop)
	l.running.Wait()
	do()
	l.stop = make(chan struct{})
	l.running.Go(l.syncLoop)
	l.running.Go(l.keepLoop)
	l.wake(l.wakeSync)
	l.wake(l.wakeKeep)
}

func mustPrune(t *testing.T, l *Log, now time.Time) {
	t.Helper()
	asKeeper(l, func() {
		if err := l.prune(now); err != nil {
			t.Fatal(err)
		}
	})
}

func lastHash(t *testing.T, dir string, first uint64) sum {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(readAll(t, dir, segmentName(first)), []byte("\n")), []byte("\n"))
	var e entry
	if !e.parse(lines[len(lines)-1]) {
		t.Fatal("not a line")
	}
	return e.stated
}

// The attack: after a kill, delete segments and forge a pruned record in the last milliseconds that no head covers.
func TestPrunedRecordCannotBeForged(t *testing.T) {
	cfg, _, l := agedLog(t)
	head, err := os.ReadFile(cfg.HeadFile)
	if err != nil {
		t.Fatal(err)
	}
	list := mustList(t, cfg.Dir)
	image := readAll(t, cfg.Dir, segmentName(list[4])) // the session that was killed: opened, and nothing else
	mustClose(t, l)
	writeAll(t, cfg.Dir, segmentName(list[4]), image)
	if err := os.WriteFile(cfg.HeadFile, head, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOK(t, mustVerify(t, cfg))
	name, lines, prev, n := lastLines(t, cfg.Dir)
	s, err := newSigner(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	p := &Pruned{First: list[3], Prev: lastHash(t, cfg.Dir, list[2]).String(), Key: KeyID(testPublic())}
	if p.Sig, err = s.sign(p.payload(mustVerify(t, cfg).Log)); err != nil {
		t.Fatal(err)
	}
	e := encoder{}
	e.record(&Record{N: 1, Type: TypePruned, Pruned: p})
	forged, _, _ := rechain([][]byte{append([]byte(prev.String()+" "), append(e.b, '\n')...)}, prev, n)
	writeAll(t, cfg.Dir, name, bytes.Join(append(lines, forged...), nil))
	for _, first := range list[:3] {
		remove(t, cfg.Dir, segmentName(first))
	}
	for _, opened := range []bool{false, true} {
		if r := mustVerify(t, cfg); r.OK() {
			t.Errorf("opened %t: a forged pruned record covers the deletion", opened)
		}
		mustClose(t, mustOpen(t, cfg))
	}
}

func TestClockThatJumpsDoesNotRemoveTheLog(t *testing.T) {
	cfg, clk, l := agedLog(t)
	before := mustList(t, cfg.Dir)
	c := settled(l)
	clk.advance(10 * 365 * 24 * time.Hour)
	asKeeper(l, func() { l.retain(c) })
	if got := mustList(t, cfg.Dir); !slices.Equal(got, before) {
		t.Errorf("segments %v are left of %v", got, before)
	}
	asKeeper(l, func() { l.retain(c) }) // the clock is right after all
	if got := mustList(t, cfg.Dir); len(got) >= len(before) {
		t.Error("nothing is removed when the clock has settled")
	}
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}
