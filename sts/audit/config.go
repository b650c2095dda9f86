package audit

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Durability says what an acknowledged record survives.
type Durability string

// The durabilities.
const (
	// Process: written to the operating system before Append returns, synced at least every 50 ms. A killed
	// process loses nothing; a power cut at most what was acknowledged in the last 50 ms.
	Process Durability = "process"
	// Machine: synced before Append returns, one sync for all who wait.
	Machine Durability = "machine"
)

// Defaults and bounds.
const (
	DefaultReserve     = 64 << 20 // bytes of free disk below which only revocations are recorded
	DefaultSegmentSize = 64 << 20 // bytes; opening the log reads at most about this much
	smallestSegment    = 4 << 10

	// loss is what a power cut may take in Process mode: an Append that would be acknowledged while an
	// older record has waited longer than this for its sync waits for the sync too.
	loss = 50 * time.Millisecond
	// delay before a sync, so that it is shared; the rest of loss is for the sync itself.
	syncDelay = 20 * time.Millisecond
	// headEvery bounds how often the head file is written.
	headEvery = 50 * time.Millisecond
	// headLineEvery bounds how often a head goes into the chain.
	headLineEvery = time.Second
	// retryEvery is the pause between attempts to open a new segment while the log is down.
	retryEvery = 100 * time.Millisecond
	// spaceEvery bounds how often the free space is asked for.
	spaceEvery = 100 * time.Millisecond
	// pruneEvery is how often retention looks, and how long a process must have run before it first does.
	pruneEvery = time.Hour
	// segmentAge is when a segment ends though it is not full, so that retention can remove it.
	segmentAge = 24 * time.Hour
)

// Config says where a log lives and how it is kept.
type Config struct {
	Dir        string        // of the segments; made when it is missing
	HeadFile   string        // outside Dir, so that losing one does not lose the other
	Durability Durability    // "" means Process
	Keep       time.Duration // at least this long; 0 keeps everything

	// Reserve is how many bytes of disk stay free for revocations: below it exchanges and introspections
	// are refused. 0 means DefaultReserve.
	Reserve int64
	// SegmentSize is where a segment ends, in bytes. 0 means DefaultSegmentSize.
	SegmentSize int64

	Signer  crypto.Signer       // Ed25519
	OldKeys []ed25519.PublicKey // whose heads are believed too, after the key was replaced
	Now     func() time.Time    // nil means time.Now; stamps only, never used to measure
	FS      FS                  // nil means Disk
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.HeadFile == "" {
		return c, errors.New("the audit log needs a directory and a head file")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("audit directory: %w", err)
	}
	head, err := filepath.Abs(c.HeadFile)
	if err != nil {
		return c, fmt.Errorf("audit head file: %w", err)
	}
	if filepath.Dir(head) == dir {
		return c, errors.New("the head file must not be in the directory of the audit log: who can delete the one should miss the other")
	}
	c.Dir, c.HeadFile = dir, head
	if c.Durability == "" {
		c.Durability = Process
	}
	if c.Durability != Process && c.Durability != Machine {
		return c, fmt.Errorf("audit durability %q: want %s or %s", c.Durability, Process, Machine)
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = DefaultSegmentSize
	}
	if c.Keep < 0 || c.Reserve < 0 || c.SegmentSize < smallestSegment {
		return c, fmt.Errorf("audit: keep and reserve must not be negative, segments at least %d bytes", smallestSegment)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.FS == nil {
		c.FS = Disk{}
	}
	return c, nil
}
