package built

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

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
	if finished(path) {
		t.Error("finished: got true for a file that does not exist")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if finished(path) {
		t.Error("finished: got true for a file that cannot be executed")
	}
}
