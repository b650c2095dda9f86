//go:build !unix

package keys

import (
	"io"
	"os"
)

// lockDir does not lock here: the service runs on Unix.
func lockDir(dir string) (io.Closer, error) { return os.Open(dir) }

func keepOwner(string, string) error { return nil }
