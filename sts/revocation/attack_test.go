package revocation_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// late is a log that holds the answer to one append back, when it is durable already.
type late struct {
	memory
	hold map[string]chan struct{}
}

func (l *late) Append(ctx context.Context, e revocation.Entry) (revocation.Position, error) {
	p, err := l.memory.Append(ctx, e)
	if c := l.hold[e.Decision]; c != nil {
		c <- struct{}{}
		<-c
	}
	return p, err
}

func selecting(decision string, terms ...string) revocation.Entry {
	return revocation.Entry{Selector: terms, Decision: decision, At: time.Unix(1000, 0), Until: time.Unix(2000, 0)}
}

// Of two revocations at once the second may be in force first. What is decided then was decided before the first.
func TestPositionNeverPassesARevocationThatIsNotInForceYet(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := newSet(t, &late{hold: map[string]chan struct{}{"first": hold}})
	done := make(chan error)
	go func() {
		_, _, err := s.Revoke(context.Background(), selecting("first", "subject=x"))
		done <- err
	}()
	<-hold // durable, and not in force
	if _, _, err := s.Revoke(context.Background(), selecting("second", "subject=y")); err != nil {
		t.Fatal(err)
	}
	minted := revocation.Facts{Parts: []revocation.Part{{At: s.Position(), Terms: []revocation.Digest{s.Hasher().Term("subject", "x")}}}}
	if _, dead := s.Dead(minted); dead {
		t.Fatal("the first is in force: the test shows nothing")
	}
	hold <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, dead := s.Dead(minted); !dead {
		t.Errorf("what was decided at %v before a revocation was in force lives on", minted.Parts[0].At)
	}
	if p := s.Position(); p.N != 2 {
		t.Errorf("both are in force, and the position is %v", p)
	}
}
