package sts_test

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/sts/replay"
)

// marks keeps marks in memory and can be told to fail.
type marks struct {
	mu   sync.Mutex
	held map[replay.Key]string
	fail error
}

func (m *marks) Mark(_ context.Context, k replay.Key, decision string, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if _, ok := m.held[k]; ok {
		return replay.ErrUsed
	}
	m.held[k] = decision
	return nil
}

func (m *marks) Release(_ context.Context, k replay.Key, decision string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[k] == decision {
		delete(m.held, k)
	}
	return nil
}
