package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// What anonymous junk may cost: numbers, so that a leak is a failure.
const (
	junkRequests = 20_000
	junkClients  = 8
	junkDisk     = 1 << 20   // bytes of audit directory, whatever the number of requests: samples and counts
	junkMemory   = 128 << 20 // bytes of resident memory above that of a warm server, race detector included
)

// junk is what strangers send, by the reason under which the log must count it.
func (d *deployment) junk() map[string]string {
	stranger := federationtest.NewNamed(d.t, "https://stranger.example", jose.ES256)
	forger := federationtest.NewNamed(d.t, clusterURL, jose.ES256)
	claims := d.cluster.Claims(time.Now(), "checkout", d.url)
	return map[string]string{
		sts.ErrForm.Error():                   "grant_type=urn:ietf:params:oauth:grant-type:token-exchange",
		sts.ErrGrantType.Error():              "grant_type=password&username=root&password=root",
		federation.ErrMalformed.Error():       exchangeForm(strings.Repeat("A", 8000), "gateway", "").Encode(),
		federation.ErrUntrustedIssuer.Error(): exchangeForm(stranger.Sign(claims.With("iss", stranger.URL())).Reveal(), "gateway", "").Encode(),
		federation.ErrSignature.Error():       exchangeForm(forger.Sign(claims, federationtest.WithHeader("kid", d.cluster.Key().ID)).Reveal(), "gateway", "").Encode(),
	}
}

func TestAnonymousJunkCostsABoundedAmountAndHarmsNobody(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	kinds := d.junk()
	subject := d.subject("checkout")
	good := d.caller()
	for range 50 { // warm
		good.minted(t, subject, "gateway")
	}
	memory, disk := p.rss(), treeSize(t, d.audit)

	var sent atomic.Int64
	var juggling, calling sync.WaitGroup
	want := map[string]uint64{}
	for i := range junkClients {
		for reason := range kinds {
			want[reason] += uint64(junkRequests / junkClients / len(kinds))
		}
		w := d.dial()
		juggling.Go(func() {
			for range junkRequests / junkClients / len(kinds) {
				for reason, form := range kinds {
					if status, err := w.post(form); err != nil || status != http.StatusBadRequest {
						t.Errorf("client %d sent junk (%s): got %d, %v, want 400", i, reason, status, err)
						return
					}
					sent.Add(1)
				}
			}
		})
	}
	stop := make(chan struct{})
	var calls int64
	calling.Go(func() {
		loop(stop, func() {
			calls++
			if a := good.exchange(subject, "gateway"); a.err != nil || a.status != http.StatusOK {
				t.Errorf("a good call amid junk: got %s, want 200", a)
			}
		})
	})
	juggling.Wait()
	close(stop)
	calling.Wait()

	grownMemory := p.rss() - memory
	if grownMemory > junkMemory {
		t.Errorf("%d junk requests grew the server by %d bytes of memory, want at most %d", sent.Load(), grownMemory, junkMemory)
	}
	var chained int64
	for _, r := range d.records(audit.TypeExchange) {
		if r.Outcome == audit.Issued {
			chained++
		}
	}
	const record = 2 << 10 // bytes of an issued record, generously
	if grown := treeSize(t, d.audit) - disk; grown > junkDisk+calls*record {
		t.Errorf("%d junk requests grew the log by %d bytes, want at most %d and %d for each of %d good calls",
			sent.Load(), grown, junkDisk, record, calls)
	}
	if chained != calls+50 {
		t.Errorf("the log has %d issued records, want %d", chained, calls+50)
	}
	p.stop()
	got := map[string]uint64{}
	for _, r := range d.records(audit.TypeJunk) {
		for reason, n := range r.Junk.Counts {
			got[reason] += n
		}
	}
	if len(got) != len(want) {
		t.Errorf("the log counts junk as %v, want %v", got, want)
	}
	for reason, n := range want {
		if got[reason] != n {
			t.Errorf("the log counts %d times %q, want exactly %d", got[reason], reason, n)
		}
	}
	d.verified()
	t.Logf("%d junk requests beside %d good calls: %d bytes of log, %d KiB of memory more",
		sent.Load(), calls, treeSize(t, d.audit)-disk, grownMemory>>10)
}

// wire is one connection that sends as fast as answers come, with next to no work on our side.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	host string
}

func (d *deployment) dial() *wire {
	d.t.Helper()
	host := strings.TrimPrefix(d.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		d.t.Fatalf("connecting: %v", err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return &wire{conn, bufio.NewReader(conn), host}
}

// post sends an encoded form to /token and returns the status of the answer.
func (w *wire) post(form string) (int, error) {
	_ = w.conn.SetDeadline(time.Now().Add(patience))
	_, err := fmt.Fprintf(w.conn, "POST /token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		w.host, len(form), form)
	if err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// treeSize is the size of all files below dir in bytes.
func treeSize(t *testing.T, dir string) int64 {
	t.Helper()
	var size int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatalf("measuring %s: %v", dir, err)
	}
	return size
}
