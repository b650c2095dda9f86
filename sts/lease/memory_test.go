package lease_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

// memory is a ledger without a disk, so that tests can run in a bubble of time. step, when set, is called before and
// after everything that it keeps, and may fail it or not return.
type memory struct {
	step func(what string) error

	mu     sync.Mutex
	all    map[string]lease.Lease
	follow bool            // another replica leads
	hidden map[string]bool // what the index of what is due has forgotten, until it is written
}

var _ lease.Store = (*memory)(nil)

func TestMemoryIsALedger(t *testing.T) {
	t.Parallel()
	kept := map[*testing.T]*memory{}
	storetest.RunLeases(t, func(t *testing.T) (lease.Store, func()) {
		if kept[t] == nil {
			kept[t] = &memory{all: map[string]lease.Lease{}}
		}
		return kept[t], func() {}
	})
}

// at is a step. What it does after the deed has happened all the same.
func (m *memory) at(what string) error {
	if m.step == nil {
		return nil
	}
	if err := m.step(what); err != nil {
		return fmt.Errorf("%w: %w", lease.ErrUnavailable, err)
	}
	return nil
}

func copied(l lease.Lease) lease.Lease {
	l.Ancestors, l.Scopes, l.Handle = slices.Clone(l.Ancestors), slices.Clone(l.Scopes), slices.Clone(l.Handle)
	return l
}

func (m *memory) Open(_ context.Context, l lease.Lease, max lease.Limits) error {
	if err := m.at("before open"); err != nil {
		return err
	}
	if err := m.open(l, max); err != nil {
		return err
	}
	return m.at("after open")
}

func (m *memory) open(l lease.Lease, max lease.Limits) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.all[l.ID]; ok {
		return lease.ErrUnavailable
	}
	target, workload := 0, 0
	for _, o := range m.all {
		if o.Target == l.Target {
			target++
		}
		if o.Workload == l.Workload {
			workload++
		}
	}
	if err := max.Check(len(m.all), target, workload, l); err != nil {
		return err
	}
	m.all[l.ID] = copied(l)
	return nil
}

func (m *memory) Update(ctx context.Context, ids []string, change func(*lease.Lease) lease.Verdict) ([]lease.Lease, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", lease.ErrUnavailable, ctx.Err())
	}
	if err := m.at("before update"); err != nil {
		return nil, err
	}
	out := m.update(ids, change)
	if err := m.at("after update"); err != nil {
		return nil, err
	}
	return out, nil
}

func (m *memory) update(ids []string, change func(*lease.Lease) lease.Verdict) (out []lease.Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		l, ok := m.all[id]
		if !ok {
			continue
		}
		l = copied(l)
		switch change(&l) {
		case lease.Leave:
			continue
		case lease.Write:
			m.all[id] = copied(l)
			delete(m.hidden, id)
		case lease.Remove:
			delete(m.all, id)
		}
		out = append(out, l)
	}
	return out
}

// some returns the leases that are wanted, by when they are due.
func (m *memory) some(want func(lease.Lease) bool) (out []lease.Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.all {
		if want(l) {
			out = append(out, copied(l))
		}
	}
	slices.SortFunc(out, func(a, b lease.Lease) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID)) })
	return out
}

func (m *memory) Find(_ context.Context, fingerprint string) (lease.Lease, error) {
	for _, l := range m.some(func(l lease.Lease) bool { return fingerprint != "" && l.Fingerprint == fingerprint }) {
		return l, nil
	}
	return lease.Lease{}, lease.ErrUnknown
}

func (m *memory) Below(_ context.Context, id string) (out []string, err error) {
	for _, l := range m.some(func(l lease.Lease) bool { return l.ID == id || slices.Contains(l.Ancestors, id) }) {
		out = append(out, l.ID)
	}
	return out, nil
}

func (m *memory) Due(_ context.Context, target string, now time.Time, most int) ([]lease.Lease, error) {
	out := m.some(func(l lease.Lease) bool { return l.Target == target && !l.Due.After(now) && !m.hidden[l.ID] })
	return out[:min(most, len(out))], nil
}

func (m *memory) Counts(context.Context) (map[string]int, error) {
	out := map[string]int{}
	for _, l := range m.some(func(lease.Lease) bool { return true }) {
		out[l.Target]++
	}
	return out, nil
}

func (m *memory) Each(_ context.Context, do func(lease.Lease) error) error {
	for _, l := range m.some(func(lease.Lease) bool { return true }) {
		if err := do(l); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Lead(context.Context) (bool, error) { return !m.follow, nil }
