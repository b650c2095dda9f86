package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"
)

// Log is one audit log, open for writing. Its methods may be called concurrently.
type Log struct {
	cfg     Config
	signer  signer
	keys    keyring
	id      string // of the log
	lock    io.Closer
	lines   lines
	started time.Time // monotonic
	space   space
	junk    junk

	// syncMu is held by whoever syncs, ends a segment or begins one. It is taken before mu.
	syncMu sync.Mutex
	heads  *headFile // used by the keeper, and by Open and Close when it does not run

	mu      sync.Mutex
	hasher  hash.Hash
	file    File // current segment
	first   uint64
	began   time.Time // of the segment, monotonic
	full    bool      // nothing more is put into the segment
	end     position  // of the last record written
	synced  position  // of the last record known to be on the disk
	pending []byte    // lines after synced, to be written again should their sync fail
	dirty   time.Time // when the oldest line was written that no running sync covers; zero: none
	syncing time.Time // the same, for the running sync
	waiting *round    // who waits for the next sync
	broken  *breakage // why nothing can be written until a new segment was begun
	closed  bool      // by its user; the log itself may still write
	ended   bool      // nothing may be written any more
	suspect uint64    // recovered record whose contradiction nobody has accepted
	signed  Head      // newest
	faults  faults
	counts  counters

	wakeSync, wakeKeep chan struct{}
	stop               chan struct{}
	running            sync.WaitGroup
}

// position is the end of one record.
type position struct {
	n       uint64
	hash    sum
	time    time.Time
	segment uint64
	offset  int64
}

func (p position) mark() Mark {
	m := Mark{N: p.n, Time: p.time.UTC()}
	if p.n > 0 {
		m.Hash = p.hash.String()
	}
	return m
}

// Open opens the log in cfg.Dir, or begins one, and begins a new segment. After an unclean end it looks at
// what stands after the newest signed head and leaves a recovered record; see there. A log that contradicts its
// head is opened all the same, because an attacker who can spoil a file must not be able to stop the
// service: the recovered record says what is wrong, [Verify] reports it, and [Log.Health] carries it, over
// restarts too, until [Log.Accept]. Errors: [ErrLocked], a bad Config, or a disk that cannot be used, as one
// without room for a first record.
//
// The caller calls Close.
func Open(cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := newSigner(cfg.Signer)
	if err != nil {
		return nil, err
	}
	keys, err := newKeyring(append([]ed25519.PublicKey{cfg.Signer.Public().(ed25519.PublicKey)}, cfg.OldKeys...)...)
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, signer: s, keys: keys,
		started:  time.Now(),
		hasher:   sha256.New(),
		wakeSync: make(chan struct{}, 1),
		wakeKeep: make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("making the audit directory: %w", err)
	}
	if l.lock, err = cfg.FS.Lock(cfg.Dir); err != nil {
		return nil, err
	}
	l.measure()
	if err := l.begin(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	l.running.Go(l.syncLoop)
	l.running.Go(l.keepLoop)
	return l, nil
}

// begin looks at what there is, writes the first records of a new segment and signs them.
func (l *Log) begin() error {
	found, err := l.inspect()
	if err != nil {
		return err
	}
	l.id = found.log
	if l.heads, err = openHeadFile(l.cfg.FS, l.cfg.HeadFile, found.slot); err != nil {
		return err
	}
	if l.id == "" {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails (crypto/rand since Go 1.24)
		l.id = hex.EncodeToString(id[:])
		// A head that says "nothing yet" stands before the first record, so that a log without a head
		// is a log whose head was removed.
		if err := l.writeHead(position{}, false); err != nil {
			return err
		}
	}
	l.suspect = found.suspect
	now := l.cfg.Now()
	opened := &Record{Type: TypeOpened, Time: now, Opened: &Opened{Key: l.signer.id}}
	records := []*Record{opened}
	if found.recovered != nil {
		records = []*Record{{Type: TypeRecovered, Time: now, Recovered: found.recovered}, opened}
		if found.recovered.Conflict != "" {
			l.suspect = found.next
		}
	}
	if err := l.beginSegment(found.next, found.last.hash, records, nil); err != nil {
		return err
	}
	if err := l.prepareJunk(); err != nil {
		return err
	}
	return l.writeHead(l.synced, false)
}

// Append writes one record and gives it its number (rec.N; a record that has to be written again after a
// failed sync gets another). It returns nil when the record is as durable as the log promises; on any
// error the caller must issue nothing, though the record may have been written. Errors: ctx's, when it ends
// before the sync that the record waits for; [ErrUnavailable], which goes away by itself; a record that is
// not the caller's to write, or longer than MaxLine. rec is not kept.
func (l *Log) Append(ctx context.Context, rec *Record) error {
	switch rec.Type {
	case TypeExchange, TypeIntrospection, TypeReceipt, TypeAdmin, TypeKeys, TypeConfig:
		if err := l.room(); err != nil {
			return err
		}
	case TypeRevocation: // may use the reserve
	default:
		return fmt.Errorf("audit: a record of type %q is not the caller's to write", rec.Type)
	}
	return l.append(ctx, rec, l.cfg.Durability == Machine)
}

// append writes a record of any type, and waits for its sync if told so or when the loss after a power cut
// would exceed what is promised.
func (l *Log) append(ctx context.Context, rec *Record, wait bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if rec.Time.IsZero() {
		rec.Time = l.cfg.Now()
	}
	line := l.lines.take()
	defer l.lines.give(line)
	if err := line.encode(rec); err != nil {
		return err
	}
	n, r, err := l.write(line, rec, wait)
	if err != nil {
		return err
	}
	rec.N = n
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the sync of audit record %d: %w", n, ctx.Err())
	}
}

// Accept says that an operator has looked at the contradiction that Health reports and goes on. It is recorded
// with the operator's name. Without a contradiction it does nothing. Errors: as Append.
func (l *Log) Accept(ctx context.Context, by string) error {
	l.mu.Lock()
	suspect := l.suspect
	l.mu.Unlock()
	if suspect == 0 {
		return nil
	}
	if err := l.append(ctx, &Record{Type: TypeAccepted, Accepted: &Accepted{Recovered: suspect, By: by}}, true); err != nil {
		return err
	}
	l.mu.Lock()
	l.suspect = 0
	l.mu.Unlock()
	return nil
}

// Close writes what is still to be written, a closed record and the last signed head, and gives the log up.
// Appends after it get [ErrUnavailable]. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.running.Wait()
	err := l.finish()
	l.syncMu.Lock()
	_ = l.syncNow() // for those who still wait, when finish failed half-way
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.syncMu.Unlock()
	return errors.Join(err, l.release())
}

func (l *Log) finish() error {
	if err := l.repair(); err != nil {
		return fmt.Errorf("closing the audit log: %w", err)
	}
	l.flushJunk()
	for _, last := range []func() error{
		func() error { return l.appendSynced(&Record{Type: TypeClosed}) },
		func() error { return l.writeHead(l.synced, false) },
		func() error { return l.appendSynced(l.headRecord()) },
		func() error { return l.writeHead(l.synced, true) },
	} {
		if err := last(); err != nil {
			return fmt.Errorf("closing the audit log: %w", err)
		}
	}
	return nil
}

// release gives up files and the lock.
func (l *Log) release() error {
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	if l.heads != nil {
		errs = append(errs, l.heads.file.Close())
	}
	errs = append(errs, l.junk.close(), l.lock.Close())
	return errors.Join(errs...)
}
