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

// Watch calls changed while the configuration files in dir are not what loaded names, once for a series of changes.
// loaded returns the Hash of the set that was loaded last, "" for one that was refused: it is asked at every look, so
// that nothing is missed that changed before the call or while changed ran, and a refused set is tried again at every
// look. Watch follows the links that Kubernetes (..data) and git-sync swap. It calls loaded and changed from one
// goroutine, and blocks until ctx is done; then it returns nil. It fails only when notices cannot be had at all.
//
// Files that the configuration refers to are not watched: keys of issuers and certificates are read again
// by those who use them.
func Watch(ctx context.Context, dir string, loaded func() string, changed func()) error {
	notices, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	defer notices.Close()
	w := watcher{dir: dir, notices: notices}
	w.follow()
	quiet := time.NewTimer(settle) // the first look is for what changed before the line above
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
		if fingerprint(readAll(dir)) != loaded() {
			changed()
		}
	}
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
