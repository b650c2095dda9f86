package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-sts/sallyport/sts/operator"
)

// listenAdmin opens the admin socket, for its owner alone. What stands at path is removed only when it is a socket
// that nobody listens on; the state that this process has locked by now keeps a second server from racing it.
func listenAdmin(path string) (net.Listener, error) {
	l, err := openSocket(path)
	if err != nil {
		return nil, fmt.Errorf("listen.admin: %w", err)
	}
	return l, nil
}

func openSocket(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; make the directory, for the user that runs sallyport alone", err)
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("everybody may write in %s and so put another socket there; chmod o-w it, or name another directory", dir)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Made where nobody else can look and moved into place when its mode is right: between bind and chmod it
	// would be open to whoever the umask lets in.
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Link(made, path) // unlike a rename, it replaces nothing
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mine, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &adminSocket{UnixListener: l, path: path, mine: mine}, nil
}

// removeStale removes a socket that a killed process left behind, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket; it is left alone: remove it, or name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("another process listens on %s; stop it, or name another path", path)
	}
	if !refused(err) {
		return fmt.Errorf("cannot tell whether somebody listens on %s: %w", path, err)
	}
	return os.Remove(path)
}

// adminSocket takes its name away when it closes, if it is still its own.
type adminSocket struct {
	*net.UnixListener
	path string
	mine os.FileInfo
}

// Close implements net.Listener.
func (s *adminSocket) Close() error {
	if info, err := os.Lstat(s.path); err == nil && os.SameFile(info, s.mine) && info.ModTime().Equal(s.mine.ModTime()) { // numbers of files are used again
		_ = os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// withOperator puts who connected into the context of all the requests of a connection.
func withOperator(ctx context.Context, c net.Conn) context.Context {
	name, person, err := peerOf(c)
	if err != nil {
		return ctx // and the handler refuses
	}
	return operator.With(ctx, operator.Local(name, person))
}
