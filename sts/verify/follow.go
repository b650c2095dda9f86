package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/federation/fetch"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Bounds of following.
const (
	DefaultMaxStale = 5 * time.Second
	LargestMaxStale = time.Minute

	maxEvent  = 64 << 10 // bytes
	firstWait = 250 * time.Millisecond
	mostWait  = 5 * time.Second
)

// Following says how the deployment's feed of revocations is followed (GET /revocations). It takes the same token as
// introspection, and tells of no identity.
type Following struct {
	// Bearer returns this resource server's own token for the target `introspection`, each time the feed is opened; white
	// space around it is no part of it.
	Bearer func(ctx context.Context) (secret.Value, error)
	// MaxStale is for how long tokens are let in after the deployment last said that everything had been told: the most by
	// which a revocation is noticed late. Then tokens are introspected, or, without [Config.Introspect], refused with
	// [ErrUnavailable]. 0 means DefaultMaxStale; at least 2 s, at most LargestMaxStale.
	MaxStale time.Duration
}

// feed is what was told so far. It only grows: what was dead once is dead, whatever is told later.
type feed struct {
	endpoint string
	network  fetch.Network
	bearer   func(context.Context) (secret.Value, error)
	maxStale time.Duration
	skew     time.Duration
	now      func() time.Time
	known    *revocation.Copy

	mu     sync.Mutex
	last   string              // id of the newest event
	newest revocation.Position // up to which everything was told, ever
	heard  time.Time           // when it was said last that everything was told, or before; zero for never
	opened time.Time           // when this feed was asked for
	first  int64               // the first that the deployment said of its clock in this feed, Unix milliseconds; 0 for nothing yet
	swept  time.Time           // what is over was dropped
	why    string              // nothing is heard
}

func newFeed(c Config, network fetch.Network, now func() time.Time) (*feed, error) {
	f := c.Follow
	stale := f.MaxStale
	if stale == 0 {
		stale = DefaultMaxStale
	}
	switch {
	case f.Bearer == nil:
		return nil, errors.New("following has no Bearer")
	case stale < 2*time.Second || stale > LargestMaxStale:
		return nil, fmt.Errorf("maximum staleness is %s, allowed are 2s to %s: the deployment speaks once a second", stale, LargestMaxStale)
	}
	skew := c.Skew
	if skew == 0 {
		skew = DefaultSkew
	}
	return &feed{
		endpoint: c.Issuer + "/revocations", network: network, bearer: f.Bearer, maxStale: stale, skew: skew, now: now,
		known: revocation.NewCopy(), why: "it has not been opened; is Verifier.Follow running?",
	}, nil
}

// Follow follows the feed until ctx ends, and opens it again when it breaks off. It runs once for a verifier with
// [Config.Follow], in a goroutine of its own, and without it returns at once.
func (v *Verifier) Follow(ctx context.Context) {
	if v.feed == nil {
		return
	}
	wait := firstWait
	for ctx.Err() == nil {
		opened := v.now()
		err := v.feed.read(ctx)
		v.feed.broke(err)
		if v.now().Sub(opened) > mostWait {
			wait = firstWait
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, mostWait)
	}
}

// Followed says up to which position everything has been told, how many entries are in force, and when the deployment last
// said so, for metrics; zeros for a verifier that follows nothing or has heard nothing.
func (v *Verifier) Followed() (position string, entries int, heard time.Time) {
	if v.feed == nil {
		return "", 0, time.Time{}
	}
	v.feed.mu.Lock()
	defer v.feed.mu.Unlock()
	return v.feed.newest.String(), v.feed.known.Len(), v.feed.heard
}

func (f *feed) dead(t Token) bool { return f.known.Dead(t.line) }

// fresh returns nil while everything is known that was in force maxStale ago.
func (f *feed) fresh() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	age := f.now().Sub(f.heard)
	if !f.heard.IsZero() && age >= 0 && age <= f.maxStale { // below 0: a clock that was set back says nothing
		return nil
	}
	return &refusedError{ErrUnavailable, "the feed of revocations is silent: " + f.why}
}

