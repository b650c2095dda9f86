package sts_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
)

// revoke posts a token to the revocation endpoint.
func (d *deployment) revoke(token string, pairs ...string) answer {
	form := url.Values{"token": {token}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return d.post("/revoke", form)
}

// killed revokes a token and fails the test unless the answer is that of RFC 7009 section 2.2.
func (d *deployment) killed(token string, pairs ...string) answer {
	d.t.Helper()
	a := d.revoke(token, pairs...)
	if a.status != 200 || a.body != "" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || len(a.decision()) != 26 {
		d.t.Errorf("revoking answered %d %q %v, want 200, an empty body and a decision id, not to be stored", a.status, a.body, a.header)
	}
	return a
}

// active asks as the resource server of orders and archive.
func (d *deployment) active(caller, token string) bool {
	d.t.Helper()
	return d.introspect(caller, token)["active"] == true
}

// The form has one token. // standards 2.55
func TestRevocationForm(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	token := d.mint(d.checkout(), "orders").token
	for name, body := range map[string]string{"nothing": "", "an empty token": "token=", "a hint alone": "token_type_hint=access_token"} {
		d.refused(name, 400, "invalid_request", func() answer {
			return d.send(http.MethodPost, "/revoke?token="+token, body, "Content-Type", formType)
		})
	}
	d.refused("JSON", 400, "invalid_request", func() answer {
		return d.send(http.MethodPost, "/revoke", `{"token":"`+token+`"}`, "Content-Type", "application/json")
	})
	if !d.active(d.gateway(), token) {
		t.Error("a refused revocation killed the token")
	}
	for _, rec := range d.recorder.junk {
		if rec.Type != audit.TypeRevocation {
			t.Errorf("a refused revocation is recorded as %s", rec.Type)
		}
	}
}

// Who holds a token may kill it; the kill is on record with its position. // standards 2.55, 2.57, 2.59, 2.60
func TestRevokedTokenIsDeadEverywhere(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller := d.gateway()
	for _, hint := range []string{"", "access_token", "refresh_token", "nonsense"} {
		m := d.mint(d.checkout(), "orders")
		a := d.killed(m.token, "token_type_hint", hint)
		if d.active(caller, m.token) {
			t.Errorf("hint %q: alive after revocation", hint)
		}
		d.refused("exchange of a dead token", 400, "invalid_request", func() answer { return d.exchange(te(m.token, "audience", "billing")) })
		rec := d.recorder.of(a.decision())
		if len(rec) != 1 || rec[0].Type != audit.TypeRevocation || rec[0].Revocation == nil {
			t.Fatalf("records of the revocation: %+v", rec)
		}
		v := rec[0].Revocation
		if v.ID != a.decision() || v.Action != "revoke" || v.By != "holder" || len(v.Selector) != 1 || v.Selector[0] != "lease="+m.decision || v.Position == "" {
			t.Errorf("recorded %+v", *v)
		}
		if rec[0].Subject == nil || rec[0].Subject.TokenID != m.decision {
			t.Errorf("the record does not say whose token died: %+v", rec[0].Subject)
		}
	}
}

// What is not alive needs no killing: 200 with an empty body, and nothing changes. // standards 2.56
func TestRevokingWhatIsNotAliveIsFine(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	expired, dead := d.mint(d.checkout(), "orders").token, d.mint(d.checkout(), "orders").token
	d.clock.advance(2 * time.Hour)
	revoked := d.mint(d.checkout(), "orders").token
	d.killed(revoked)
	before, records := d.revocations.Len(), len(d.recorder.records)
	for name, token := range map[string]string{
		"unknown": "opaque-0123456789", "malformed": "a.b.c", "expired long ago": expired, "already revoked": revoked,
		"bad signature": dead[:len(dead)-8] + "AAAAAAAA", "forged as ours": d.checkout(set("iss", d.issuer)),
	} {
		a := d.killed(token)
		if d.revocations.Len() != before || len(d.recorder.records) != records {
			t.Errorf("%s: a revocation was written: whoever has such a token can fill the log", name)
		}
		if len(d.recorder.of(a.decision())) != 1 {
			t.Errorf("%s: its decision is nowhere", name)
		}
	}
}

// A token that was revoked is dead even if what made it invalid meanwhile is undone: a clock that ran ahead, an
// issuer that was removed by mistake.
func TestRevokedTokenDoesNotComeBack(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	late, orphan, caller := d.mint(d.checkout(), "orders"), d.mint(d.checkout(), "orders"), d.gateway()
	d.clock.advance(20 * time.Minute)
	d.killed(late.token)
	d.clock.advance(-20 * time.Minute)
	if d.active(caller, late.token) {
		t.Error("revoked while the clock ran ahead, and alive when it was set back")
	}
	removed := *d.world
	removed.issuers = removed.issuers[1:]
	d.exchanger.Swap(d.build(&removed, "config-2"))
	d.killed(orphan.token)
	d.exchanger.Swap(d.state)
	if d.active(caller, orphan.token) {
		t.Error("revoked while its issuer was not configured, and alive when it came back")
	}
}

// Another issuer's token lives on, and the answer says so. // standards 2.58
func TestForeignTokenCannotBeRevoked(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout()
	for name, token := range map[string]string{
		"trusted issuer": subject, "unknown issuer": d.checkout(set("iss", "https://nobody.example")),
	} {
		d.refused(name, 400, "unsupported_token_type", func() answer { return d.revoke(token) })
	}
	d.mint(subject, "orders")
}

// A revocation that is not durable is not claimed: 503, and the token must be taken for alive. // standards 2.59
func TestRevocationThatIsNotDurableIsNotClaimed(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	m, caller := d.mint(d.checkout(), "orders"), d.gateway()
	d.log.(*memory).setFail(revocation.ErrUnavailable)
	a := d.refused("log down", 503, "temporarily_unavailable", func() answer { return d.revoke(m.token) })
	if rec := d.recorder.of(a.decision()); rec[0].Type != audit.TypeRevocation || rec[0].Outcome != audit.Failed {
		t.Errorf("recorded as %s %s, want a failed revocation", rec[0].Type, rec[0].Outcome)
	}
	if !d.active(caller, m.token) {
		t.Error("dead, although the caller was told that it lives")
	}
	d.log.(*memory).setFail(nil)
	d.killed(m.token)
	if d.active(caller, m.token) {
		t.Error("alive after the second attempt")
	}
}

// A kill that cannot be recorded is a kill all the same: the revocation log is its evidence.
func TestRevocationSurvivesAFailingAuditLog(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	m, caller := d.mint(d.checkout(), "orders"), d.gateway()
	d.recorder.failing(audit.ErrUnavailable)
	d.killed(m.token)
	d.recorder.failing(nil)
	if d.active(caller, m.token) {
		t.Error("alive: who revokes while the audit disk is full has killed nothing")
	}
}

// With the store that ships: what was revoked stays so after a restart, before anything is served. // standards 2.59
func TestRevocationOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir, mac := t.TempDir(), make([]byte, 32)
	open := func() (*embedded.DB, revocation.Log) {
		db, err := embedded.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		log, err := db.Revocations(mac)
		if err != nil {
			t.Fatal(err)
		}
		return db, log
	}
	db, log := open()
	d := deploy(t, func(w *world) { w.log = log })
	m := d.mint(d.checkout(), "orders")
	child := d.mint(m.token, "billing")
	d.killed(m.token)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, log = open()
	defer db.Close()
	again, err := revocation.New(t.Context(), log, d.keys.MAC())
	if err != nil {
		t.Fatal(err)
	}
	if _, dead := again.Dead(revocation.Facts{Lease: child.decision, Ancestors: []string{m.decision}}); !dead {
		t.Error("the child of a revoked token lives after a restart")
	}
}
