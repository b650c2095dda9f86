// Package keys holds our own keys: two sets that sign (one for what we mint, one for the assertions with which
// we call others), the key that signs the audit log's heads, and the one that authenticates stored revocations.
// Where they are kept they are sealed with AES-256-GCM under a key-encryption key that configuration refers to;
// in memory they never leave this package, which lends out signatures, public key sets and verifiers. Keys that sign
// can be in a [KMS] instead: then only their public halves are here.
//
// Everything that replicas share is one document in a [Store]. Each signing key in it has a fixed timeline: it
// is published some time before it signs, signs from an instant that stands in the document, retires when its
// successor begins, and is gone when the last token it signed has expired. So replicas that read the document at
// different moments still sign with the same key at the same time, and whoever caches our key set as long as it
// says knows every key before its first use. Each change is one compare-and-swap of the whole document.
//
// Keys are created once, with the deployment. A deployment that has state but no keys does not start: new ones
// would silently disown every token and every log that the old ones signed. An older document than one that was
// seen before is refused as well: it would bring keys back that were taken out. A replica that runs puts the newest
// back when the store lost it; for when none runs, each keeps a sealed copy, which an operator restores ([Restore]).
package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Errors of opening and using keys.
var (
	ErrMissing  = errors.New("the keys are missing although this deployment has state")
	ErrSeal     = errors.New("the keys do not open")
	ErrRollback = errors.New("the keys are older than what was seen before, or of another deployment")
	ErrStale    = errors.New("the keys were not read for too long to sign with them")
	ErrInactive = errors.New("no key of this algorithm signs now")
)

// Plan says which keys there shall be, and when they change.
type Plan struct {
	Algorithms    []jose.SignatureAlgorithm // of each set; the first is the default
	RotateEvery   time.Duration             // how long a key signs
	PublishBefore time.Duration             // how long a key is published before it signs
	InKMS         bool                      // new keys are made in the KMS, and never leave it
}

// Defaults of a [Plan] (design section 6).
const (
	DefaultRotateEvery   = 30 * 24 * time.Hour
	DefaultPublishBefore = 24 * time.Hour
)

// Bounds of time. A key stays published for keep after it retired.
const (
	maxTokenLife = time.Hour                    // the longest life of a token that we sign (federation/policy)
	keep         = maxTokenLife + 5*time.Minute // and a verifier's skew, and ours, each at most 120 s, and the wait between two readings
	maxCache     = 5 * time.Minute              // the longest that anybody is told to cache the key set
)

// cache is how long the key set may be cached: whoever read it just before a replica read the document that
// publishes a key must read it again before that key signs.
func (p Plan) cache() time.Duration { return min(p.PublishBefore/2, maxCache).Truncate(time.Second) }

// stale is how long a replica may go without reading the document. A key that it has not heard of then still has
// more than half of its publication to go, in which caches of the key set that this replica served run out. The
// rest is for the write itself and for clocks that differ.
func (p Plan) stale() time.Duration { return p.PublishBefore * 2 / 5 }

func (p Plan) check() error {
	if len(p.Algorithms) == 0 || p.PublishBefore < 2*time.Second || p.RotateEvery < 2*p.PublishBefore {
		return errors.New("a plan of keys needs an algorithm, 2 s of publication, and twice that between rotations")
	}
	for i, alg := range p.Algorithms {
		if !slices.Contains(Supported(), alg) || slices.Contains(p.Algorithms[:i], alg) {
			return fmt.Errorf("algorithm %s is not supported, or listed twice", alg)
		}
	}
	return nil
}

// Config is what keys are opened with.
type Config struct {
	Dir         string // data directory of this replica: its audit key, and what it saw last
	Store       Store  // of the document; nil for a file in Dir
	Sealer      Sealer
	KMS         KMS // of keys that stand in one; nil for none
	Plan        Plan
	Initialised bool          // the deployment has state, so it must have keys; a replica that has seen some knows by itself
	Settle      time.Duration // how long keys that are missing may be put back by another replica; 0 when there is none
	Logged      bool          // this replica has an audit log, so it must have the key of it
	Now         func() time.Time
}

