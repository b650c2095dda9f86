package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// haul is what clients were told before the server died.
type haul struct {
	mu      sync.Mutex
	tokens  []string        // received
	revoked map[string]bool // jti of those whose revocation was acknowledged
	strange []string        // answers that are neither success nor a dead connection
}

func (h *haul) got(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens = append(h.tokens, token)
}

func (h *haul) dead(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revoked[claim(token, "jti")] = true
}

func (h *haul) oddly(did string, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.strange = append(h.strange, fmt.Sprintf("%s: got %s, want 200 or a dead connection", did, a))
}

// grow waits until so many more tokens and acknowledgements have come in.
func (h *haul) grow(t *testing.T, tokens, revoked int) {
	t.Helper()
	h.mu.Lock()
	tokens, revoked = tokens+len(h.tokens), revoked+len(h.revoked)
	h.mu.Unlock()
	eventually(t, fmt.Sprintf("%d tokens and %d revocations", tokens, revoked), func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.tokens) < tokens || len(h.revoked) < revoked {
			return fmt.Errorf("%d and %d", len(h.tokens), len(h.revoked))
		}
		return nil
	})
}

// pull exchanges in a closed loop until the server is gone. Every fourth token is revoked at once.
func (h *haul) pull(c *caller, subject string, revoking bool, stop <-chan struct{}) {
	n := 0
	loop(stop, func() {
		a := c.exchange(subject, "gateway")
		if a.err != nil {
			return
		}
		if a.status != http.StatusOK {
			h.oddly("exchanging", a)
			return
		}
		h.got(a.body.AccessToken)
		if n++; !revoking || n%4 != 0 {
			return
		}
		switch r := c.revoke(a.body.AccessToken); {
		case r.err != nil:
		case r.status != http.StatusOK:
			h.oddly("revoking", r)
		default:
			h.dead(a.body.AccessToken)
		}
	})
}

func TestKill9UnderLoadLosesNoTokenAndNoRevocation(t *testing.T) {
	t.Parallel()
	const rounds, clients = 5, 8
	d := newDeployment(t)
	h := &haul{revoked: map[string]bool{}}
	subject := d.subject("checkout")
	for range rounds {
		p := d.start()
		stop := make(chan struct{})
		var running sync.WaitGroup
		for i := range clients {
			c := d.caller()
			running.Go(func() { h.pull(c, subject, i%4 == 0, stop) })
		}
		h.grow(t, 40+rand.N(80), 3)
		time.Sleep(rand.N(20 * time.Millisecond))
		p.kill()
		close(stop)
		running.Wait()
	}
	if len(h.strange) > 0 {
		t.Errorf("%d strange answers, first: %s", len(h.strange), h.strange[0])
	}
	issued := map[string]bool{}
	for _, r := range d.records(audit.TypeExchange) {
		if r.Outcome == audit.Issued {
			issued[r.Lease.ID] = true
		}
	}
	for _, token := range h.tokens {
		if jti := claim(token, "jti"); !issued[jti] {
			t.Errorf("a client received token %s; the audit log has no such lease", jti)
		}
	}

	p := d.start()
	c := d.caller()
	bearer := c.minted(t, d.subject("gateway"), "introspection")
	alive := 0
	for i, token := range h.tokens {
		dead := h.revoked[claim(token, "jti")]
		if !dead && i%8 != 0 { // all of the dead, some of the living
			continue
		}
		a := c.introspect(bearer, token)
		wantStatus(t, "introspecting", a, http.StatusOK)
		if dead && a.body.Active {
			t.Errorf("token %s was revoked before a kill -9 and is alive after it", claim(token, "jti"))
		}
		if a.body.Active {
			alive++
		}
	}
	if alive == 0 {
		t.Error("no token at all is alive after the last restart, so that those revoked are dead proves nothing")
	}
	p.stop()
	d.verified()
	if got := len(d.records(audit.TypeRecovered)); got != rounds {
		t.Errorf("the log has %d recovered records after %d kills, want one for each", got, rounds)
	}
	t.Logf("%d tokens received, %d revocations acknowledged, over %d kills", len(h.tokens), len(h.revoked), rounds)
}
