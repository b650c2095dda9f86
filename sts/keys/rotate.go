package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// maxKeys is the most keys of one set: relying parties read key sets of some dozen keys.
const maxKeys = 32

// ErrRotation means that a rotation cannot be done as asked.
var ErrRotation = errors.New("these keys are not rotated")

// Rotation says which keys to replace, and how.
type Rotation struct {
	Set       string                  // SetTokens or SetAssertions; "" for both
	Algorithm jose.SignatureAlgorithm // "" for all
	// Now lets the new keys sign at once instead of after the time of publication. Relying parties that have the
	// key set cached refuse new tokens until they read it again.
	Now bool
	// Compromised takes the old keys out at once, and those that were to come; it implies Now. What they signed is
	// refused here from then on, and elsewhere as caches of the key set run out.
	Compromised bool
	// By and Reason are for the record.
	By, Reason string
}

// Rotate changes the document once for all that r asks for. A key that is published already and waits for its
// instant is the new key: asking twice makes no second one.
func (k *Keys) Rotate(ctx context.Context, r Rotation) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	const tries = 10
	for range tries {
		if err := k.follow(ctx); err != nil {
			return err
		}
		order := &Order{By: r.By, Reason: r.Reason, Now: r.Now || r.Compromised, Compromised: r.Compromised}
		err := k.change(ctx, order, func(d *document, now time.Time) (bool, error) { return d.rotate(r, k.plan, k.makeKey(ctx), now) })
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}

// maintain does what the plan says is due at now: a first key of an algorithm, the successor of a key whose time
// is near, the end of keys whose algorithm is not wanted any more. Keys that are gone are forgotten.
func (d *document) maintain(p Plan, mk maker, now time.Time) (bool, error) {
	now = now.UTC().Round(0) // instants are those of the wall
	changed := false
	for _, s := range d.sets() {
		before := len(*s.keys)
		*s.keys = slices.DeleteFunc(*s.keys, func(k key) bool { return k.state(now) == Gone })
		changed = changed || len(*s.keys) != before
		p := p
		if before == 0 { // of a document that was taken forward: nobody has cached this set, so its keys need not wait
			p.PublishBefore = 0
		}
		for _, alg := range p.Algorithms {
			begins, due := due(*s.keys, alg, p, now)
			if !due {
				continue
			}
			if err := s.succeed(mk, alg, now, begins); err != nil {
				return false, err
			}
			changed = true
		}
		for i, k := range *s.keys {
			// Not at once: while a deployment is rolled out, another replica may still be told to sign with it.
			if !slices.Contains(p.Algorithms, k.algorithm()) && k.Retires.IsZero() && now.After(k.Activates.Add(p.RotateEvery+p.PublishBefore)) {
				(*s.keys)[i].Retires, changed = now, true
			}
		}
	}
	return changed, nil
}

// due reports whether an algorithm needs a new key now, and when that one begins to sign.
func due(list []key, alg jose.SignatureAlgorithm, p Plan, now time.Time) (time.Time, bool) {
	i := newest(list, alg)
	if i < 0 {
		return now.Add(p.PublishBefore), true
	}
	ends := list[i].Activates.Add(p.RotateEvery)
	if now.Before(ends.Add(-p.PublishBefore)) {
		return time.Time{}, false
	}
	if earliest := now.Add(p.PublishBefore); ends.Before(earliest) { // nobody was there when it was due
		ends = earliest
	}
	return ends, true
}

// newest returns the index of the key of an algorithm that has no successor; -1 when there is none.
func newest(list []key, alg jose.SignatureAlgorithm) int {
	return slices.IndexFunc(list, func(k key) bool { return k.algorithm() == alg && k.Retires.IsZero() })
}

// succeed makes a key of an algorithm that signs from begins, and lets its predecessor retire then.
func (s set) succeed(mk maker, alg jose.SignatureAlgorithm, now, begins time.Time) error {
	if len(*s.keys) >= maxKeys {
		return fmt.Errorf("%w: there are %d keys already; wait an hour until retired ones are gone, or take them out as compromised", ErrRotation, len(*s.keys))
	}
	fresh, err := mk(s.name, alg, now, begins)
	if err != nil {
		return err
	}
	if i := newest(*s.keys, alg); i >= 0 {
		(*s.keys)[i].Retires = fresh.Activates
	}
	*s.keys = append(*s.keys, fresh)
	return nil
}

// rotate does what an operator asks for.
func (d *document) rotate(r Rotation, p Plan, mk maker, now time.Time) (bool, error) {
	if r.Set != "" && r.Set != SetTokens && r.Set != SetAssertions {
		return false, fmt.Errorf("%w: there is no set %q; choose %s or %s", ErrRotation, r.Set, SetTokens, SetAssertions)
	}
	algorithms := p.Algorithms
	if r.Algorithm != "" {
		if !slices.Contains(p.Algorithms, r.Algorithm) {
			return false, fmt.Errorf("%w: algorithm %s is not in signing.algorithms", ErrRotation, r.Algorithm)
		}
		algorithms = []jose.SignatureAlgorithm{r.Algorithm}
	}
	now = now.UTC().Round(0)
	changed := false
	for _, s := range d.sets() {
		if r.Set != "" && r.Set != s.name {
			continue
		}
		for _, alg := range algorithms {
			did, err := r.one(s, alg, p, mk, now)
			if err != nil {
				return false, err
			}
			changed = changed || did
		}
	}
	return changed, nil
}

// one rotates one algorithm of one set.
func (r Rotation) one(s set, alg jose.SignatureAlgorithm, p Plan, mk maker, now time.Time) (bool, error) {
	list := s.keys
	i := newest(*list, alg)
	switch waiting := i >= 0 && (*list)[i].state(now) == Next; {
	case r.Compromised:
		*list = slices.DeleteFunc(*list, func(k key) bool { return k.algorithm() == alg })
		return true, s.succeed(mk, alg, now, now)
	case r.Now && waiting: // it is in some caches already
		for j := range *list {
			if k := &(*list)[j]; k.algorithm() == alg && k.Retires.Equal((*list)[i].Activates) {
				k.Retires = now
			}
		}
		(*list)[i].Activates = now
		return true, nil
	case r.Now:
		return true, s.succeed(mk, alg, now, now)
	case waiting:
		return false, nil
	default:
		return true, s.succeed(mk, alg, now, now.Add(p.PublishBefore))
	}
}
