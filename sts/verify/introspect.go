package verify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/fetch"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Bounds of introspection.
const (
	DefaultMaxAge = 5 * time.Second
	LargestMaxAge = time.Minute // an answer that is kept for longer is no live check

	maxAnswers   = 10_000 // kept at once, some 2 MiB
	maxQuestions = 64     // under way at once; more wait
)

// Introspection says how the deployment is asked whether a token is alive (RFC 7662). The target must list this
// resource server under resource_servers, and a rule must grant it the target `introspection`.
type Introspection struct {
	// Bearer returns this resource server's own token for the target `introspection`, each time it is needed; white
	// space around it is no part of it. An error of it stands in that of [Verifier.Verify].
	Bearer func(ctx context.Context) (secret.Value, error)
	// MaxAge is how long an answer counts, from when it was asked for: the most by which a revocation is noticed late.
	// 0 asks each time. At most LargestMaxAge.
	MaxAge time.Duration
}

// Introspect returns an Introspection with DefaultMaxAge.
func Introspect(bearer func(ctx context.Context) (secret.Value, error)) *Introspection {
	return &Introspection{Bearer: bearer, MaxAge: DefaultMaxAge}
}

// live asks about tokens that have verified, and keeps the answers for a while.
type live struct {
	issuer   string
	endpoint string
	network  fetch.Network
	bearer   func(context.Context) (secret.Value, error)
	maxAge   time.Duration
	now      func() time.Time
	slots    chan struct{}

	mu         sync.Mutex
	asked      uint64 // questions so far
	young, old answers
}

// answers holds one question for each token. When the young half is full it becomes the old one, and what was old is
// forgotten. The token is not in it.
type answers map[federation.Fingerprint]*question

// question is one request to the deployment, under way or answered.
type question struct {
	number uint64
	at     time.Time     // before it was sent
	done   chan struct{} // closed when err is final
	err    error         // nil: the token is alive
}

func newLive(c Config, network fetch.Network, now func() time.Time) (*live, error) {
	switch i := c.Introspect; {
	case i.Bearer == nil:
		return nil, errors.New("introspection has no Bearer")
	case i.MaxAge < 0 || i.MaxAge > LargestMaxAge:
		return nil, fmt.Errorf("maximum age of answers is %s, allowed are 0 to %s", i.MaxAge, LargestMaxAge)
	}
	return &live{
		issuer: c.Issuer, endpoint: c.Issuer + "/introspect", network: network,
		bearer: c.Introspect.Bearer, maxAge: c.Introspect.MaxAge, now: now,
		slots: make(chan struct{}, maxQuestions), young: answers{},
	}, nil
}

// check returns nil when the deployment calls the token active, by an answer that was asked for no longer than maxAge
// before the call. There is one question at a time for one token, and a caller who came too late for the one under
// way waits for the next.
func (l *live) check(ctx context.Context, t Token, raw secret.Value) error {
	ctx, cancel := context.WithTimeout(ctx, fetch.TotalTimeout)
	defer cancel()
	came := l.now()
	since := l.count()
	for {
		q, counts := l.question(t, raw, came, since)
		select {
		case <-q.done:
		case <-ctx.Done():
			return unanswered("the deployment did not answer in time")
		}
		if counts {
			return q.err
		}
	}
}

func (l *live) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// question returns the question whose answer counts for a caller who came at a time when so many had been asked;
// false means that another is under way that does not, and has to end first.
func (l *live) question(t Token, raw secret.Value, came time.Time, since uint64) (*question, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.find(t.fingerprint)
	if q != nil && (q.number > since || q.fresh(came, l.maxAge)) {
		return q, true
	}
	if q != nil && !q.over() {
		return q, false
	}
	l.asked++
	// Until there is an answer the answer is no, whatever happens to the goroutine.
	q = &question{number: l.asked, at: l.now(), done: make(chan struct{}), err: unanswered("the question was not asked")}
	l.keep(t.fingerprint, q)
	go l.run(q, t, raw)
	return q, true
}

// fresh reports whether the answer, or the one that will come, is new enough for somebody who came at a time. What
// went wrong is kept for nobody.
func (q *question) fresh(came time.Time, maxAge time.Duration) bool {
	age := came.Sub(q.at)
	if age < 0 || age >= maxAge { // below 0: a clock that was set back says nothing
		return false
	}
	return !q.over() || q.err == nil || errors.Is(q.err, ErrInactive)
}

func (q *question) over() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// find needs the lock, as does keep.
func (l *live) find(f federation.Fingerprint) *question {
	if q := l.young[f]; q != nil {
		return q
	}
	return l.old[f]
}

func (l *live) keep(f federation.Fingerprint, q *question) {
	if len(l.young) >= maxAnswers/2 {
		l.old, l.young = l.young, answers{}
	}
	l.young[f] = q
}

// run asks, on nobody's behalf: whoever came first may leave, others wait for the same answer.
func (l *live) run(q *question, t Token, raw secret.Value) {
	ctx, cancel := context.WithTimeout(context.Background(), fetch.TotalTimeout)
	defer cancel()
	defer close(q.done)
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
		q.err = l.ask(ctx, t, raw)
	case <-ctx.Done():
		q.err = unanswered("too many questions are under way")
	}
}

// ask is one request (RFC 7662 section 2).
func (l *live) ask(ctx context.Context, t Token, raw secret.Value) error {
	bearer, err := l.bearer(ctx)
	if err != nil {
		return unanswered("no bearer: " + err.Error())
	}
	own := strings.TrimSpace(bearer.Reveal())
	if own == "" {
		return unanswered("the bearer is empty")
	}
	client, err := fetch.New(l.network) // reads the certificate authorities, which may have changed
	if err != nil {
		return unanswered("CAFile cannot be read")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.endpoint, strings.NewReader(url.Values{"token": {raw.Reveal()}}.Encode()))
	if err != nil {
		return unanswered("the endpoint is not a URL")
	}
	req.Header.Set("Authorization", "Bearer "+own)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return unanswered(fetch.Reason(err))
	}
	defer res.Body.Close()
	var answer struct {
		Active *bool  `json:"active"`
		Issuer string `json:"iss"`
		ID     string `json:"jti"`
	}
	switch err := json.UnmarshalRead(res.Body, &answer); {
	case err != nil || answer.Active == nil:
		return unanswered("the answer is none of RFC 7662")
	case !*answer.Active:
		return ErrInactive
	case answer.Issuer != l.issuer || answer.ID != t.lease: // a cache on the way that mixes answers up
		return unanswered("the answer is about another token")
	}
	return nil
}

func unanswered(why string) error {
	return &refusedError{ErrUnavailable, "introspection: " + why}
}
