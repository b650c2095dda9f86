package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestVerifyDetectsAnyChangedByteOfAClosedLog(t *testing.T) {
	cfg := tamperLog(t)
	list := mustList(t, cfg.Dir)
	original := map[uint64][]byte{}
	for _, first := range list {
		original[first] = readAll(t, cfg.Dir, segmentName(first))
	}
	rapid.Check(t, func(rt *rapid.T) {
		first := rapid.SampledFrom(list).Draw(rt, "segment")
		b := slices.Clone(original[first])
		at := rapid.IntRange(0, len(b)-1).Draw(rt, "offset")
		flip := byte(rapid.IntRange(1, 255).Draw(rt, "flip"))
		b[at] ^= flip
		writeAll(t, cfg.Dir, segmentName(first), b)
		r := mustVerify(t, cfg)
		writeAll(t, cfg.Dir, segmentName(first), original[first])
		if r.OK() {
			rt.Fatalf("byte %d of %s changed from %q to %q: nothing found", at, segmentName(first), original[first][at], b[at])
		}
	})
	wantOK(t, mustVerify(t, cfg))
}

func TestVerifyDetectsAnyChangedByteOfTheHeadOfAClosedLog(t *testing.T) {
	cfg := tamperLog(t)
	original, err := os.ReadFile(cfg.HeadFile)
	if err != nil {
		t.Fatal(err)
	}
	const stride = 13 // the head file has about 900 bytes that say something
	for at := 0; at < len(original); at++ {
		c := original[at]
		if c == ' ' || c == '\n' {
			continue // padding says nothing
		}
		at += stride - 1
		if c = original[at]; c == ' ' || c == '\n' {
			continue
		}
		b := slices.Clone(original)
		b[at] ^= 1
		writeAll(t, filepath.Dir(cfg.HeadFile), "head", b)
		if mustVerify(t, cfg).OK() {
			t.Fatalf("byte %d of the head file changed from %q to %q: nothing found", at, c, b[at])
		}
	}
}

// Two logs signed by one key must not be exchangeable.
func TestVerifyDetectsTheLogOfAnotherReplica(t *testing.T) {
	a, b := tamperLog(t), tamperLog(t)
	if err := os.RemoveAll(a.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.Dir, a.Dir); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, a); r.OK() {
		t.Error("the log of one replica passes with the head of another")
	}
}

func TestOnlyAWitnessSeesLogAndHeadPutBackTogether(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 0, 20)
	mustClose(t, l)
	old, err := os.ReadFile(cfg.HeadFile)
	if err != nil {
		t.Fatal(err)
	}
	before := mustList(t, cfg.Dir)
	l = mustOpen(t, cfg)
	mustAppendSmall(t, l, 20, 40)
	mustClose(t, l)
	head := l.Head()
	good := VerifyOptions{Witness: &Witness{N: head.N, Hash: head.Hash}}
	if r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), good); err != nil || !r.OK() || !r.Witnessed {
		t.Fatalf("with a true witness: %+v %v", r, err)
	}
	lie := VerifyOptions{Witness: &Witness{N: head.N - 1, Hash: head.Hash}}
	if r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), lie); err != nil || r.OK() || r.Witnessed {
		t.Fatalf("with another hash: %+v %v", r, err)
	}
	for _, first := range mustList(t, cfg.Dir)[len(before):] {
		remove(t, cfg.Dir, segmentName(first))
	}
	writeAll(t, filepath.Dir(cfg.HeadFile), "head", old)
	if r := mustVerify(t, cfg); !r.OK() {
		t.Errorf("this is the attack that log and head alone cannot show, yet: %v", r.Findings)
	}
	r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), good)
	if err != nil || r.OK() || r.Findings[0].Kind != KindTruncated {
		t.Errorf("with a witness: %+v %v", r, err)
	}
	if err := errors.Join(os.RemoveAll(cfg.Dir), os.Remove(cfg.HeadFile), os.Mkdir(cfg.Dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), VerifyOptions{}); err == nil {
		t.Error("nothing at all verifies")
	}
	if r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), good); err != nil || r.OK() {
		t.Errorf("nothing at all verifies with a witness: %+v %v", r, err)
	}
}

