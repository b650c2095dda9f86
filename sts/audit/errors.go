package audit

import "errors"

var (
	// ErrUnavailable means that the record is not in the log, or not known to be durable: issue nothing.
	// It goes away by itself when the disk does what it should again.
	ErrUnavailable = errors.New("audit log is unavailable")

	// ErrLocked means that another process writes this log.
	ErrLocked = errors.New("audit log is in use by another process")

	// ErrContradiction means that what stands on the disk is not what was signed: records were changed or
	// removed, or the head file was. Only [Log.Health] and [Log.Accept] speak of it; the log goes on.
	ErrContradiction = errors.New("audit log contradicts its signed head")
)
