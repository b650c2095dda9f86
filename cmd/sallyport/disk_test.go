package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk is a disk that can be filled and freed while a server writes to it.
type smallDisk interface {
	fill(t *testing.T, p *process)
	free(t *testing.T, p *process)
}

// tmpfs is a small file system under data_dir, full when a filler takes all that is left of it.
type tmpfs struct{ filler string }

// mountTmpfs returns an error where mounting is not permitted.
func mountTmpfs(t *testing.T, dir string) (*tmpfs, error) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("making %s: %v", dir, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return &tmpfs{filler: filepath.Join(dir, "filler")}, nil
}

func (d *tmpfs) fill(t *testing.T, _ *process) {
	t.Helper()
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatalf("making the filler: %v", err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatalf("filling the disk: %v", err)
		}
	}
}

func (d *tmpfs) free(t *testing.T, _ *process) {
	t.Helper()
	if err := os.Remove(d.filler); err != nil {
		t.Fatalf("freeing the disk: %v", err)
	}
}

// fileLimit is RLIMIT_FSIZE of the server: no file grows beyond the audit log's newest segment, which is by then
// the largest. It needs no right.
type fileLimit struct{ audit string }

func (d fileLimit) fill(t *testing.T, p *process) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(d.audit, "*.log"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("the audit log has no segment: %v", err)
	}
	var size int64
	for _, s := range segments {
		if info, err := os.Stat(s); err == nil {
			size = max(size, info.Size())
		}
	}
	d.limit(t, p, uint64(size))
}

func (d fileLimit) free(t *testing.T, p *process) { d.limit(t, p, unix.RLIM_INFINITY) }

func (d fileLimit) limit(t *testing.T, p *process, size uint64) {
	t.Helper()
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatalf("limiting the size of the server's files to %d: %v", size, err)
	}
}

func TestFullDiskStopsTokensButNotRevocation(t *testing.T) {
	t.Parallel()
	t.Run("file size limit", func(t *testing.T) {
		t.Parallel()
		d := newDeployment(t)
		fullDisk(t, d, fileLimit{d.audit}, "writing")
	})
	d := newDeployment(t)
	disk, err := mountTmpfs(t, d.data)
	if err != nil {
		t.Logf("a small tmpfs cannot be mounted (%v): the file size limit alone plays the full disk", err)
		return
	}
	fullDisk(t, d, disk, "bytes of disk are free", "no space left on device") // whichever the log met last
}

func fullDisk(t *testing.T, d *deployment, disk smallDisk, why ...string) {
	p := d.start()
	c := d.caller()
	subject := d.subject("checkout")
	bearer := c.minted(t, d.subject("gateway"), "introspection")
	var tokens []string
	for range 200 { // so that the log outgrows the store
		tokens = append(tokens, c.minted(t, subject, "gateway"))
	}

	disk.fill(t, p)
	eventually(t, "exchanges are refused", func() error {
		a := c.exchange(subject, "gateway")
		if a.err != nil || a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("got %s", a)
		}
		if a.header.Get("Retry-After") == "" || a.body.Error != "temporarily_unavailable" {
			t.Errorf("full disk: got %s with Retry-After %q, want temporarily_unavailable and a Retry-After", a, a.header.Get("Retry-After"))
		}
		return nil
	})
	for range 20 {
		wantStatus(t, "exchanging on a full disk", c.exchange(subject, "gateway"), http.StatusServiceUnavailable)
	}
	if r := d.readyz(); r.status != http.StatusServiceUnavailable || r.Ready || !slices.ContainsFunc(why, func(w string) bool { return containsFold(r.reason("audit"), w) }) {
		t.Errorf("/readyz on a full disk: got %d with audit reason %q, want 503 with one of %q in it", r.status, r.reason("audit"), why)
	}
	for _, token := range tokens[:10] {
		wantStatus(t, "revoking on a full disk", c.revoke(token), http.StatusOK)
	}
	wantAlive(t, c, bearer, tokens[:10], false)
	wantAlive(t, c, bearer, tokens[10:20], true)

	disk.free(t, p)
	eventually(t, "exchanges succeed again without a restart", func() error {
		if a := c.exchange(subject, "gateway"); a.err != nil || a.status != http.StatusOK {
			return fmt.Errorf("got %s", a)
		}
		return nil
	})
	eventually(t, "/readyz is 200 again", func() error {
		if r := d.readyz(); r.status != http.StatusOK {
			return fmt.Errorf("got %d: %s", r.status, r.reason("audit"))
		}
		return nil
	})
	p.kill()
	p = d.start()
	bearer = c.minted(t, d.subject("gateway"), "introspection")
	wantAlive(t, c, bearer, tokens[:10], false) // durable: they outlived the kill
	wantAlive(t, c, bearer, tokens[10:20], true)
	p.stop()
	d.verified()
}

// wantAlive fails unless introspection says of every token that it is active, or that it is not.
func wantAlive(t *testing.T, c *caller, bearer string, tokens []string, want bool) {
	t.Helper()
	for i, token := range tokens {
		if a := c.introspect(bearer, token); a.err != nil || a.status != http.StatusOK || a.body.Active != want {
			t.Errorf("introspecting token %d: got %s, want active=%v", i, a, want)
		}
	}
}
