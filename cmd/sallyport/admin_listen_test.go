package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAdminSocketIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	l, err := listenAdmin(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("the mode of the socket is %v, want a socket with 0600", got)
	}
}

func TestAdminSocketReplacesOnlyADeadSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: got %v, want a refusal", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "precious" {
		t.Errorf("the file in the way has %q (%v), want it untouched", raw, err)
	}
	_ = os.Remove(path)

	first, err := listenAdmin(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("over a live socket: got %v, want a refusal", err)
	}
	if err := first.(*adminSocket).UnixListener.Close(); err != nil { // as a killed process leaves it
		t.Fatal(err)
	}
	second, err := listenAdmin(path)
	if err != nil {
		t.Fatalf("over a socket that a dead process left: %v", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the new socket does not answer: %v", err)
	}
	_ = conn.Close()
	_ = first.Close() // no longer its own
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a listener took away the socket of the next one: %v", err)
	}
	_ = second.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there after its listener was closed")
	}
}

func TestAdminSocketIsNotMadeWhereEverybodyMayWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAdmin(filepath.Join(dir, "a")); err == nil || !strings.Contains(err.Error(), "everybody may write") {
		t.Errorf("got %v, want a refusal", err)
	}
}