// Keys is an open document. It is safe for concurrent use.
type Keys struct {
	store    Store
	sealer   Sealer
	kms      KMS
	plan     Plan
	seen     string // path
	recorded string // path of what is on record
	copies   string // path of the copy of a document that is not in Dir; "" for none
	now      func() time.Time
	audit    ed25519.PrivateKey

	tokens, assertions *Signers

	doc     atomic.Pointer[document]  // in force; never changed
	loaded  atomic.Pointer[time.Time] // when it was last known to be the newest
	problem atomic.Pointer[error]     // of the last reading or change
	health  kmsHealth

	writing  sync.Mutex // of what follows; one reading or change at a time
	revision string     // of doc
	news     chan Change
	asked    time.Time // when the store had answered last
}

// Open reads the document, takes an older form of it forward, and seals it anew when it was sealed with another
// key than the first. When there is none it creates one, unless the deployment is initialised (ErrMissing).
func Open(ctx context.Context, c Config) (*Keys, error) {
	if err := c.Plan.check(); err != nil {
		return nil, err
	}
	if c.Dir == "" || c.Now == nil || c.Sealer.isZero() {
		return nil, errors.New("keys need a directory, a clock and a key-encryption key")
	}
	if c.Plan.InKMS && c.KMS == nil {
		return nil, errors.New("keys shall be made in a KMS, and there is none")
	}
	k := &Keys{store: c.Store, sealer: c.Sealer, kms: c.KMS, plan: c.Plan, seen: filepath.Join(c.Dir, seenName), recorded: filepath.Join(c.Dir, recordedName), now: c.Now}
	if k.copies = filepath.Join(c.Dir, fileName); c.Store == nil {
		k.store, k.copies = NewFile(c.Dir), ""
	}
	k.store = bounded{k.store}
	k.news = make(chan Change, waitingNews)
	before, err := readFile(k.seen)
	if err != nil {
		return nil, fmt.Errorf("reading what was seen of the keys: %w", err)
	}
	c.Initialised = c.Initialised || before != nil
	if k.audit, err = openAudit(c.Dir, c.Sealer, c.Logged); err != nil { // first: version 1 has it in the document
		return nil, err
	}
	k.doc.Store(new(document))
	k.tokens, k.assertions = newSigners(k, tokenTypes), newSigners(k, assertionTypes)
	k.writing.Lock()
	defer k.writing.Unlock()
	const tries = 10 // replicas that start together change the document one after the other
	for range tries {
		err := k.begin(ctx, c.Initialised, &c.Settle)
		if !errors.Is(err, ErrConflict) {
			if err != nil {
				return nil, err
			}
			k.probe(ctx)
			return k, nil
		}
	}
	return nil, ErrConflict
}

// begin is one try of Open: read or create, and bring up to date.
func (k *Keys) begin(ctx context.Context, initialised bool, settle *time.Duration) error {
	sealed, revision, err := k.await(ctx, settle)
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	if sealed == nil {
		if initialised {
			return k.missing()
		}
		doc, err := newDocument(k.plan, k.makeKey(ctx), k.now())
		if err != nil {
			return err
		}
		return k.swap(ctx, "", document{}, doc, nil)
	}
	doc, outdated, err := k.read(sealed)
	if err != nil {
		return err
	}
	before := doc.clone()
	changed, err := doc.maintain(k.plan, k.makeKey(ctx), k.now())
	if err != nil {
		return err
	}
	if changed || outdated {
		return k.swap(ctx, revision, before, doc, nil)
	}
	return k.adopt(revision, sealed, doc)
}

