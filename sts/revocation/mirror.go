package revocation

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// id is a lease in memory: its 128 bits, or the first 128 of SHA-256 of a name of another shape.
type id [16]byte

// leaseLen is the length of 128 bits in base32.
const leaseLen = 26

func idOf(lease string) id {
	if k, ok := decode(lease); ok {
		return k
	}
	sum := sha256.Sum256([]byte(lease))
	return id(sum[:len(id{})])
}

// decode reads 128 bits of lower-case base32 (RFC 4648 section 6), and no other spelling of them: the last letter has
// two bits more than there are, which are 0. A decoder that lets them be anything takes four names for one.
func decode(s string) (k id, ok bool) {
	if len(s) != leaseLen {
		return k, false
	}
	var high, low uint64
	var wrong uint8
	for i := range leaseLen - 1 {
		v := letters[s[i]]
		wrong |= v
		high, low = high<<5|low>>59, low<<5|uint64(v&31)
	}
	last := letters[s[leaseLen-1]]
	wrong |= last | last<<6
	high, low = high<<3|low>>61, low<<3|uint64(last&31)>>2
	binary.BigEndian.PutUint64(k[:8], high)
	binary.BigEndian.PutUint64(k[8:], low)
	return k, wrong < noLetter
}

// noLetter is a bit of whatever is no letter of base32. The alphabet is looked up, not compared: ids are random, and so
// would be every branch.
const noLetter = 64

var letters = func() (out [256]uint8) {
	for i := range out {
		out[i] = noLetter
	}
	for v, c := range "abcdefghijklmnopqrstuvwxyz234567" {
		out[c] = uint8(v)
	}
	return out
}()

// mirror is what is dead, in memory. Who revoked what and when stands in the log.
type mirror struct {
	dead *table

	mu       sync.RWMutex
	position Position        // of what is decided now
	applied  Position        // everything that the log has up to here is in force; what it lost may not be
	running  int             // appends
	ahead    map[uint64]bool // of the log of one replica: what is in force behind one that is not yet
	newest   Position        // of those
}

func (m *mirror) add(e Entry) { m.dead.add(idOf(e.Lease), seconds(e.Until)) }

// reach moves the positions forward, never back. While an epoch settles, decisions stand in the one before.
func (m *mirror) reach(p Position, settled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.After(m.applied) {
		m.applied = p
	}
	if settled && p.After(m.position) {
		m.position = p
	}
}

func (m *mirror) upTo() Position {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.applied
}

// begins says that an entry is being appended, to the log of one replica, and ends that it is in force, or failed: then p is
// the zero Position. What is decided carries a position up to which everything is in force, in whatever order appends end.
func (m *mirror) begins() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running++
}

func (m *mirror) ends(p Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.After(m.newest) {
		m.newest = p
	}
	if m.ahead == nil {
		m.ahead = map[uint64]bool{}
	}
	for m.ahead[p.N] = true; m.ahead[m.position.N+1]; m.position.N++ {
		delete(m.ahead, m.position.N+1)
	}
	if m.running--; m.running > 0 {
		return
	}
	clear(m.ahead)
	if m.newest.After(m.position) { // a position that nobody has was lost by an append that failed
		m.position = m.newest
	}
}

func (m *mirror) has(lease string) (until time.Time, ok bool) {
	s, ok := m.dead.has(idOf(lease))
	return time.Unix(int64(s), 0), ok
}

// seconds is t in Unix seconds, rounded up, and never 0.
func seconds(t time.Time) uint32 {
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return uint32(min(max(s, 1), 1<<32-1))
}
