package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How changes are noticed.
const (
	settle = 200 * time.Millisecond // quiet time after which a change is taken to be complete
	never  = 2 * time.Second        // without a quiet time: somebody writes beside the configuration all the time
	// lookEvery is how often the files are read even though nobody told of a change: some network file
	// systems never do, and a queue of notices can overflow.
	lookEvery = 30 * time.Second
)

// Watch calls changed after configuration files in dir were changed, added or removed, once for a series of
// changes, and only when the bytes of the set differ. It follows the links that Kubernetes (..data) and
// git-sync swap. changed is called from one goroutine and should return soon. Watch blocks until ctx is
// done, and then returns nil; it fails only when notices cannot be had at all. It tells of changes from the
// call on: whoever loaded a while before loads once more.
//
// Files that the configuration refers to are not watched: keys of issuers and certificates are read again
// by those who use them.
func Watch(ctx context.Context, dir string, changed func()) error {
	notices, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	defer notices.Close()
	w := watcher{dir: dir, notices: notices}
	before := fingerprint(dir)
	w.follow()
	quiet := time.NewTimer(settle) // the first look is for what changed between these two lines
	look := time.NewTicker(lookEvery)
	defer quiet.Stop()
	defer look.Stop()
	var since time.Time // the first notice that was not followed up, zero for none
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-notices.Events:
			if !ok {
				return nil
			}
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) < never {
				quiet.Reset(settle)
			}
			continue
		case <-notices.Errors: // an overflow, for instance: look
		case <-quiet.C:
		case <-look.C:
		}
		since = time.Time{}
		w.follow()
		if now := fingerprint(dir); now != before {
			before = now
			changed()
		}
	}
}

// fingerprint is the hash of what would be read now, and of what could not be read.
func fingerprint(dir string) string {
	sources, problems := readAll(dir)
	return hash(sources) + "\n" + problems.Error()
}

// watcher keeps the notices on the directories that matter at the moment.
type watcher struct {
	dir     string
	notices *fsnotify.Watcher
	on      map[string]string // directory as named -> where its links end
}

// follow puts notices on the directory, on the folders in it and, for those that are links, on the
// directory that the link stands in. Never on the rest of the tree: data_dir may be in it and changes all
// the time.
func (w *watcher) follow() {
	want := map[string]string{}
	for _, d := range append([]string{w.dir}, w.folders()...) {
		end, err := filepath.EvalSymlinks(d)
		if err != nil {
			continue
		}
		want[d] = end
		if info, err := os.Lstat(d); err == nil && info.Mode()&os.ModeSymlink != 0 {
			parent := filepath.Dir(filepath.Clean(d))
			want[parent] = parent
		}
	}
	for d, end := range w.on {
		if want[d] != end {
			_ = w.notices.Remove(d) // gone with its directory already, perhaps
			delete(w.on, d)
		}
	}
	for d, end := range want {
		if w.on[d] == end {
			continue
		}
		if err := w.notices.Add(d); err == nil { // what cannot be watched is looked at now and then
			if w.on == nil {
				w.on = map[string]string{}
			}
			w.on[d] = end
		}
	}
}

func (w *watcher) folders() []string {
	out := slices.Clone(folders())
	for i, f := range out {
		out[i] = filepath.Join(w.dir, f)
	}
	return out
}