func TestContradictionIsCarriedUntilAccepted(t *testing.T) {
	cfg := tamperLog(t)
	list := mustList(t, cfg.Dir)
	remove(t, cfg.Dir, segmentName(list[len(list)-1]))
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 100, 110)
	if err := l.Health(); !errors.Is(err, ErrContradiction) {
		t.Errorf("Health after truncation: %v", err)
	}
	mustClose(t, l)
	for range 3 { // orderly restarts do not make it forgotten
		l = mustOpen(t, cfg)
		if err := l.Health(); !errors.Is(err, ErrContradiction) {
			t.Errorf("Health after a restart: %v", err)
		}
		mustClose(t, l)
	}
	l = mustOpen(t, cfg)
	if err := l.Accept(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := l.Health(); err != nil {
		t.Errorf("Health after Accept: %v", err)
	}
	mustClose(t, l)
	l = mustOpen(t, cfg)
	if err := l.Health(); err != nil {
		t.Errorf("Health after Accept and a restart: %v", err)
	}
	mustClose(t, l)
	recovered := records(t, cfg.Dir, TypeRecovered)
	if len(recovered) != 1 || recovered[0].Recovered.Missing == 0 || recovered[0].Recovered.Conflict == "" {
		t.Fatalf("recovered records: %+v", recovered)
	}
	r := mustVerify(t, cfg)
	if !r.OK() || len(r.Findings) != 1 || !r.Findings[0].Accepted || r.Findings[0].Kind != KindReported {
		t.Errorf("report after Accept: %+v", r.Findings)
	}
	if a := records(t, cfg.Dir, TypeAccepted); len(a) != 1 || a[0].Accepted.By != "alice" || a[0].Accepted.Recovered != recovered[0].N {
		t.Errorf("accepted records: %+v", a)
	}
}

func TestKeyCanBeReplaced(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 0, 20)
	mustClose(t, l)
	cfg.Signer, cfg.OldKeys = testKey(1), append(cfg.OldKeys, testPublic())
	l = mustOpen(t, cfg)
	mustAppendSmall(t, l, 20, 40)
	if err := l.Health(); err != nil {
		t.Error(err)
	}
	mustClose(t, l)
	r, err := Verify(cfg.Dir, cfg.HeadFile, testKey(1).Public().(ed25519.PublicKey), VerifyOptions{OldKeys: cfg.OldKeys})
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, r)
	if r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), VerifyOptions{}); err != nil || r.OK() {
		t.Errorf("with the old key alone: %+v %v", r, err)
	}
}

func TestVerifyWorksWhileTheServerWrites(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = smallestSegment
	l := mustOpen(t, cfg)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := l.Append(t.Context(), small(i)); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	for range 30 {
		wantOK(t, mustVerify(t, cfg))
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	<-done
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
}

func TestVerifyNeverHoldsMoreThanALine(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	mustAppendSmall(t, l, 0, 5)
	mustClose(t, l)
	name := segmentName(1)
	writeAll(t, cfg.Dir, name, append(readAll(t, cfg.Dir, name), strings.Repeat("x", 10*MaxLine)...))
	if r := mustVerify(t, cfg); r.OK() {
		t.Error("a line without end passes")
	}
}

// A power cut may tear the head that was being written. The other one stands.
func TestTornHeadIsNoTamperingUnlessTheLogWasClosed(t *testing.T) {
	root := t.TempDir()
	cfg := testConfig(root)
	p := start(t, Process, root, 0)
	eventually(t, func() error { // both slots are written
		slots, err := readHeads(Disk{}, cfg.HeadFile, keyring{KeyID(testPublic()): testPublic()})
		if err == nil && (!slots[0].valid || !slots[1].valid) {
			err = errors.New("a slot is empty")
		}
		return err
	})
	p.kill()
	spoil := func() {
		b, err := os.ReadFile(cfg.HeadFile)
		if err != nil {
			t.Fatal(err)
		}
		slots, err := readHeads(Disk{}, cfg.HeadFile, keyring{KeyID(testPublic()): testPublic()})
		if err != nil || !slots[0].valid || !slots[1].valid {
			t.Fatalf("slots: %+v %v", slots, err)
		}
		i := newest(slots)
		copy(b[i*slotSize+100:(i+1)*slotSize], bytes.Repeat([]byte{0}, slotSize))
		writeAll(t, root, "head", b)
	}
	spoil()
	r := mustVerify(t, cfg)
	wantOK(t, r)
	// The kill may have cut a line short as well.
	if !slices.ContainsFunc(r.Tails, func(tail Tail) bool { return tail.File == "head" }) {
		t.Errorf("tails: %+v", r.Tails)
	}
	l := mustOpen(t, cfg)
	if err := l.Health(); err != nil {
		t.Error(err)
	}
	mustClose(t, l)
	wantOK(t, mustVerify(t, cfg))
	spoil()
	if r := mustVerify(t, cfg); r.OK() || r.Findings[0].Kind != KindHead {
		t.Errorf("after an orderly close: %+v", r.Findings)
	}
}
