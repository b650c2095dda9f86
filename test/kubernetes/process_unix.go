//go:build unix && !linux

package kubernetes

import "syscall"

// groupLeader puts a child into a process group of its own. Outside Linux a test binary that dies without
// cleanup leaves its servers running.
func groupLeader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
