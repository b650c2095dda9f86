package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExitedSaysThatAServerEndedByItself(t *testing.T) {
	p := Run(t, t.TempDir(), Program{Name: "shell", Path: "/bin/sh", Args: []string{"-c", "echo no such flag; exit 7"}})
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the shell did not end")
	}
	if err := p.Exited(); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("Exited: got %v, want the exit status", err)
	}
	if got := string(p.Tail(5)); got != "no such flag" {
		t.Errorf("Tail: got %q, want what the program printed", got)
	}
}

func TestBuildLockAdmitsOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		second, err := lock(t.Context(), path)
		if err == nil {
			second()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("second lock while the first is held: got %v at once, want it to wait", err)
	case <-time.After(300 * time.Millisecond):
	}
	unlock()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("second lock after the first was dropped: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("second lock: still waiting 5 s after the first was dropped")
	}
}

func TestUnfinishedBuildIsNotTakenForAServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kube-apiserver")
	if built(path) {
		t.Error("built: got true for a file that does not exist")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if built(path) {
		t.Error("built: got true for a file that cannot be executed")
	}
}
