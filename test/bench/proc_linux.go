package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processCPU returns the processor time, user and system, that process pid has used since it began,
// all its threads together, the ended ones included.
//
// It reads the process's own CPU clock, the one clock_getcpuclockid(3) names: nanoseconds from the
// scheduler. /proc/PID/stat shows the same sum in ticks of 10 ms, which is 3 % of a short window at
// one connection; /proc/PID/task/*/schedstat is as fine but one file per thread, and forgets threads
// that ended between two readings. Time the kernel spends for the server on another task's account
// (network interrupts, disk write-back) is in none of them.
func processCPU(pid int) (time.Duration, error) {
	const perProcess, scheduler = 0, 2 // CPUCLOCK_PERTHREAD_MASK off, CPUCLOCK_SCHED (linux/posix-timers.h)
	var ts unix.Timespec
	clock := int32(^pid)<<3 | perProcess | scheduler
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// residentBytes returns the resident set size of process pid, in bytes.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseResident(string(text))
}

// machineBusy returns the processor time that everything on this machine, the kernel and time stolen
// by the hypervisor included, has used since boot. Resolution 10 ms.
func machineBusy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(text))
}

// loadAverage returns the one-minute load average.
func loadAverage() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	return parseLoad(string(text))
}

// childAttr makes a child die with this process, however this process dies, and keeps a terminal's
// interrupt away from it, so that it ends when we say.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
