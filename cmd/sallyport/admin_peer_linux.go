package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// peerOf names the process at the other end of a unix socket, and its user, by the kernel's word (SO_PEERCRED).
func peerOf(c net.Conn) (name, person string, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "", "", errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "", "", err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return "", "", err
	}
	if credErr != nil {
		return "", "", credErr
	}
	return fmt.Sprintf("uid=%d pid=%d", cred.Uid, cred.Pid), fmt.Sprintf("uid=%d", cred.Uid), nil
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
