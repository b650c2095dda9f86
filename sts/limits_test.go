package sts_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/limit"
)

// none limits nothing.
var none limit.Rate

// from posts a form as a peer at an address would.
func (d *deployment) from(address, path, body string) *httptest.ResponseRecorder {
	d.t.Helper()
	r := httptest.NewRequest(http.MethodPost, d.path+path, strings.NewReader(body))
	r.Header.Set("Content-Type", formType)
	r.RemoteAddr = address
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w
}

// inChain is how many records the chain has.
func (r *recorder) inChain() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

func TestAddressIsLimitedBeforeAnythingIsLookedAt(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.exchanger.Limit(sts.NewLimits(limit.Rate{PerSecond: 2, Burst: 3}, none))
	const one, two = "192.0.2.1:1000", "192.0.2.2:1000"
	good := te(d.checkout()).Encode()
	for i, path := range []string{"/token", "/introspect", "/revoke"} { // one bucket for the three
		if w := d.from(one, path, "token=x"); w.Code == http.StatusTooManyRequests {
			t.Errorf("request %d is refused with %d, within the burst", i, w.Code)
		}
	}
	chain, minted := d.recorder.inChain(), d.mints.Load()
	for _, path := range []string{"/token", "/introspect", "/revoke", "/token?x"} {
		w := d.from(one, path, good)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), `"error":"temporarily_unavailable"`) {
			t.Errorf("%s beyond the limit: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
		for _, rec := range d.recorder.of(w.Header().Get("Sallyport-Decision")) {
			if rec.Requested != nil || rec.Subject != nil || rec.Remote != "192.0.2.1" {
				t.Errorf("%s: the request was looked at before it was refused: %+v", path, rec)
			}
		}
	}
	if d.recorder.inChain() != chain || d.mints.Load() != minted {
		t.Error("what the limit refused is in the chain, or was minted")
	}
	if w := d.from(two, "/token", good); w.Code != http.StatusOK {
		t.Errorf("another address: %d, want 200", w.Code)
	}
	for _, path := range []string{"/jwks", "/.well-known/openid-configuration"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = one
		w := httptest.NewRecorder()
		if d.handler.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Errorf("%s: %d; relying parties are not limited", path, w.Code)
		}
	}
	d.clock.advance(500 * time.Millisecond)
	if w := d.from(one, "/token", good); w.Code != http.StatusOK {
		t.Errorf("after half a second at 2 a second: %d, want 200", w.Code)
	}
}

func TestOneSubscriberIsOneAddress(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.exchanger.Limit(sts.NewLimits(limit.Rate{PerSecond: 1, Burst: 1}, none))
	for _, tc := range []struct {
		address string
		limited bool
	}{
		{"[2001:db8:1:2::1]:1", false},
		{"[2001:db8:1:2:ffff::2]:1", true}, // the same 64 bits
		{"[2001:db8:1:3::1]:1", false},
		{"192.0.2.1:1", false},
		{"192.0.2.1:2", true},
		{"[::ffff:192.0.2.1]:1", true},
		{"192.0.2.2:1", false},
		{"[fe80::1%eth0]:1", false},
		{"[fe80::1%eth1]:1", true}, // a zone is the peer's to choose
		{"@", false},
		{"", true},
	} {
		if w := d.from(tc.address, "/revoke", ""); (w.Code == http.StatusTooManyRequests) != tc.limited {
			t.Errorf("%s: %d, want limited %v", tc.address, w.Code, tc.limited)
		}
	}
}

// Whoever holds one live token can neither fill the audit log with what it is refused nor with what it is granted,
// and takes nothing from other workloads.
func TestHolderOfALiveTokenCannotFillTheLog(t *testing.T) {
	t.Parallel()
	const burst, tries = 5, 60
	for name, body := range map[string]func(d *deployment) string{
		"granted":           func(d *deployment) string { return te(d.checkout()).Encode() },
		"refused by policy": func(d *deployment) string { return te(d.checkout(), "audience", "vault").Encode() },
		"of the wrong type": func(d *deployment) string { return te(d.checkout(), "subject_token_type", accessType).Encode() },
		"not yet valid": func(d *deployment) string {
			return te(d.checkout(set("nbf", d.clock.now().Add(time.Hour).Unix()))).Encode()
		},
		"not to be named": func(d *deployment) string {
			return te(d.sign(d.cluster, "", "checkout", set("sub", "a/../b"))).Encode()
		},
		"with a bad actor": func(d *deployment) string {
			return te(d.checkout(), "actor_token", d.checkout(set("aud", "https://other.example")), "actor_token_type", jwtType).Encode()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t)
			d.exchanger.Limit(sts.NewLimits(none, limit.Rate{PerSecond: 1, Burst: burst}))
			form := body(d)
			limited := 0
			for i := range tries {
				if w := d.from(fmt.Sprintf("192.0.2.%d:1", i), "/token", form); w.Code == http.StatusTooManyRequests {
					limited++
				}
			}
			if n := d.recorder.inChain(); n > burst || limited < tries-burst {
				t.Errorf("%d tries put %d records into the chain and %d were limited, want at most %d and at least %d", tries, n, limited, burst, tries-burst)
			}
			if w := d.from("192.0.2.1:1", "/token", te(d.sign(d.cluster, "checkout/other", "checkout")).Encode()); w.Code != http.StatusOK {
				t.Errorf("another workload: %d %s, want 200", w.Code, w.Body)
			}
			for _, rec := range d.recorder.junk {
				if rec.Error == "temporarily_unavailable" && rec.Outcome != audit.Refused {
					t.Errorf("what a limit refused is on record as %s", rec.Outcome)
				}
			}
		})
	}
}

// A bearer whose workload is not trusted any more verifies, and is on record at /introspect.
func TestHolderOfABearerCannotFillTheLogByIntrospecting(t *testing.T) {
	t.Parallel()
	const burst = 5
	d := deploy(t)
	caller := d.gateway()
	d.exchanger.Limit(sts.NewLimits(none, limit.Rate{PerSecond: 1, Burst: burst}))
	removed := *d.world
	removed.issuers = removed.issuers[1:]
	d.exchanger.Swap(d.build(&removed, "config-2"))
	before, status := d.recorder.inChain(), 0
	for range 50 {
		status = d.ask(caller, caller).status
	}
	if n := d.recorder.inChain() - before; n == 0 || n > burst || status != http.StatusTooManyRequests {
		t.Errorf("50 questions put %d records into the chain and ended with %d, want 1 to %d and 429", n, status, burst)
	}
}

// There is no limit by what a token claims before it verifies: strangers could use it up for a whole cluster.
func TestForgedTokensTakeNothingFromTheWorkloadTheyName(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	d.exchanger.Limit(sts.NewLimits(limit.Rate{PerSecond: 1, Burst: 1}, limit.Rate{PerSecond: 1, Burst: 1}))
	good := d.checkout()
	forged := te(good[:strings.LastIndex(good, ".")+1] + strings.Repeat("A", 86)).Encode()
	for i := range 200 {
		if w := d.from(fmt.Sprintf("198.51.100.%d:1", i), "/token", forged); w.Code != http.StatusBadRequest {
			t.Fatalf("a forged token: %d %s, want 400", w.Code, w.Body)
		}
	}
	if w := d.from("192.0.2.1:1", "/token", te(good).Encode()); w.Code != http.StatusOK {
		t.Errorf("the workload itself: %d %s, want 200", w.Code, w.Body)
	}
}
