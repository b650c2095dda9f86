package sts_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// feed reads the feed as a resource server does, up to its first "current".
func (d *deployment) feed(bearer string, headers ...string) answer {
	d.t.Helper()
	return d.send("GET", "/revocations", "", append([]string{"Authorization", "Bearer " + bearer}, headers...)...)
}

// Attack: whoever may not introspect reads the feed, with no bearer, one for another target, one of the platform, or one that
// is dead. // issue: a feed read with a bearer of another audience
func TestFeedIsForResourceServersAlone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.exchanger.CloseFeeds() // each ends after its first word
	if a := d.feed(d.gateway()); a.status != 200 || !strings.Contains(a.body, "event: current\n") {
		t.Fatalf("a resource server is answered %d %s", a.status, a.body)
	}
	dead := d.gateway()
	d.killed(dead)
	for name, bearer := range map[string]string{
		"a token for another target": d.mint(d.checkout(), "orders").token, "a token of the platform": d.checkout(), "a dead one": dead, "nothing": "", "junk": "x.y.z",
	} {
		if a := d.feed(bearer); a.status != 401 || strings.Contains(a.body, "event:") {
			t.Errorf("%s: answered %d %s", name, a.status, a.body)
		}
	}
}

// What the feed says names nobody and nothing: no workload, no attribute, no target, no operator, no reason; whoever reads it
// learns what concerns the tokens that it has seen.
func TestFeedTellsOfNoIdentity(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := operate(t, d)
	o.does(`"reason":"stolen from payroll"`, "subject=spiffe://prod.example/cluster/checkout/api", "target=payroll")
	o.does(`"lock":true,"reason":"stolen from payroll"`, "attr.team=checkout", "trust_domain=partner.example")
	token := d.mint(d.checkout(), "orders")
	d.killed(token.token)
	d.exchanger.CloseFeeds()
	a := d.feed(d.gateway())
	if n := strings.Count(a.body, "event: revoked\n"); n != 3 || !strings.Contains(a.body, token.decision) || !strings.Contains(a.body, `"lock":true`) {
		t.Fatalf("%d entries are told, want 3: %s", n, a.body)
	}
	for _, word := range []string{"spiffe", "prod.example", "partner", "checkout", "team", "payroll", "target", "subject", "stolen", "uid=0", "selector"} {
		if strings.Contains(strings.ToLower(a.body), word) {
			t.Errorf("the feed says %q: %s", word, a.body)
		}
	}
}

// Who comes back is told what it missed, and who comes from another life of the service is told everything.
func TestFeedGoesOnWhereItsReaderWas(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	bearer := d.gateway()
	d.killed(d.mint(d.checkout(), "orders").token)
	d.exchanger.CloseFeeds()
	first := d.feed(bearer).body
	id := word(first, "id: ")
	if strings.Count(first, "event: reset") != 1 || strings.Count(first, "event: revoked") != 1 || id == "" {
		t.Fatalf("the first answer is %s", first)
	}
	if again := d.feed(bearer, "Last-Event-ID", id).body; strings.Contains(again, "reset") || strings.Contains(again, "revoked") {
		t.Errorf("nothing is new, and it is told %s", again)
	}
	d.killed(d.mint(d.checkout(), "orders").token)
	if again := d.feed(bearer, "Last-Event-ID", id).body; strings.Contains(again, "reset") || strings.Count(again, "event: revoked") != 1 || word(again, "id: ") == id {
		t.Errorf("one is new, and it is told %s", again)
	}
	for _, other := range []string{"x." + id[strings.Index(id, ".")+1:], strings.Split(id, ".")[0] + ".999", "junk", id + "0"} {
		if again := d.feed(bearer, "Last-Event-ID", other).body; strings.Count(again, "event: reset") != 1 || strings.Count(again, "event: revoked") != 2 {
			t.Errorf("who comes with %q is told %s", other, again)
		}
	}
}

func word(s, after string) string {
	_, s, _ = strings.Cut(s, after)
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// A replica that may have missed something does not say that all is told: the feed ends, and none begins.
func TestStaleReplicaTellsNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	bearer := d.gateway()
	away := new(others)
	d.revocations.Share(away)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.issuer+"/revocations", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	res, err := (&http.Client{Transport: d.contract.next}).Do(req) // it does not end, and cannot be held to the document

	if err != nil || res.StatusCode != 200 {
		t.Fatalf("the feed of a fresh replica: %v %v", res, err)
	}
	defer res.Body.Close()
	away.gone.Store(true)
	buf := make([]byte, 4096)
	for err == nil {
		_, err = res.Body.Read(buf)
	}
	if ctx.Err() != nil {
		t.Error("the feed of a replica that went stale goes on")
	}
	if a := d.feed(bearer); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("a stale replica answers %d %s", a.status, a.body)
	}
}
