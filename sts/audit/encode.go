package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"sync"
)

// MaxLine is the size of the longest line, in bytes. A token of 16 KiB yields claims well below it; a record
// beyond it is refused, because a reader must be able to bound what it holds.
const MaxLine = 256 << 10

const (
	hashDigits = 2 * sha256.Size
	numberKey  = `{"n":`
	// front is what stands before the body: hash, space, `{"n":`, at most 20 digits, comma.
	front = hashDigits + 1 + len(numberKey) + 20 + 1
)

type sum [sha256.Size]byte

func (s sum) String() string { return hex.EncodeToString(s[:]) }

func parseSum(s string) (sum, bool) {
	var out sum
	if len(s) != hashDigits {
		return out, false
	}
	_, err := hex.Decode(out[:], []byte(s))
	return out, err == nil && out.String() == s // one spelling: lower case
}

// line is one line under construction. The record is encoded outside the lock, behind room for what is only
// known under it.
type line struct{ buf []byte }

// lines recycles them; a pool is safe for concurrent use.
type lines struct{ pool sync.Pool }

func (p *lines) take() *line {
	if l, ok := p.pool.Get().(*line); ok {
		return l
	}
	return &line{buf: make([]byte, front, 2<<10)}
}

func (p *lines) give(l *line) {
	const keep = 16 << 10 // one huge record must not pin its buffer
	if cap(l.buf) <= keep {
		p.pool.Put(l)
	}
}

// encode writes the body of r, without its number and with its times in UTC. r is not changed.
func (l *line) encode(r *Record) error {
	c := *r
	c.N = 0
	e := encoder{b: l.buf[:front]}
	e.record(&c)
	l.buf = append(e.b, '\n')
	if e.err != nil {
		return fmt.Errorf("encoding an audit record: %w", e.err)
	}
	if len(l.buf) > MaxLine {
		return fmt.Errorf("audit record of %d bytes: more than %d", len(l.buf), MaxLine)
	}
	blot(l.body())
	return nil
}

// body is the encoded record and its newline, before chain puts the number in.
func (l *line) body() []byte { return l.buf[front:] }

// chain gives the encoded body its number and its place after prev, and returns the whole line, valid
// until the next encode, with its hash.
func (l *line) chain(h hash.Hash, prev *sum, n uint64) ([]byte, sum) {
	b := l.buf
	b[front] = ',' // was the brace
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], n, 10)
	at := front - len(d)
	copy(b[at:], d)
	at -= len(numberKey)
	copy(b[at:], numberKey)
	next := link(h, prev, b[at:len(b)-1])
	at--
	b[at] = ' '
	at -= hashDigits
	hex.Encode(b[at:], next[:])
	return b[at:], next
}

// link is hash(n) = SHA-256(hash(n-1) || json(n)).
func link(h hash.Hash, prev *sum, json []byte) (out sum) {
	h.Reset()
	h.Write(prev[:])
	h.Write(json)
	h.Sum(out[:0])
	return out
}

// blot overwrites what looks like a JWT (three parts of base64url, the first a JSON object), in place:
// an operator's text may have come from a library that quotes its input.
func blot(b []byte) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], 'J') // of "eyJ": the rarest of the three
		if i < 0 {
			return
		}
		end := at + i + 1
		start := end - len(jwtStart)
		if start < at || string(b[start:end]) != jwtStart {
			at = end
			continue
		}
		dots := 0
		for ; end < len(b) && (base64url(b[end]) || b[end] == '.'); end++ {
			if b[end] == '.' {
				dots++
			}
		}
		const shortest = 40 // {"alg":"none"} and a payload already take more
		if dots >= 1 && end-start >= shortest {
			for i := start; i < end; i++ {
				b[i] = '*'
			}
		}
		at = end
	}
}

const jwtStart = "eyJ" // base64url of `{"`

func base64url(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
