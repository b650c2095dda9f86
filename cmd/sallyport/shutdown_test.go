package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// halfSent is an exchange of which the server has the headers and half of the body.
type halfSent struct {
	*wire
	rest string
}

func (d *deployment) sendHalf(subject string) halfSent {
	d.t.Helper()
	w := d.dial()
	body := exchangeForm(subject, "gateway", "").Encode()
	_, err := fmt.Fprintf(w.conn, "POST /token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		w.host, len(body), body[:len(body)/2])
	if err != nil {
		d.t.Fatalf("sending half a request: %v", err)
	}
	return halfSent{w, body[len(body)/2:]}
}

// finish sends the rest and returns status and body.
func (h halfSent) finish(t *testing.T) (int, string) {
	t.Helper()
	_ = h.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(h.conn, h.rest); err != nil {
		t.Fatalf("sending the rest of a request: %v", err)
	}
	resp, err := http.ReadResponse(h.in, nil)
	if err != nil {
		t.Fatalf("reading the answer to a request in flight: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer to a request in flight: %v", err)
	}
	return resp.StatusCode, string(body)
}

func TestShutdownFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()
	const inFlight = 20
	d := newDeployment(t)
	p := d.start()
	subject := d.subject("checkout")
	var open []halfSent
	for range inFlight {
		open = append(open, d.sendHalf(subject))
	}
	d.caller().minted(t, subject, "gateway") // by now the server has read the headers of the others
	time.Sleep(50 * time.Millisecond)

	p.signal(syscall.SIGTERM)
	eventually(t, "new connections are refused", func() error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err == nil {
			_ = conn.Close()
			return fmt.Errorf("the server still listens")
		}
		return nil
	})
	if r := d.readyz(); r.status != http.StatusServiceUnavailable || r.reason("shutdown") != "shutting down" {
		t.Errorf("/readyz while requests are finished: %d with %q, want 503 and shutting down", r.status, r.reason("shutdown"))
	}
	for i, h := range open {
		if status, body := h.finish(t); status != http.StatusOK || !strings.Contains(body, "access_token") {
			t.Errorf("request %d was in flight at SIGTERM: got %d, want 200 with a token", i, status)
		}
	}
	if code := p.wait(); code != exitDone {
		t.Errorf("the server ended with %d, want %d:\n%s", code, exitDone, p.said())
	}
	records := d.records()
	records = slices.DeleteFunc(records, func(r audit.Record) bool { return r.Type == audit.TypeHead })
	if last := records[len(records)-1]; last.Type != audit.TypeClosed {
		t.Errorf("the log ends with a %q record, want %q", last.Type, audit.TypeClosed)
	}
	issued := 0
	for _, r := range records {
		if r.Outcome == audit.Issued {
			issued++
		}
	}
	if issued != inFlight+1 {
		t.Errorf("the log has %d issued records, want %d", issued, inFlight+1)
	}
	d.verified()
}

func TestShutdownDoesNotWaitForEverForAStalledCaller(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	d.sendHalf(d.subject("checkout")) // and never the rest
	d.caller().minted(t, d.subject("checkout"), "gateway")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code == -1 {
		t.Errorf("the server was ended by a signal, want an end of its own")
	}
	if last := d.records(audit.TypeClosed); len(last) != 1 {
		t.Errorf("the log has %d closed records, want 1", len(last))
	}
	d.verified()
}

// Whatever the server read is answered: under load, the log has as many issued tokens as callers received.
func TestShutdownUnderLoadCutsNoRequestThatWasRead(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	subject := d.subject("checkout")
	var received, closed atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		c := d.caller()
		callers.Go(func() {
			for {
				switch a := c.exchange(subject, "gateway"); {
				case a.err != nil: // refused or closed before the request was read; the log will tell
					return
				case a.status != http.StatusOK:
					t.Errorf("under load, while the server ends: got %s, want a token or no answer at all", a)
					return
				case a.closes:
					closed.Add(1)
					fallthrough
				default:
					received.Add(1)
				}
			}
		})
	}
	eventually(t, "there is load", func() error {
		if n := received.Load(); n < 50 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
	p.signal(syscall.SIGTERM)
	callers.Wait()
	if code := p.wait(); code != exitDone {
		t.Errorf("the server ended with %d, want %d:\n%s", code, exitDone, p.said())
	}
	issued := int64(0)
	for _, r := range d.records() {
		if r.Outcome == audit.Issued {
			issued++
		}
	}
	if issued != received.Load() {
		t.Errorf("%d tokens were issued and %d received: requests were cut", issued, received.Load())
	}
	if closed.Load() == 0 {
		t.Error("no answer ended its connection: callers were not asked to leave")
	}
	d.verified()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	d.sendHalf(d.subject("checkout")) // and never the rest
	d.caller().minted(t, d.subject("checkout"), "gateway")
	p.signal(syscall.SIGTERM)
	p.saidSoon("finishing what was accepted", 1)
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != exitFailed || !strings.Contains(p.said(), errHurried.Error()) {
		t.Errorf("after a second signal the server ended with %d, want %d and why:\n%s", code, exitFailed, p.said())
	}
	if n := len(d.records(audit.TypeClosed)); n != 1 {
		t.Errorf("the log has %d closed records, want 1", n)
	}
	d.verified()
}
