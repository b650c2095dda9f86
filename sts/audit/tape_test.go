package audit

import (
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// tape is an FS in memory that knows what a power cut would leave: of a file, what was there when its last
// completed sync began; of a directory, the names as of its last sync.
type tape struct {
	mu    sync.Mutex
	names map[string]*inode // what the process sees
	disk  map[string]*inode // what a power cut leaves
	moves []move            // changes of names since, in order
	ops   int
	cutAt int // when ops reaches it, cut is called once; 0: never
	cut   func(*tape)
	slow  func() // while a sync runs
}

type move struct {
	name string
	node *inode // nil: removed
}

type inode struct {
	data    []byte
	durable []byte
	writes  []write // since durable
}

type write struct {
	off      int64
	b        []byte
	truncate bool
}

func (w write) apply(data []byte) []byte {
	if w.truncate {
		if int(w.off) <= len(data) {
			return data[:w.off]
		}
		return append(data, make([]byte, int(w.off)-len(data))...)
	}
	if end := int(w.off) + len(w.b); end > len(data) {
		data = append(data, make([]byte, end-len(data))...)
	}
	copy(data[w.off:], w.b)
	return data
}

func newTape(files map[string][]byte) *tape {
	t := &tape{names: map[string]*inode{}, disk: map[string]*inode{}}
	for name, b := range files {
		n := &inode{data: slices.Clone(b), durable: slices.Clone(b)}
		t.names[name], t.disk[name] = n, n
	}
	return t
}

// step counts an operation, and cuts the power before it when it is time. The caller holds mu.
func (t *tape) step() {
	t.ops++
	if t.ops == t.cutAt && t.cut != nil {
		t.cut(t)
	}
}

func (t *tape) MkdirAll(string) error          { return nil }
func (t *tape) Free(string) (int64, error)     { return 1 << 40, nil }
func (t *tape) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }
func (t *tape) rename(name string, n *inode)   { t.moves = append(t.moves, move{name, n}) }
func (t *tape) ReadDir(dir string) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for name := range t.names {
		if filepath.Dir(name) == dir {
			out = append(out, filepath.Base(name))
		}
	}
	return out, nil
}

func (t *tape) OpenFile(name string, flag int) (File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.names[name]
	if !ok {
		if flag&os.O_CREATE == 0 {
			return nil, &iofs.PathError{Op: "open", Path: name, Err: iofs.ErrNotExist}
		}
		t.step()
		n = &inode{}
		t.names[name] = n
		t.rename(name, n)
	}
	if flag&os.O_TRUNC != 0 && len(n.data) > 0 {
		n.data = nil
		n.writes = append(n.writes, write{truncate: true})
	}
	return &tapeFile{t, n}, nil
}

func (t *tape) Rename(from, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step()
	n := t.names[from]
	t.names[to] = n
	delete(t.names, from)
	t.rename(to, n)
	t.rename(from, nil)
	return nil
}

func (t *tape) Remove(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.names[name]; !ok {
		return &iofs.PathError{Op: "remove", Path: name, Err: iofs.ErrNotExist}
	}
	t.step()
	delete(t.names, name)
	t.rename(name, nil)
	return nil
}

func (t *tape) SyncDir(dir string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step()
	t.moves = slices.DeleteFunc(t.moves, func(m move) bool {
		if filepath.Dir(m.name) != dir {
			return false
		}
		m.apply(t.disk)
		return true
	})
	return nil
}

func (m move) apply(names map[string]*inode) {
	if m.node == nil {
		delete(names, m.name)
		return
	}
	names[m.name] = m.node
}

type tapeFile struct {
	t *tape
	n *inode
}

func (f *tapeFile) ReadAt(b []byte, off int64) (int, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *tapeFile) WriteAt(b []byte, off int64) (int, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.step()
	w := write{off: off, b: slices.Clone(b)}
	f.n.data = w.apply(f.n.data)
	f.n.writes = append(f.n.writes, w)
	return len(b), nil
}

func (f *tapeFile) Truncate(size int64) error {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.step()
	w := write{off: size, truncate: true}
	f.n.data = w.apply(f.n.data)
	f.n.writes = append(f.n.writes, w)
	return nil
}

func (f *tapeFile) Sync() error {
	f.t.mu.Lock()
	f.t.step()
	covered := len(f.n.writes)
	f.t.mu.Unlock()
	if f.t.slow != nil {
		f.t.slow()
	}
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	f.t.step()
	covered = min(covered, len(f.n.writes)) // a sync that ran beside this one
	for _, w := range f.n.writes[:covered] {
		f.n.durable = w.apply(f.n.durable)
	}
	f.n.writes = slices.Clone(f.n.writes[covered:])
	return nil
}

func (f *tapeFile) Size() (int64, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *tapeFile) Close() error { return nil }

// leftover is what kind of unsynced bytes a power cut leaves.
type leftover int

const (
	nothing leftover = iota // exactly what was synced
	prefix                  // the first of the unsynced writes, the last of them in part
	sectors                 // any of the unsynced sectors; where the file grew, the others are zeros
)

func (k leftover) String() string { return [...]string{"nothing", "prefix", "sectors"}[k] }

// after returns the files as a power cut at this moment leaves them. The caller holds mu.
func (t *tape) after(kind leftover, rnd *rand.Rand) map[string][]byte {
	names := map[string]*inode{}
	for name, n := range t.disk {
		names[name] = n
	}
	if kind != nothing {
		for _, m := range t.moves[:rnd.IntN(len(t.moves)+1)] {
			m.apply(names)
		}
	}
	out := map[string][]byte{}
	for name, n := range names {
		out[name] = n.after(kind, rnd)
	}
	return out
}

func (n *inode) after(kind leftover, rnd *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	if kind == nothing || len(n.writes) == 0 {
		return data
	}
	writes := n.writes[:rnd.IntN(len(n.writes)+1)]
	for i, w := range writes {
		if i == len(writes)-1 && !w.truncate {
			w.b = w.b[:rnd.IntN(len(w.b)+1)]
		}
		data = w.apply(data)
	}
	if kind == prefix {
		return data
	}
	const sector = 512
	for at := 0; at < len(data); at += sector {
		if rnd.IntN(2) == 0 {
			continue
		}
		for i := at; i < min(at+sector, len(data)); i++ {
			if i < len(n.durable) {
				data[i] = n.durable[i]
			} else {
				data[i] = 0
			}
		}
	}
	return data
}

// put writes files into a real directory, as if it were the root.
func put(t testing.TB, root string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// napping makes syncs take up to so long.
func napping(most time.Duration) func() {
	return func() { time.Sleep(rand.N(most)) }
}
