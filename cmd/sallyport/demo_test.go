package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// aJWT is a whole compact token: nobody who shares a demo's output may share one.
var aJWT = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{20,}`)

// demoIn prepares `sallyport demo` with a fresh temporary directory, and fails the test if anything of it is left.
func demoIn(t *testing.T) (demo *exec.Cmd, tmp string, nothingLeft func()) {
	t.Helper()
	tmp = t.TempDir()
	demo = exec.Command("sallyport", "demo")
	demo.Env = append(cleanEnvironment(), "TMPDIR="+tmp)
	demo.Dir = t.TempDir()
	return demo, tmp, func() {
		t.Helper()
		for _, dir := range []string{tmp, demo.Dir} {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) > 0 {
				t.Errorf("the demo left %v in %s (%v), want nothing", entries, dir, err)
			}
		}
		eventually(t, "no process of the demo is left", func() error {
			if left := processesWith(t, tmp); len(left) > 0 {
				return fmt.Errorf("there are %q", left)
			}
			return nil
		})
	}
}

// processesWith returns the command lines of processes that mention a text.
func processesWith(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("the kernel does not list processes: %v", err)
	}
	var out []string
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		if line := strings.ReplaceAll(string(raw), "\x00", " "); strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

func TestDemoTellsItsStoryAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	demo, _, nothingLeft := demoIn(t)
	var out, errs bytes.Buffer
	demo.Stdout, demo.Stderr = &out, &errs
	if err := demo.Run(); err != nil {
		t.Fatalf("sallyport demo: %v\n%s%s", err, out.String(), errs.String())
	}
	nothingLeft()
	if errs.Len() > 0 {
		t.Errorf("the demo wrote to stderr: %s", errs.String())
	}
	if token := aJWT.FindString(out.String()); token != "" {
		t.Errorf("the demo printed a whole token that begins with %.20s", token)
	}
	for _, want := range []string{
		"checkout-calls-gateway", `"active": true`, `"active": false`, "HTTP 400", "no rule lets",
		"token has been revoked", "verdict  ok",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
}

// stalledDemo starts a demo whose first word does not fit into the pipe it writes to, and waits until its server is
// ready. What it returns lets it speak and reads all it has to say.
func stalledDemo(t *testing.T) (demo *exec.Cmd, dir string, hear func() string, nothingLeft func()) {
	t.Helper()
	demo, tmp, nothingLeft := demoIn(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatalf("making a pipe: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	fd := int(w.Fd()) // once: Fd makes it block again
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatalf("making a pipe: %v", err)
	}
	plug := 0
	for block := make([]byte, 1); ; plug++ { // until not one byte fits
		if _, err := unix.Write(fd, block); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatalf("filling a pipe: %v", err)
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatalf("making a pipe: %v", err)
	}
	demo.Stdout, demo.Stderr = w, io.Discard
	if err := demo.Start(); err != nil {
		t.Fatalf("starting the demo: %v", err)
	}
	_ = w.Close()
	t.Cleanup(func() { _ = demo.Process.Kill() })
	eventually(t, "the demo's server serves", func() error {
		logs, err := filepath.Glob(filepath.Join(tmp, "*", "server.log"))
		if err != nil || len(logs) != 1 {
			return fmt.Errorf("found the logs %v, %v", logs, err)
		}
		dir = filepath.Dir(logs[0])
		said, err := os.ReadFile(logs[0])
		if err == nil && !bytes.Contains(said, []byte(`"serving"`)) {
			err = fmt.Errorf("it says %q", said)
		}
		return err
	})
	hear = func() string {
		all, err := io.ReadAll(r)
		if err != nil || len(all) < plug {
			t.Fatalf("reading what the demo says: %d bytes, %v", len(all), err)
		}
		return string(all[plug:])
	}
	return demo, dir, hear, nothingLeft
}

func TestDemoFailsWhenItsStoryDoesNotComeTrue(t *testing.T) {
	t.Parallel()
	demo, dir, hear, nothingLeft := stalledDemo(t)
	policy := filepath.Join(dir, "policy", "shop.yaml")
	raw, err := os.ReadFile(policy)
	if err != nil {
		t.Fatalf("reading the demo's policy: %v", err)
	}
	broken := strings.Replace(string(raw), "service_account: checkout", "service_account: nobody", 1)
	if err := os.WriteFile(policy, []byte(broken), 0o600); err != nil {
		t.Fatalf("changing the demo's policy: %v", err)
	}
	eventually(t, "the demo's server reloads", func() error {
		said, err := os.ReadFile(filepath.Join(dir, "server.log"))
		if err == nil && !bytes.Contains(said, []byte(reloaded)) {
			err = fmt.Errorf("it says %q", said)
		}
		return err
	})
	out := hear()
	if err := demo.Wait(); demo.ProcessState.ExitCode() != exitFailed {
		t.Errorf("a demo whose policy refuses checkout ended with %v, want exit code %d:\n%s", err, exitFailed, out)
	}
	nothingLeft()
}

func TestInterruptedDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	demo, _, hear, nothingLeft := stalledDemo(t)
	if err := demo.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatalf("interrupting the demo: %v", err)
	}
	hear()
	if err := demo.Wait(); err == nil {
		t.Error("an interrupted demo ended with 0, want a failure")
	}
	nothingLeft()
}
