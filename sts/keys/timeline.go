package keys

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// State is where on its timeline a key is.
type State string

// States of a key, in the order in which it has them.
const (
	Next    State = "next"    // published, not signing
	Active  State = "active"  // signing
	Retired State = "retired" // published until the last token it signed has expired
	Gone    State = "gone"    // neither published nor believed
)

// Status is one signing key as operators and metrics see it.
type Status struct {
	Set       string        `json:"set"`
	ID        string        `json:"kid"`
	Algorithm string        `json:"algorithm"`
	State     State         `json:"state"`
	Published time.Time     `json:"published"`
	Activates time.Time     `json:"activates"`
	Retires   time.Time     `json:"retires,omitzero"` // when its successor signs; by the plan, when none is known yet
	Gone      time.Time     `json:"gone,omitzero"`    // when it is forgotten
	Age       time.Duration `json:"-"`                // since it was published
}

// Timeline returns the keys of both sets, each in the order in which they sign.
func (k *Keys) Timeline() []Status {
	return k.doc.Load().timeline(k.plan, k.now())
}

// Changed returns the deployment's id, and number and time of the document's last change.
func (k *Keys) Changed() (deployment string, serial uint64, at time.Time) {
	d := k.doc.Load()
	return d.Deployment, d.Serial, d.Changed
}

// Inspect reads a document without changing anything and returns its timeline.
func Inspect(ctx context.Context, store Store, sealer Sealer, p Plan, now time.Time) ([]Status, error) {
	sealed, _, err := store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	if sealed == nil {
		return nil, fmt.Errorf("%w: none are stored yet; sallyport serve makes them when a deployment starts for the first time", ErrMissing)
	}
	doc, _, err := sealer.document(sealed)
	if err != nil {
		return nil, err
	}
	return doc.timeline(p, now), nil
}

func (d *document) timeline(p Plan, now time.Time) []Status {
	var out []Status
	for _, s := range d.sets() {
		from := len(out)
		for _, k := range *s.keys {
			st := Status{
				Set: s.name, ID: k.JWK.KeyID, Algorithm: k.JWK.Algorithm, State: k.state(now),
				Published: k.Published.UTC(), Activates: k.Activates.UTC(), Retires: k.Retires.UTC(), Age: now.Sub(k.Published),
			}
			if k.Retires.IsZero() {
				k.Retires = k.Activates.Add(p.RotateEvery)
				st.Retires = k.Retires.UTC()
			}
			st.Gone = k.gone().UTC()
			out = append(out, st)
		}
		slices.SortStableFunc(out[from:], func(a, b Status) int {
			return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), a.Activates.Compare(b.Activates))
		})
	}
	return out
}
