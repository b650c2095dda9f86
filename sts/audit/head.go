package audit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Head is a signed statement: record N of this log has this hash, and was synced when this was signed.
// The zero Head says nothing.
type Head struct {
	Log     string    `json:"log"`
	N       uint64    `json:"n"`
	Hash    string    `json:"hash"`
	Time    time.Time `json:"time"`
	Segment uint64    `json:"segment"`          // that holds record N
	Offset  int64     `json:"offset"`           // of the byte after record N
	Closed  bool      `json:"closed,omitempty"` // nothing follows record N until a process opens the log again
	Suspect uint64    `json:"suspect,omitzero"` // recovered record whose contradiction nobody has accepted yet
	Key     string    `json:"key"`              // id of the public key: 16 hex digits of its SHA-256
	Sig     string    `json:"sig"`              // Ed25519 over the lines of payload, base64
}

func (h *Head) payload() []byte {
	return fmt.Appendf(nil, "sallyport audit head v1\nlog %s\nn %d\nhash %s\ntime %s\nsegment %d\noffset %d\nclosed %t\nsuspect %d\n",
		h.Log, h.N, h.Hash, h.Time.UTC().Format(time.RFC3339Nano), h.Segment, h.Offset, h.Closed, h.Suspect)
}

func (p *Pruned) payload(log string) []byte {
	return fmt.Appendf(nil, "sallyport audit pruned v1\nlog %s\nfirst %d\nprev %s\nsegments %d\nbytes %d\n",
		log, p.First, p.Prev, p.Segments, p.Bytes)
}

// signer signs with one key.
type signer struct {
	key crypto.Signer
	id  string
}

func newSigner(key crypto.Signer) (signer, error) {
	if key == nil {
		return signer{}, errors.New("the audit log needs a key to sign its heads")
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return signer{}, fmt.Errorf("the audit log signs with Ed25519, not %T", key.Public())
	}
	return signer{key: key, id: KeyID(pub)}, nil
}

func (s signer) sign(payload []byte) (string, error) {
	sig, err := s.key.Sign(rand.Reader, payload, crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("signing for the audit log: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sig), nil
}

// KeyID returns the id under which heads name a public key.
func KeyID(pub ed25519.PublicKey) string {
	s := sha256.Sum256(pub)
	return hex.EncodeToString(s[:8])
}

// keyring holds the public keys that may have signed.
type keyring map[string]ed25519.PublicKey

func newKeyring(keys ...ed25519.PublicKey) (keyring, error) {
	r := make(keyring, len(keys))
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("audit key of %d bytes: Ed25519 public keys have %d", len(k), ed25519.PublicKeySize)
		}
		r[KeyID(k)] = k
	}
	return r, nil
}

func (r keyring) verify(key, sig string, payload []byte) bool {
	pub, ok := r[key]
	raw, err := base64.StdEncoding.Strict().DecodeString(sig)
	return ok && err == nil && !strings.ContainsAny(sig, "\r\n") && ed25519.Verify(pub, payload, raw)
}

// The head file has two slots in blocks of their own. They are written in turn and each is synced before the
// other is touched, so a power cut leaves at least one whole.
const (
	slotSize  = 4096 // bytes; a head takes less than 600
	slotCount = 2
)

// slot is what one half of a head file holds.
type slot struct {
	blank bool // never written
	valid bool // whole, and signed by a known key
	head  Head
}

// readHeads returns the slots of a head file; a missing file has blank ones.
func readHeads(fs FS, path string, keys keyring) ([slotCount]slot, error) {
	var out [slotCount]slot
	var raw [slotCount * slotSize]byte
	f, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return out, fmt.Errorf("reading the head of the audit log: %w", err)
	}
	if err == nil {
		_, err = f.ReadAt(raw[:], 0)
		if cerr := f.Close(); cerr != nil && (err == nil || errors.Is(err, io.EOF)) {
			err = cerr
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return out, fmt.Errorf("reading the head of the audit log: %w", err)
		}
	}
	for i := range out {
		text := bytes.TrimRight(raw[i*slotSize:(i+1)*slotSize], " \n\x00")
		s := &out[i]
		if s.blank = len(text) == 0; s.blank {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if d.Decode(&s.head) == nil && int(d.InputOffset()) == len(text) {
			s.valid = keys.verify(s.head.Key, s.head.Sig, s.head.payload())
		}
	}
	return out, nil
}

// newest returns the valid slot that says most, or -1.
func newest(slots [slotCount]slot) int {
	best := -1
	for i, s := range slots {
		if !s.valid {
			continue
		}
		if best < 0 || s.head.N > slots[best].head.N ||
			s.head.N == slots[best].head.N && s.head.Time.After(slots[best].head.Time) {
			best = i
		}
	}
	return best
}

// emptied reports whether a half of the head file is blank that must have been written: halves are written in turn,
// and the head of a log that never was is the first of all.
func emptied(slots [slotCount]slot) bool {
	i := newest(slots)
	return i >= 0 && slots[i].head.N > 0 && slots[1-i].blank
}

// headFile writes heads. It is not safe for concurrent use.
type headFile struct {
	file File
	next int // slot to write
}

// openHeadFile opens path for writing; keep is the slot that must survive the first write, or -1.
func openHeadFile(fs FS, path string, keep int) (*headFile, error) {
	dir := filepath.Dir(path)
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("making the folder of the audit head: %w", err)
	}
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("opening the audit head: %w", err)
	}
	if err := fs.SyncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("syncing the folder of the audit head: %w", err), f.Close())
	}
	return &headFile{file: f, next: (keep + 1) % slotCount}, nil
}

// write replaces the older slot and syncs it.
func (w *headFile) write(h Head) error {
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encoding the audit head: %w", err)
	}
	if len(text) >= slotSize {
		return fmt.Errorf("audit head of %d bytes", len(text))
	}
	block := bytes.Repeat([]byte{' '}, slotSize)
	copy(block, text)
	block[slotSize-1] = '\n'
	if _, err := w.file.WriteAt(block, int64(w.next)*slotSize); err != nil {
		return fmt.Errorf("writing the audit head: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("syncing the audit head: %w", err)
	}
	w.next = (w.next + 1) % slotCount
	return nil
}
