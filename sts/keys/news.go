package keys

import (
	"crypto/hmac"
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
	Missed    uint64    `json:"-"`                   // changes right before it that the document does not keep any more, and of which nothing is known
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

// News tells of every change of the document that this replica works with, also of those that were made since the last one
// that is on record by [Keys.Recorded], whoever made them and whether it ran or not, as far as the document keeps them. One
// reader is meant.
func (k *Keys) News() <-chan Change { return k.news }

// Recorded remembers that a change is on record, and with it all before: they are not told again.
func (k *Keys) Recorded(c Change) error {
	d := k.doc.Load()
	return remember(k.recorded, document{Deployment: d.Deployment, MAC: d.MAC, Serial: c.Serial})
}

// onRecord is the newest change of a document that is on record here; 0 for none that is known of.
func (k *Keys) onRecord(d document) uint64 {
	var s seen
	data, err := readFile(k.recorded)
	if err != nil || json.Unmarshal(data, &s) != nil || s.Deployment != d.Deployment ||
		!hmac.Equal(s.MAC, seenMAC(document{MAC: d.MAC, Deployment: s.Deployment, Serial: s.Serial})) {
		return 0 // it is told twice rather than not at all
	}
	return s.Serial
}

// tell makes known what changed since a document. The caller holds writing.
func (k *Keys) tell(before, after document) {
	known := before.Serial
	if known == 0 { // at its opening
		known = k.onRecord(after)
	}
	for _, c := range after.History {
		if c.Serial <= known {
			continue
		}
		c.Missed, known = c.Serial-known-1, c.Serial
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
