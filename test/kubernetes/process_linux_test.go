package kubernetes

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStopEndsTheWholeProcessGroup(t *testing.T) {
	// The shell ignores the polite signal and has a child, as a server with a helper would.
	p := Run(t, t.TempDir(), Program{Name: "shell", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; sleep 600 & echo child $!; wait; sleep 600"}})
	child := 0
	err := poll(t.Context(), 10*time.Millisecond, func() (err error) {
		rest, _ := strings.CutPrefix(string(p.Tail(1)), "child ")
		child, err = strconv.Atoi(rest)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(100 * time.Millisecond); err == nil {
		t.Error("Stop of a process that ignores SIGTERM: got no error, want one that says so")
	}
	waitForEnd(t, child)
	if err := p.Stop(0); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

// A test binary that is killed, or that panics on its time limit, runs no cleanup.
func TestServersDieWithATestThatRunsNoCleanup(t *testing.T) {
	const role = "SALLYPORT_TEST_ABANDONS_A_SERVER"
	if os.Getenv(role) != "" { // the copy of this test that the code below starts
		p := Run(t, os.Getenv(role), Program{Name: "sleep", Path: "/bin/sleep", Args: []string{"600"}})
		_, _ = os.Stdout.WriteString("pid " + strconv.Itoa(p.pid) + "\n")
		time.Sleep(time.Minute)
		t.Fatal("nobody killed this process")
	}

	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	self.Env = append(os.Environ(), role+"="+t.TempDir())
	out, err := self.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, err = strconv.Atoi(rest)
		}
	}
	_ = self.Process.Kill()
	_ = self.Wait()
	if err != nil || pid == 0 {
		t.Fatalf("the copy of this test printed no process id (%v)", err)
	}
	waitForEnd(t, pid)
}

// waitForEnd fails when the process still runs after some seconds, and then ends it.
func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for running(pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d still runs 10 s after it should have ended", pid)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// running reports whether a process exists and is no zombie: in a container nobody may reap what we orphaned.
func running(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}
