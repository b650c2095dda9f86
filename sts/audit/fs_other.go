//go:build !unix

package audit

import (
	"errors"
	"io"
)

// Free is not known here: the log is written on Unix and only read elsewhere.
func (Disk) Free(string) (int64, error) { return 0, errors.ErrUnsupported }

// Lock is not known here: the log is written on Unix and only read elsewhere.
func (Disk) Lock(string) (io.Closer, error) { return nil, errors.ErrUnsupported }
