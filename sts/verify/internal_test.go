package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/federation/fetch"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// What may be reached follows from configuration alone: http and loopback only where the issuer says so itself.
func TestNetworkIsAsNarrowAsTheIssuer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		config Config
		want   fetch.Network
	}{
		{Config{Issuer: "https://sts.example"}, fetch.Network{}},
		{Config{Issuer: "https://10.0.0.1", CAFile: "ca.pem"}, fetch.Network{CAFile: "ca.pem"}},
		{Config{Issuer: "https://sts.example", AllowPrivate: true}, fetch.Network{AllowPrivate: true}},
		{Config{Issuer: "https://127.0.0.1:8443"}, fetch.Network{AllowPrivate: true}},
		{Config{Issuer: "http://localhost:8443"}, fetch.Network{AllowPrivate: true, AllowHTTP: true}},
	} {
		if got, err := tc.config.network(); err != nil || got != tc.want {
			t.Errorf("%+v: got %+v, %v; want %+v", tc.config, got, err, tc.want)
		}
	}
}

// bearerless is a live check that never gets as far as the network.
func bearerless(t *testing.T, maxAge time.Duration, bearer func(context.Context) (secret.Value, error)) *live {
	t.Helper()
	l, err := newLive(Config{Issuer: "https://sts.example", Introspect: &Introspection{Bearer: bearer, MaxAge: maxAge}}, fetch.Network{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tokenNumber(i int) Token { return Token{fingerprint: sha256.Sum256([]byte(strconv.Itoa(i)))} }

// A bearer that never comes holds nobody for longer than an answer may take, and no more than so many at once.
func TestBearerThatNeverComesHoldsNobodyForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var waiting atomic.Int32
		release := make(chan struct{})
		l := bearerless(t, 0, func(context.Context) (secret.Value, error) {
			waiting.Add(1)
			<-release
			return secret.Value{}, errors.New("too late")
		})
		began := time.Now()
		const many = 2 * maxQuestions
		errs := make(chan error, many)
		for i := range many {
			go func() { errs <- l.check(context.Background(), tokenNumber(i), secret.New("token")) }()
		}
		for range many {
			if err := <-errs; !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		}
		if took := time.Since(began); took != fetch.TotalTimeout {
			t.Errorf("it took %s, want %s", took, fetch.TotalTimeout)
		}
		if n := waiting.Load(); n != maxQuestions {
			t.Errorf("%d questions were under way at once, want %d", n, maxQuestions)
		}
		close(release)
	})
}

// Those who come while a question is under way that is too old for them share the next one.
func TestThoseWhoWaitShareTheNextAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		first := make(chan struct{})
		l := bearerless(t, 0, func(context.Context) (secret.Value, error) {
			if asked.Add(1) == 1 {
				<-first
			}
			time.Sleep(time.Second)
			return secret.Value{}, errors.New("none")
		})
		var all sync.WaitGroup
		ask := func() { _ = l.check(t.Context(), tokenNumber(1), secret.New("token")) }
		all.Go(ask)
		synctest.Wait()
		for range 10 {
			all.Go(ask)
		}
		synctest.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("%d questions are under way about one token", n)
		}
		close(first)
		all.Wait()
		if n := asked.Load(); n != 2 {
			t.Errorf("%d questions were asked, want one more", n)
		}
	})
}

// However many tokens come, so many answers are kept.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	l := bearerless(t, time.Minute, func(context.Context) (secret.Value, error) { return secret.Value{}, nil })
	most := 0
	for i := range 2*maxAnswers + 1 {
		if err := l.check(t.Context(), tokenNumber(i), secret.New("token")); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		most = max(most, len(l.young)+len(l.old))
	}
	if most > maxAnswers || most < maxAnswers/2 {
		t.Errorf("%d answers were kept, want %d at most", most, maxAnswers)
	}
}

// Answers age by a clock that may be set back; then they are of no age that counts. What went wrong never counts for
// who comes later.
func TestAnswerCountsForItsAgeAlone(t *testing.T) {
	t.Parallel()
	at := time.Now()
	over := make(chan struct{})
	close(over)
	for _, tc := range []struct {
		q    question
		age  time.Duration
		want bool
	}{
		{question{at: at, done: over}, 0, true},
		{question{at: at, done: over}, time.Second - 1, true},
		{question{at: at, done: over}, time.Second, false},
		{question{at: at, done: over}, -1, false},
		{question{at: at, done: over, err: ErrInactive}, 0, true},
		{question{at: at, done: over, err: unanswered("x")}, 0, false},
		{question{at: at, done: make(chan struct{}), err: unanswered("not yet")}, 0, true}, // to be waited for
	} {
		if got := tc.q.fresh(at.Add(tc.age), time.Second); got != tc.want {
			t.Errorf("%v after %s: %v, want %v", tc.q.err, tc.age, got, tc.want)
		}
	}
	if (&question{at: at, done: over}).fresh(at, 0) {
		t.Error("with no age at all, an answer counts for somebody who did not wait for it")
	}
}

// Until there is an answer the answer is no: a callback that ends its goroutine opens nothing.
func TestQuestionThatIsNeverAskedIsNoAnswer(t *testing.T) {
	t.Parallel()
	l := bearerless(t, time.Minute, func(context.Context) (secret.Value, error) {
		runtime.Goexit()
		return secret.Value{}, nil
	})
	if err := l.check(t.Context(), tokenNumber(1), secret.New("token")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
