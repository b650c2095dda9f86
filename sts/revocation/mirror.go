package revocation

import (
	"crypto/sha256"
	"encoding/base32"
	"sync"
	"time"
)

// id is a lease in memory: its 128 bits, or the first 128 of SHA-256 of a name of another shape.
type id [16]byte

var leaseText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// leaseLen is the length of 128 bits in base32.
const leaseLen = 26

func idOf(lease string) id {
	var out id
	if len(lease) == leaseLen {
		var raw [17]byte
		if n, err := leaseText.Decode(raw[:], []byte(lease)); err == nil && n == len(out) {
			return id(raw[:16])
		}
	}
	sum := sha256.Sum256([]byte(lease))
	copy(out[:], sum[:])
	return out
}

// mirror is what is dead, in memory: 20 bytes an entry, so that a million fit into 64 MiB. Who revoked what and
// when stands in the log.
type mirror struct {
	mu       sync.RWMutex
	dead     map[id]uint32 // until when, in Unix seconds, rounded up
	position Position
}

func (m *mirror) add(e Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := idOf(e.Lease)
	if until := seconds(e.Until); until > m.dead[k] {
		m.dead[k] = until
	}
}

// reach moves the position forward, never back.
func (m *mirror) reach(p Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.After(m.position) {
		m.position = p
	}
}

func (m *mirror) has(lease string) (until time.Time, ok bool) {
	k := idOf(lease)
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.dead[k]
	return time.Unix(int64(s), 0), ok
}

func (m *mirror) forget(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, until := range m.dead {
		if now.After(time.Unix(int64(until), 0)) {
			delete(m.dead, k)
		}
	}
}

func seconds(t time.Time) uint32 {
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return uint32(min(max(s, 1), 1<<32-1))
}
