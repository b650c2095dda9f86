package kubernetes

import "syscall"

// groupLeader puts a child into a process group of its own and ties its life to ours: a test binary that
// panics on its time limit runs no cleanup, and must not leave a server behind.
func groupLeader() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
