package revocation_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// mac authenticates the entries of the tests.
var mac = []byte("0123456789abcdef0123456789abcdef")

// memory is a Log that can be told to fail.
type memory struct {
	mu      sync.Mutex
	entries []revocation.Entry
	fail    error
}

func (m *memory) Append(_ context.Context, e revocation.Entry) (revocation.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return revocation.Position{}, m.fail
	}
	m.entries = append(m.entries, e)
	return revocation.Position{Epoch: 1, N: uint64(len(m.entries))}, nil
}

func (m *memory) Load(_ context.Context, each func(revocation.Position, revocation.Entry) error) (revocation.Position, error) {
	for i, e := range m.entries {
		if err := each(revocation.Position{Epoch: 1, N: uint64(i + 1)}, e); err != nil {
			return revocation.Position{}, err
		}
	}
	return revocation.Position{Epoch: 1, N: uint64(len(m.entries))}, m.fail
}

func (m *memory) Prune(context.Context, time.Time) (int, error) { return 0, m.fail }

func newSet(t *testing.T, log revocation.Log) *revocation.Set {
	t.Helper()
	s, err := revocation.New(context.Background(), log, mac)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entry(lease string) revocation.Entry {
	return revocation.Entry{Lease: lease, Decision: "d-" + lease, At: time.Unix(1000, 0), Until: time.Unix(2000, 0)}
}

func TestRevokingKillsTheLeaseAndItsDescendantsButNotItsAncestors(t *testing.T) {
	t.Parallel()
	s := newSet(t, new(memory))
	if _, _, err := s.Revoke(context.Background(), entry("parent")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		lease     string
		ancestors []string
		dead      bool
	}{
		{"itself", "parent", []string{"root"}, true},
		{"child", "child", []string{"root", "parent"}, true},
		{"grandchild", "grandchild", []string{"root", "parent", "child"}, true},
		{"ancestor", "root", nil, false},
		{"sibling", "sibling", []string{"root"}, false},
		{"a platform's token", "", nil, false},
	} {
		if _, dead := s.Dead(revocation.Facts{Lease: tc.lease, Ancestors: tc.ancestors}); dead != tc.dead {
			t.Errorf("%s: dead is %v, want %v", tc.name, dead, tc.dead)
		}
	}
}

func TestRevocationThatIsNotDurableIsNotClaimed(t *testing.T) {
	t.Parallel()
	log := new(memory)
	s := newSet(t, log)
	log.fail = errors.New("disk gone")
	if _, _, err := s.Revoke(context.Background(), entry("x")); !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("Revoke says %v, want ErrUnavailable", err)
	}
	if _, dead := s.Dead(revocation.Facts{Lease: "x"}); dead {
		t.Error("what was not acknowledged is in force only until the next restart; it must not be in force at all")
	}
}

func TestRevocationsSurviveARestartAndPositionsGrow(t *testing.T) {
	t.Parallel()
	log := new(memory)
	s := newSet(t, log)
	before := s.Position()
	p, _, err := s.Revoke(context.Background(), entry("a"))
	if err != nil || p.N <= before.N {
		t.Fatalf("position went from %v to %v (%v)", before, p, err)
	}
	again := newSet(t, log)
	if _, dead := again.Dead(revocation.Facts{Lease: "a"}); !dead || again.Position() != p {
		t.Errorf("after a restart: dead %v at %v, want true at %v", dead, again.Position(), p)
	}
}

func TestRevokingTwiceWritesOnce(t *testing.T) {
	t.Parallel()
	log := new(memory)
	s := newSet(t, log)
	for range 3 {
		if _, _, err := s.Revoke(context.Background(), entry("a")); err != nil {
			t.Fatal(err)
		}
	}
	if len(log.entries) != 1 || s.Len() != 1 {
		t.Errorf("%d entries written, %d held, want 1 and 1", len(log.entries), s.Len())
	}
}

func TestPruneForgetsOnlyWhatNothingCanMatch(t *testing.T) {
	t.Parallel()
	s := newSet(t, new(memory))
	if _, _, err := s.Revoke(context.Background(), entry("a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(context.Background(), time.Unix(2000, 0)); err != nil {
		t.Fatal(err)
	}
	if _, dead := s.Dead(revocation.Facts{Lease: "a"}); !dead {
		t.Error("forgotten while a token could still live")
	}
	if err := s.Prune(context.Background(), time.Unix(2001, 0)); err != nil {
		t.Fatal(err)
	}
	if s.Len() != 0 {
		t.Error("kept after the last token died")
	}
}

func TestPositionRoundTrips(t *testing.T) {
	t.Parallel()
	p := revocation.Position{Epoch: 3, N: 42}
	if got, err := revocation.ParsePosition(p.String()); err != nil || got != p {
		t.Errorf("%s parses to %v (%v)", p, got, err)
	}
	for _, bad := range []string{"", "1", "1.", ".1", "1.x", "-1.2", "1.2.3"} {
		if _, err := revocation.ParsePosition(bad); err == nil {
			t.Errorf("%q parses", bad)
		}
	}
}