func (f *feed) broke(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.why = "it ended"; err != nil {
		f.why = err.Error()
	}
}

// read opens the feed and takes what it tells, until it ends or falls silent.
func (f *feed) read(ctx context.Context) error {
	bearer, err := f.bearer(ctx)
	if err != nil {
		return errors.New("no bearer: " + err.Error())
	}
	client, err := fetch.Stream(f.network)
	if err != nil {
		return errors.New("CAFile cannot be read")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(max(f.maxStale, fetch.TotalTimeout), cancel)
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.endpoint, nil)
	if err != nil {
		return errors.New("the endpoint is not a URL")
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(bearer.Reveal()))
	req.Header.Set("Accept", "text/event-stream")
	f.mu.Lock()
	f.opened, f.first = f.now(), 0
	if f.last != "" {
		req.Header.Set("Last-Event-ID", f.last)
	}
	f.mu.Unlock()
	res, err := client.Do(req)
	if err != nil {
		return errors.New(fetch.Reason(err))
	}
	defer res.Body.Close()
	return events(res.Body, func(e event) error {
		silence.Reset(f.maxStale)
		return f.take(e)
	})
}

// current is what the deployment says when everything up to a position was told.
type current struct {
	Position string `json:"position"`
	At       int64  `json:"at"` // Unix milliseconds
}

// take takes one event. What it cannot read ends the feed: a part of what is dead is not enough.
func (f *feed) take(e event) error {
	switch e.name {
	case "reset":
		return nil // all that is in force follows; what is known stays in force
	case "revoked":
		var n revocation.News
		if err := json.Unmarshal(e.data, &n); err != nil {
			return errors.New("an entry cannot be read")
		}
		if err := f.known.Add(n); err != nil {
			return errors.New("an entry is none")
		}
		return nil
	case "opened", "current":
		var c current
		if json.Unmarshal(e.data, &c) != nil {
			return errors.New("a position cannot be read")
		}
		f.mu.Lock()
		if f.first == 0 {
			f.first = c.At
		}
		f.mu.Unlock()
		if e.name == "opened" {
			return nil
		}
		return f.told(e.id, c)
	}
	return nil // of a later version
}

// told notes that everything up to a position was told, unless that is from before: a feed that somebody recorded, or of a
// deployment that was put back, says less than is known already. When it was said is counted on the deployment's clock from the first
// that this feed said of it, which was not before it was asked for: so what somebody on the way holds back, or says twice, is as old as it
// is, however the clocks differ.
func (f *feed) told(id string, c current) error {
	p, err := revocation.ParsePosition(c.Position)
	if err != nil {
		return errors.New("a position cannot be read")
	}
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.swept) > time.Minute {
		f.known.Forget(now)
		f.swept = now
	}
	switch said := time.UnixMilli(c.At); {
	case f.newest.After(p):
		f.why = "it is behind what it said before"
		return nil
	case said.Before(now.Add(-f.skew)) || said.After(now.Add(f.skew)):
		f.why = "its clock is more than the skew away; it may have been recorded"
		return nil
	}
	heard := f.opened.Add(time.Duration(c.At-f.first) * time.Millisecond)
	if heard.After(now) {
		heard = now
	}
	if now.Sub(heard) > f.maxStale {
		f.why = "what it says is late"
		return errors.New(f.why) // a feed that is opened anew may be in time
	}
	f.newest, f.heard, f.last = p, heard, id
	return nil
}

// event is one of server-sent events.
type event struct {
	name, id string
	data     []byte
}

// events calls take with each event (WHATWG HTML section 9.2.6).
func events(r io.Reader, take func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var e event
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if e.name != "" {
				if err := take(e); err != nil {
					return err
				}
			}
			e = event{}
		case field == "event":
			e.name = value
		case field == "id":
			e.id = value
		case field == "data":
			e.data = append(e.data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return errors.New(fetch.Reason(err))
	}
	return nil
}
