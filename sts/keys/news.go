package keys

import (
	"encoding/json"
	"slices"
	"time"
)

// Change is what became of the signing keys with one change of the document: for the record.
type Change struct {
	Serial    uint64    `json:"serial"` // of the document; each change of it has the next
	At        time.Time `json:"at"`
	Published []string  `json:"published,omitempty"` // SET/KID of new keys
	Removed   []string  `json:"removed,omitempty"`   // SET/KID of keys that nobody believes any more
	Order     *Order    `json:"order,omitempty"`     // nil: it was due by the plan
}

// Order is why an operator changed the keys.
type Order struct {
	By          string `json:"by,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Now         bool   `json:"now,omitempty"`
	Compromised bool   `json:"compromised,omitempty"`
}

// Bounds of what is told.
const (
	keptHistory = 32 // changes that the document keeps, for replicas that did not run
	waitingNews = 64 // changes that wait for whoever reads them; more are forgotten
)

// News tells of every change of the document that this replica works with, once, also of those that were made while it did not
// run, as far as the document keeps them. One reader is meant.
func (k *Keys) News() <-chan Change { return k.news }

// tell makes known what changed since a document. The caller holds writing.
func (k *Keys) tell(before, after document) {
	known := before.Serial
	if before.Serial == 0 && k.last.Deployment == after.Deployment { // at its opening
		known = k.last.Serial
	}
	for _, c := range after.History {
		if c.Serial <= known {
			continue
		}
		select {
		case k.news <- c:
		default:
		}
	}
}

// follows says what a changed document changes, and keeps it in its history.
func (d *document) follows(before document, order *Order) {
	c := Change{Serial: d.Serial, At: d.Changed, Order: order}
	had, have := before.names(), d.names()
	for name := range have {
		if !had[name] {
			c.Published = append(c.Published, name)
		}
	}
	for name := range had {
		if !have[name] {
			c.Removed = append(c.Removed, name)
		}
	}
	slices.Sort(c.Published)
	slices.Sort(c.Removed)
	d.History = append(slices.Clone(d.History), c)
	d.History = d.History[max(0, len(d.History)-keptHistory):]
}

func (d document) names() map[string]bool {
	out := map[string]bool{}
	for _, s := range d.sets() {
		for _, one := range *s.keys {
			out[s.name+"/"+one.JWK.KeyID] = true
		}
	}
	return out
}

// lastSeen is what a replica remembers; what it says is believed only by checkSeen.
func lastSeen(data []byte) (s seen) {
	_ = json.Unmarshal(data, &s)
	return s
}
