package audit

import (
	"context"
	"time"
)

// keepLoop does what is not urgent: signed heads, counts of junk, repair, retention.
func (l *Log) keepLoop() {
	var k keeper
	k.pruned, k.counted = time.Now(), time.Now()
	_ = k.clock.stepped(l.cfg.Now())
	timer := time.NewTimer(pruneEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.stop:
			return
		case s := <-l.junk.samples:
			l.writeSample(s)
			continue
		case <-l.wakeKeep:
		case <-timer.C:
		}
		timer.Reset(l.chores(&k))
	}
}

// keeper is when each chore was last done.
type keeper struct {
	head, line, counted, pruned, repaired time.Time
	clock                                 clock
}

// due reports whether a chore last done at t is due; else soonest is told when it will be.
func due(t time.Time, every time.Duration, soonest *time.Duration) bool {
	left := every - time.Since(t)
	if left > 0 {
		*soonest = min(*soonest, left)
	}
	return left <= 0
}

// chores does what is due and returns when to come again.
func (l *Log) chores(k *keeper) time.Duration {
	soonest := pruneEvery
	if l.isBroken() {
		if due(k.repaired, retryEvery, &soonest) {
			_ = l.repair() // Health says why it is still broken
			k.repaired = time.Now()
			soonest = min(soonest, retryEvery)
		}
		if l.isBroken() {
			return soonest
		}
	}
	l.mu.Lock()
	synced, signed, lines, faulty := l.synced, l.signed.N, l.counts.sinceHead, l.faults.head != nil
	l.mu.Unlock()
	if (synced.n > signed || faulty) && due(k.head, headEvery, &soonest) {
		k.head = time.Now()
		if l.writeHead(synced, false) != nil {
			soonest = min(soonest, retryEvery)
		}
	}
	if lines > 0 && due(k.line, headLineEvery, &soonest) {
		k.line = time.Now()
		_ = l.append(context.Background(), l.headRecord(), false) // the next one says more
	}
	if l.junk.pending() && due(k.counted, junkEvery, &soonest) {
		k.counted = time.Now()
		l.flushJunk()
	}
	if due(k.pruned, pruneEvery, &soonest) {
		k.pruned = time.Now()
		l.retain(&k.clock)
		soonest = min(soonest, pruneEvery)
	}
	return soonest
}

func (l *Log) isBroken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken != nil
}

// writeHead signs what is synced and puts it into the head file. Only one goroutine may call it.
func (l *Log) writeHead(at position, closed bool) error {
	mark := at.mark()
	l.mu.Lock()
	suspect := l.suspect
	l.mu.Unlock()
	h := Head{
		Log: l.id, N: mark.N, Hash: mark.Hash, Time: l.cfg.Now().UTC(),
		Segment: at.segment, Offset: at.offset, Closed: closed, Suspect: suspect, Key: l.signer.id,
	}
	sig, err := l.signer.sign(h.payload())
	h.Sig = sig
	signed := err == nil
	if signed {
		err = l.heads.write(h)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if signed {
		l.signed = h // it goes into the chain, even when the head file cannot be written
	}
	switch {
	case err == nil:
		l.faults.head = nil
	case l.faults.head == nil:
		l.faults.head, l.faults.headSince = err, time.Now()
	}
	return err
}

// headRecord puts the newest head into a record of the chain.
func (l *Log) headRecord() *Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.sinceHead = 0
	h := l.signed
	return &Record{Type: TypeHead, Head: &h}
}

func (l *Log) headMark() Mark {
	h := l.Head()
	return Mark{N: h.N, Hash: h.Hash, Time: h.Time}
}

// Head returns the newest signed head, for a witness elsewhere. It says only what was synced.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.signed
}

// appendSynced appends and syncs, itself: it works while the log closes.
func (l *Log) appendSynced(rec *Record) error {
	if err := l.append(context.Background(), rec, false); err != nil {
		return err
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	return l.syncNow()
}
