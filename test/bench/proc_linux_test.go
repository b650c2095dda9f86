package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestProcessCPUAgreesWithWait burns CPU in a child and compares our reading, taken before it is reaped, with what the
// kernel says at the end.
func TestProcessCPUAgreesWithWait(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read _")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the loop is over
		t.Fatal(err)
	}
	got, err := processCPU(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	cmd.Wait()
	want := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got < 20*time.Millisecond || got > want+10*time.Millisecond || want-got > time.Second {
		t.Errorf("read %v before the end, the kernel counted %v in all", got, want)
	}
	if later, err := processCPU(cmd.Process.Pid); err == nil {
		t.Errorf("a process that has ended still has a clock: %v", later)
	}
}

// TestProcessCPUCountsAllThreads burns CPU on other threads than the one that asks.
func TestProcessCPUCountsAllThreads(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	for range 2 {
		go func() {
			n := 0
			for start := ownUsage(t); ownUsage(t)-start < 60*time.Millisecond; n++ {
			}
			done <- n
		}()
	}
	<-done
	<-done
	after, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 55*time.Millisecond || used > 10*time.Second {
		t.Errorf("the clock advanced %v over at least 60 ms of work", used)
	}
}

// ownUsage is the CPU time of this process by getrusage(2).
func ownUsage(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Error(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestMachineReadings(t *testing.T) {
	rss, err := residentBytes(os.Getpid())
	if err != nil || rss < 1<<20 || rss > 64<<30 {
		t.Errorf("resident size of this test: %d bytes, error %v", rss, err)
	}
	busy, err := machineBusy()
	if err != nil || busy <= 0 {
		t.Errorf("machine busy for %v, error %v", busy, err)
	}
	if load, err := loadAverage(); err != nil || load < 0 {
		t.Errorf("load average %v, error %v", load, err)
	}
}
