package sts_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// A service that answered from a warm cache below its rules would serve any caller. What is remembered here is who
// somebody is; what they may have is decided each time.
func TestWarmCacheDecidesNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout()
	for range 3 {
		d.mint(subject, "orders", "scope", "read")
	}
	before := d.state.Trust.CacheStatus()
	if before.Hits < 2 {
		t.Fatalf("the cache says %+v; it is not warm", before)
	}
	ask := func(pairs ...string) func() answer {
		return func() answer { return d.exchange(te(subject, pairs...)) }
	}
	d.refused("a target of nobody's", http.StatusBadRequest, "invalid_target", ask("audience", "billing"))
	d.refused("a target that is denied", http.StatusBadRequest, "invalid_target", ask("audience", "payroll", "scope", "read"))
	d.refused("a scope that is not granted", http.StatusBadRequest, "invalid_scope", ask("audience", "orders", "scope", "admin"))
	if after := d.state.Trust.CacheStatus(); after.Hits != before.Hits+3 {
		t.Errorf("%d hits, want %d: the refusals were to be answered on a warm cache", after.Hits, before.Hits+3)
	}
	d.clock.advance(time.Hour)
	d.refused("the same after it expired", http.StatusBadRequest, "invalid_request", ask("audience", "orders", "scope", "read"))
}

// A revoked token of ours is dead at once, however often it was presented before.
func TestWarmCacheHidesNoRevocation(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	m := d.mint(d.checkout(), "orders", "scope", "read")
	again := func() answer { return d.exchange(te(m.token, "audience", "orders", "scope", "read")) }
	for range 3 {
		d.issued(again())
	}
	if a := d.post("/revoke", url.Values{"token": {m.token}}); a.status != http.StatusOK {
		t.Fatalf("revoking: %d %s", a.status, a.body)
	}
	d.refused("a revoked token", http.StatusBadRequest, "invalid_request", again)
}