// await reads the document. When there is none it waits, once: another replica may be about to put it back.
func (k *Keys) await(ctx context.Context, settle *time.Duration) (sealed []byte, revision string, err error) {
	for {
		sealed, revision, err = k.store.Load(ctx)
		if err != nil || sealed != nil || *settle <= 0 {
			return sealed, revision, err
		}
		select {
		case <-time.After(min(*settle, Every/4)):
			*settle -= Every / 4
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
}

// missing says what to do about it.
func (k *Keys) missing() error {
	if k.copies == "" {
		return fmt.Errorf("%w: restore them (keys.sealed in data_dir) from the newest backup; or start a new deployment, with an empty data_dir", ErrMissing)
	}
	return fmt.Errorf("%w: the shared store has none; a replica that still runs puts them back; if none does, put this replica's copy there with sallyport keys restore; or start a new deployment, with an empty data_dir for each replica", ErrMissing)
}

// read opens a document. It reports whether it should be written again as it is: in the newest form, sealed with
// the first key-encryption key.
func (k *Keys) read(sealed []byte) (_ document, outdated bool, err error) {
	doc, outdated, err := k.sealer.document(sealed)
	if err != nil {
		return document{}, false, err
	}
	if err := doc.notBefore(*k.doc.Load()); err != nil {
		return document{}, false, err
	}
	if err := k.kept(doc); err != nil {
		return document{}, false, err
	}
	return doc, outdated, checkSeen(k.seen, doc)
}

// swap writes a document that was changed, by an order or by the plan, and works with it.
func (k *Keys) swap(ctx context.Context, revision string, before, doc document, order *Order) error {
	doc.Serial++
	doc.Changed = k.now().UTC()
	doc.follows(before, order)
	sealed, err := k.sealer.seal(doc)
	if err != nil {
		return fmt.Errorf("sealing keys: %w", err)
	}
	revision, err = k.store.Swap(ctx, revision, sealed)
	if err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	return k.adopt(revision, sealed, doc)
}

// adopt puts a document in force. Once it is, that it could not be remembered is only reported.
func (k *Keys) adopt(revision string, sealed []byte, doc document) error {
	if err := k.tokens.adopt(doc.Tokens); err != nil {
		return err
	}
	if err := k.assertions.adopt(doc.Assertions); err != nil {
		return err
	}
	k.tell(*k.doc.Load(), doc)
	k.revision = revision
	k.doc.Store(&doc)
	now := k.now()
	k.loaded.Store(&now)
	if k.copies != "" {
		if err := replace(k.copies, sealed); err != nil {
			return fmt.Errorf("copying the keys: %w", err)
		}
	}
	return remember(k.seen, doc)
}

// Tokens returns the set that signs what we mint.
func (k *Keys) Tokens() *Signers { return k.tokens }

// Assertions returns the set of the second issuer, which signs what we show to others when we call them.
func (k *Keys) Assertions() *Signers { return k.assertions }

// MAC returns the key that authenticates stored revocations. It is the same in all replicas, and never changes.
func (k *Keys) MAC() []byte { return slices.Clone(k.doc.Load().MAC) }

// Audit returns the signer of the heads of this replica's audit log.
func (k *Keys) Audit() ed25519.PrivateKey { return k.audit }

// Fresh returns nil while the document was read recently enough to sign with it, or ErrStale and why.
func (k *Keys) Fresh() error {
	age := k.now().Sub(*k.loaded.Load())
	if age < k.plan.stale() {
		return nil
	}
	err := fmt.Errorf("%w: the last time was %s ago, the limit is %s (two fifths of signing.publish_before)", ErrStale, age.Truncate(time.Second), k.plan.stale())
	if p := k.problem.Load(); p != nil {
		err = fmt.Errorf("%w; %w", err, *p)
	}
	return err
}

// Problem returns why the last reading or change of the document failed, nil when it did not.
func (k *Keys) Problem() error {
	if p := k.problem.Load(); p != nil {
		return *p
	}
	return nil
}
