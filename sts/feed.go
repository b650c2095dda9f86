package sts

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Bounds of the feed of revocations.
const (
	feedBeat   = time.Second      // between two words that all is told
	feedWrite  = 5 * time.Second  // a reader that takes longer to read is cut
	feedsEach  = 8                // read by one resource server at once
	feedsInAll = 512              // read by all
	feedRenew  = 10 * time.Minute // a reader connects anew: its replica may be leaving
)

// feeds counts who reads, and tells them to go.
type feeds struct {
	mu   sync.Mutex
	all  int
	each map[string]int // by workload
	life string         // of this process: news are numbered within it
	stop chan struct{}
	once sync.Once
}

func newFeeds(life string) *feeds {
	return &feeds{each: map[string]int{}, life: life, stop: make(chan struct{})}
}

func (f *feeds) enter(who string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all >= feedsInAll || f.each[who] >= feedsEach {
		return false
	}
	f.all++
	f.each[who]++
	return true
}

func (f *feeds) leave(who string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.each[who]--; f.each[who] == 0 {
		delete(f.each, who)
	}
}

// CloseFeeds ends every feed of revocations, and lets none begin: the service is about to end.
func (x *Exchanger) CloseFeeds() { x.feeds.once.Do(func() { close(x.feeds.stop) }) }

// serveFeed answers GET /revocations: server-sent events (WHATWG HTML section 9.2) with what is in force, to whoever may
// introspect. They tell of no identity and no target: see [revocation.News]. The events are
//
//	opened    the first, at once: {"at": Unix milliseconds}, by which a reader tells how late the rest comes
//	reset     everything that is in force follows; what the reader knows from before stays in force for it
//	revoked   one piece of news
//	current   everything up to here was told: {"position": "EPOCH.N", "at": Unix milliseconds}
//
// current comes once a second, and after each revocation; a reader that has not seen one for its bound knows nothing. Ids are LIFE.N: who comes
// back with the newest one (Last-Event-ID) is told what it missed, or everything. The feed ends when this replica may have missed
// something, when the reader's token ends or is dead, and when a reader does not read.
func (x *Exchanger) serveFeed(w http.ResponseWriter, r *http.Request) {
	state, now := x.state.Load(), x.now()
	err := x.revocations.Fresh()
	var who federation.Workload
	if err == nil {
		who, err = x.caller(r, state, now)
	}
	if err == nil && !x.feeds.enter(who.ID()) {
		err = fmt.Errorf("%w: too many feeds", ErrRateLimited)
	}
	if err != nil {
		e := x.open(Request{Remote: remote(r)})
		e.rec.Type = audit.TypeIntrospection
		e.refuse(r.Context(), err).write(w)
		return
	}
	defer x.feeds.leave(who.ID())
	ctx, cancel := context.WithTimeout(r.Context(), feedRenew)
	defer cancel()
	out := &eventWriter{w: w, rc: http.NewResponseController(w)}
	out.err = out.rc.SetReadDeadline(time.Time{}) // that of a request; nothing more is read
	noStore(w.Header())
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out.event("opened", "", map[string]any{"at": x.now().UnixMilli()})
	if out.flush() != nil {
		return
	}
	x.follow(ctx, out, who, r.Header.Get("Last-Event-ID"))
}

// follow tells until there is a reason to stop.
func (x *Exchanger) follow(ctx context.Context, out *eventWriter, who federation.Workload, last string) {
	at, known := uint64(0), false
	if life, n, ok := strings.Cut(last, "."); ok && life == x.feeds.life {
		parsed, err := strconv.ParseUint(n, 10, 64)
		at, known = parsed, err == nil
	}
	for first := true; ; first = false {
		// Read before the news: what is said to be told was in force before they were read.
		position, fresh := x.revocations.Applied(), x.revocations.Fresh()
		list, newest, ok := x.revocations.News(at)
		if first && !known || !ok {
			at = x.everything(out)
		} else {
			for _, n := range list {
				out.event("revoked", "", n)
			}
			at = newest
		}
		if _, dead := x.revocations.Dead(x.asks(who)); dead || fresh != nil || !x.now().Before(who.Token().Expires()) {
			return
		}
		out.event("current", x.feeds.life+"."+strconv.FormatUint(at, 10), map[string]any{"position": position.String(), "at": x.now().UnixMilli()})
		if out.flush() != nil {
			return
		}
		beat, cancel := context.WithTimeout(ctx, feedBeat)
		go func() {
			select {
			case <-x.feeds.stop:
				cancel()
			case <-beat.Done():
			}
		}()
		x.revocations.Wait(beat, at)
		cancel()
		select {
		case <-x.feeds.stop:
			return
		case <-ctx.Done():
			return
		default:
		}
	}
}

// everything tells all that is in force.
func (x *Exchanger) everything(out *eventWriter) uint64 {
	out.event("reset", "", struct{}{})
	at, _ := x.revocations.Everything(x.now(), func(n revocation.News) error {
		out.event("revoked", "", n)
		return out.err
	})
	return at
}

// eventWriter writes events, and gives up on a reader that does not read. After an error it writes nothing.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	n   int
	err error
}

func (o *eventWriter) event(name, id string, data any) {
	if o.err != nil {
		return
	}
	raw, err := json.Marshal(data)
	if err != nil {
		o.err = err
		return
	}
	if o.n++; o.n%256 == 1 {
		o.err = o.rc.SetWriteDeadline(time.Now().Add(feedWrite))
	}
	if o.err == nil {
		if id != "" {
			_, o.err = fmt.Fprintf(o.w, "id: %s\n", id)
		}
		if o.err == nil {
			_, o.err = fmt.Fprintf(o.w, "event: %s\ndata: %s\n\n", name, raw)
		}
	}
}

func (o *eventWriter) flush() error {
	if o.err == nil {
		o.err = o.rc.SetWriteDeadline(time.Now().Add(feedWrite))
	}
	if o.err == nil {
		o.err = o.rc.Flush()
	}
	return o.err
}
