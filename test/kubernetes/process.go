package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Process is a server that belongs to one test. It leads its own process group, which is what gets stopped:
// never a process found by name.
type Process struct {
	name   string
	log    string        // path of its standard output and error
	pid    int           // also the id of the process group
	exited chan struct{} // closed when the process is gone
	err    error         // why it is gone; read only after exited is closed
}

// Program is something to run.
type Program struct {
	Name string // for messages and the name of the log file
	Path string
	Args []string
	Env  []string // added to the environment of the test
}

// Run starts a program with its output in dir, and stops it when the test ends. A test that failed prints the
// end of that output.
func Run(tb testing.TB, dir string, program Program) *Process {
	tb.Helper()
	name := program.Name
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		tb.Fatalf("creating the log of %s: %v", name, err)
	}
	defer log.Close()
	cmd := exec.Command(program.Path, program.Args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), program.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = groupLeader()

	p := &Process{name: name, log: log.Name(), exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends the parent-death signal when the *thread* that started the child ends, so that thread
		// is kept for as long as the child lives (golang.org/issue/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		tb.Fatalf("starting %s: %v", name, err)
	}
	p.pid = cmd.Process.Pid
	tb.Cleanup(func() {
		if err := p.Stop(0); err != nil {
			tb.Errorf("stopping %s: %v", name, err)
		}
		if tb.Failed() {
			tb.Logf("end of %s.log:\n%s", name, p.Tail(40))
		}
	})
	return p
}

// Stop ends the process group and waits until the process is gone. With a grace it is asked first (SIGTERM)
// and killed when the grace is over, which is an error. Stopping a stopped process does nothing.
func (p *Process) Stop(grace time.Duration) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	if grace > 0 {
		_ = syscall.Kill(-p.pid, syscall.SIGTERM)
		select {
		case <-p.exited:
			return nil
		case <-time.After(grace):
		}
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("process %d did not die of SIGKILL", p.pid)
	}
	if grace > 0 {
		return fmt.Errorf("process %d was still running %s after SIGTERM", p.pid, grace)
	}
	return nil
}

// Exited returns nil while the process runs, and otherwise an error that says how it ended.
func (p *Process) Exited() error {
	select {
	case <-p.exited:
		return errors.Join(fmt.Errorf("%s ended by itself", p.name), p.err)
	default:
		return nil
	}
}

// Tail returns the last lines of what the process printed.
func (p *Process) Tail(lines int) []byte {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	all := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], []byte("\n"))
}
