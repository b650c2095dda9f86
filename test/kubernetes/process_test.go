package kubernetes

import (
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
