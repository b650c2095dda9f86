package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Times of reading the document.
const (
	// Every is how often a replica reads the document: how long it goes on with a key that another replica
	// took out in an emergency.
	Every = 2 * time.Second
	// reloadFloor is the shortest time between two readings that strangers can cause, with a kid of their own.
	reloadFloor = time.Second
	// askTimeout bounds one call of the store.
	askTimeout = 3 * time.Second
)

// Run reads the document every so often and brings it up to date, until ctx ends. report is told what went wrong
// when that changes, and nil when all is well again.
func (k *Keys) Run(ctx context.Context, every time.Duration, report func(error)) {
	var probing sync.WaitGroup
	probing.Go(func() { k.probes(ctx, every) })
	defer probing.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := k.reread(ctx)
		now := ""
		if err != nil {
			now = err.Error()
		}
		if now != said && ctx.Err() == nil {
			said = now
			report(err)
		}
	}
}

// Refresh reads the document and does what is due: publishes the next keys, and forgets those that are gone. It
// returns, as [Keys.Problem] does from then on, why that failed; the document in force stays.
func (k *Keys) Refresh(ctx context.Context) error {
	err := k.reread(ctx)
	k.probe(ctx)
	return err
}

func (k *Keys) reread(ctx context.Context) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.refresh(ctx)
}

// probes asks the KMS beside the reading: one that hangs must keep nobody from hearing of a key that was taken out.
func (k *Keys) probes(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		k.probe(ctx)
	}
}

func (k *Keys) refresh(ctx context.Context) error {
	defer func() { k.asked = time.Now() }() // at the end: whoever waited for this reading needs no other
	err := k.follow(ctx)
	if err == nil {
		err = k.change(ctx, nil, func(d *document, now time.Time) (bool, error) { return d.maintain(k.plan, k.makeKey(ctx), now) })
	}
	if errors.Is(err, ErrConflict) { // another replica was first; what it wrote is read the next time
		err = nil
	}
	k.tokens.publish()
	k.assertions.publish()
	if err != nil {
		k.problem.Store(&err)
		return err
	}
	k.problem.Store(nil)
	return nil
}

// follow reads the document and adopts it when it is another.
func (k *Keys) follow(ctx context.Context) error {
	asked := k.now() // before the answer: what was written later was not seen
	sealed, revision, err := k.store.Load(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("reading keys: %w", err)
	case sealed == nil:
		return k.putBack(ctx, revision, fmt.Errorf("%w: the store has lost them", ErrMissing))
	case revision == k.revision:
		k.loaded.Store(&asked)
		return nil
	}
	doc, _, err := k.sealer.document(sealed)
	if err != nil {
		return err
	}
	if have := k.doc.Load(); doc.Deployment == have.Deployment && doc.Serial < have.Serial {
		return k.putBack(ctx, revision, doc.notBefore(*have))
	}
	if doc, _, err = k.read(sealed); err != nil {
		return err
	}
	err = k.adopt(revision, sealed, doc)
	if k.revision == revision {
		k.loaded.Store(&asked)
	}
	return err
}

// putBack writes the document in force, as it is, over what is older or lost: the newest number among the replicas
// wins. It returns cause, for the operator: whatever lost the keys is not well.
func (k *Keys) putBack(ctx context.Context, revision string, cause error) error {
	sealed, err := k.sealer.seal(*k.doc.Load())
	if err != nil {
		return fmt.Errorf("sealing keys: %w", err)
	}
	if k.revision, err = k.store.Swap(ctx, revision, sealed); err != nil {
		k.revision = "" // whatever is there is read the next time
		return fmt.Errorf("%w; putting them back: %w", cause, err)
	}
	return fmt.Errorf("%w; they were put back as this replica has them", cause)
}

// change applies f to a copy of the document and writes it when f says that it changed. order is nil for what the plan does.
func (k *Keys) change(ctx context.Context, order *Order, f func(*document, time.Time) (bool, error)) error {
	doc := k.doc.Load().clone()
	changed, err := f(&doc, k.now())
	if err != nil || !changed {
		return err
	}
	return k.swap(ctx, k.revision, *k.doc.Load(), doc, order)
}

// reload reads the document now, unless that was done a moment ago. Callers that come together share one reading.
// It does not end with the caller's request: others wait for it too.
func (k *Keys) reload(ctx context.Context) {
	k.writing.Lock()
	defer k.writing.Unlock()
	if time.Since(k.asked) < reloadFloor {
		return
	}
	_ = k.refresh(context.WithoutCancel(ctx)) // Problem says it
}
