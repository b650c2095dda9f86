package sts_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// one is the one record of a type.
func (r *recorder) one(t testing.TB, kind audit.Type) audit.Record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []audit.Record
	for _, rec := range r.records {
		if rec.Type == kind {
			all = append(all, rec)
		}
	}
	if len(all) != 1 {
		t.Fatalf("%d records are of type %s, want one: %+v", len(all), kind, all)
	}
	return all[0]
}

// A lock is lifted as it was set: by a replica that reaches nobody, for itself, which it says.
func TestLockIsLiftedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	away := new(others)
	d.revocations.Share(away)
	o := operate(t, d)
	id, _ := o.does(`"lock":true`, "attr.team=checkout")["id"].(string)
	away.gone.Store(true)
	a := o.ask("DELETE", "/admin/v1/locks/"+id+"?reason=rebuilt")
	body := object(t, a.body)
	warnings, _ := body["warnings"].([]any)
	if a.status != 202 || body["local"] != true || body["action"] != "unlock" || len(warnings) != 1 {
		t.Fatalf("lifting it: %d %s, want 202 that says on which replica", a.status, a.body)
	}
	if list := o.ask("GET", "/admin/v1/locks"); strings.Contains(list.body, id) {
		t.Errorf("it stands: %s", list.body)
	}
	rec := d.recorder.of(a.decision())
	if len(rec) != 1 || rec[0].Outcome == audit.Refused || rec[0].Outcome == audit.Failed || rec[0].Revocation == nil || rec[0].Revocation.Action != "unlock" {
		t.Errorf("it is on record as %+v", rec)
	}
}

// What is in force is never called refused, on record or to the operator: the ledger that cannot be read after it is one more
// thing to say.
func TestRevocationInForceIsNotCalledRefused(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	o := operate(t, d.deployment)
	caller := d.gateway()
	m := d.mint(d.checkout(), "orders")
	d.pick(m.token)
	d.ledgerDown.Store(true)
	a := o.ask("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"],"reason":"stolen"}`)
	body := object(t, a.body)
	warnings, _ := body["warnings"].([]any)
	if a.status != 202 || body["incomplete"] != true || len(warnings) != 1 || !strings.Contains(warnings[0].(string), "ledger") {
		t.Fatalf("revoking without the ledger: %d %s", a.status, a.body)
	}
	if d.active(caller, m.token) {
		t.Error("the token that it names is active")
	}
	rec := d.recorder.of(a.decision())
	if len(rec) != 1 || rec[0].Revocation == nil || rec[0].Outcome == audit.Refused || rec[0].Outcome == audit.Failed {
		t.Errorf("it is on record as %+v", rec)
	}
	d.ledgerDown.Store(false)
	d.nothing() // what lives outside dies as soon as the ledger can be read
}

// The store goes away after it has taken a revocation: nobody can see whether other replicas have applied it, and the answer says
// so instead of showing no replica at all.
func TestRevocationThatNobodySawAppliedSaysSo(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	store := new(others)
	d.revocations.Share(store)
	o := operate(t, d)
	caller, m := d.gateway(), d.mint(d.checkout(), "orders")
	store.silent.Store(true)
	for _, what := range []string{`"drill":true`, `"drill":false`} {
		a := o.ask("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"],"reason":"stolen","wait_seconds":1,`+what+`}`)
		body := object(t, a.body)
		warnings, _ := body["warnings"].([]any)
		if a.status != 202 || body["incomplete"] != true || len(warnings) != 1 || !strings.Contains(warnings[0].(string), "could not be seen") || body["position"] == "" {
			t.Errorf("%s, and the store went away: %d %s", what, a.status, a.body)
		}
	}
	if d.active(caller, m.token) {
		t.Error("the token that it names is active")
	}
}

// A short lock is two entries. When the second cannot be kept, the first has killed: the answer and the record say both.
func TestLockThatIsHalfDoneSaysWhatIsDone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := operate(t, d)
	caller := d.gateway()
	before := d.mint(d.checkout(), "orders")
	d.log.(*memory).failAfter(1, errors.New("disk"))
	a := o.ask("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"],"lock":true,"ttl_seconds":60}`)
	d.log.(*memory).setFail(nil)
	body := object(t, a.body)
	warnings, _ := body["warnings"].([]any)
	if a.status != 202 || body["action"] != "revoke" || body["expires"] != nil || body["incomplete"] != true || len(warnings) != 1 || !strings.Contains(warnings[0].(string), "lock") {
		t.Fatalf("half a lock: %d %s", a.status, a.body)
	}
	if d.active(caller, before.token) {
		t.Error("what it killed is active")
	}
	d.clock.advance(time.Minute)
	d.mint(d.checkout(), "orders") // as the warning says
	rec := d.recorder.of(a.decision())
	if len(rec) != 1 || rec[0].Revocation == nil || rec[0].Revocation.Action != "revoke" || rec[0].Outcome == audit.Failed {
		t.Errorf("it is on record as %+v", rec)
	}
}

// Whoever reads the log sees what an operator asked for, also when nothing came of it, and why it was asked.
func TestRefusedAdminCallsAreOnRecordWithWhatTheyAskedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body     string
		status   int
		selector string
		reason   string
	}{
		"a dry run":         {`{"selector":["attr.team=checkout"],"dry_run":true,"reason":"looking","ticket":"INC-7"}`, 200, "attr.team=checkout", "[INC-7] looking"},
		"without a reason":  {`{"selector":["target=orders"]}`, 400, "target=orders", ""},
		"no selector":       {`{"selector":["colour=red"],"reason":"a guess"}`, 400, "colour=red", "a guess"},
		"a long one is cut": {`{"selector":["colour=` + strings.Repeat("r", 1000) + `"],"reason":"a guess"}`, 400, "colour=" + strings.Repeat("r", 121) + "...", "a guess"},
	} {
		d := deploy(t)
		_, ask := d.adminListenerOf(remoteOperator(t), d.exchanger.RevocationRoutes(d.recorder.scan)...)
		if a := ask("POST", "/admin/v1/revocations", tc.body); a.status != tc.status {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if r := d.recorder.one(t, audit.TypeAdmin); r.Admin.Status != tc.status || !slices.Equal(r.Admin.Selector, []string{tc.selector}) || r.Reason != tc.reason {
			t.Errorf("%s: on record is %+v with reason %q", name, r.Admin, r.Reason)
		}
	}
}

// A drill from elsewhere needs a reason, as what it rehearses does.
func TestDrillFromElsewhereNeedsAReason(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	_, ask := d.adminListenerOf(remoteOperator(t), d.exchanger.RevocationRoutes(d.recorder.scan)...)
	if a := ask("POST", "/admin/v1/revocations", `{"selector":["target=orders"],"drill":true}`); a.status != 400 {
		t.Errorf("without one: %d %s", a.status, a.body)
	}
	if a := ask("POST", "/admin/v1/revocations", `{"selector":["target=orders"],"drill":true,"reason":"monthly drill"}`); a.status != 200 {
		t.Errorf("with one: %d %s", a.status, a.body)
	}
}

// Attack: an approved lock is approved once more when its short time is over and nothing of it is left but what it killed.
func TestApprovalIsGoodForOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	careful := *d.state
	careful.Operators = &operator.Authority{Second: operator.Second{Estate: true}, Same: []operator.Person{
		{Name: "alice", Credentials: []operator.Credential{{Kind: operator.User, ID: "uid=1"}}}, {Name: "bob", Credentials: []operator.Credential{{Kind: operator.User, ID: "uid=2"}}},
	}}
	d.exchanger.Swap(&careful)
	if err := d.exchanger.ProposeWith(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	_, alice := d.adminListener("uid=1", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	_, bob := d.adminListener("uid=2", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	asked := object(t, alice("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"],"lock":true,"ttl_seconds":60,"reason":"stolen"}`).body)
	proposal := `{"proposal":"` + asked["proposal"].(string) + `"}`
	a := bob("POST", "/admin/v1/approvals", proposal)
	if a.status != 200 {
		t.Fatalf("approving: %d %s", a.status, a.body)
	}
	d.clock.advance(2 * time.Minute)
	if err := d.revocations.Prune(t.Context(), d.clock.now()); err != nil {
		t.Fatal(err)
	}
	if a := bob("POST", "/admin/v1/approvals", proposal); a.status != 409 {
		t.Errorf("approving once more: %d %s", a.status, a.body)
	}
	d.mint(d.checkout(), "orders")
	if rec := d.recorder.of(object(t, a.body)["id"].(string)); len(rec) != 1 || rec[0].Revocation.By != "uid=1, approved by uid=2" {
		t.Errorf("on record is %+v", rec)
	}
}

// What was dying before, for another reason, is pending for a second revocation too until it is dead: who follows one is not told that
// nothing is left.
func TestProgressCountsWhatWasDyingBefore(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	d.pick(d.checkout())
	d.orchard.mu.Lock()
	d.orchard.down = true
	d.orchard.mu.Unlock()
	_, ask := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	for _, which := range []string{"first", "second"} {
		a := object(t, ask("POST", "/admin/v1/revocations", `{"selector":["subject=`+checkoutID+`"],"reason":"stolen","wait_seconds":1}`).body)
		query := url.Values{"position": {a["position"].(string)}, "selector": {"subject=" + checkoutID}}
		p := object(t, ask("GET", "/admin/v1/revocations/"+a["id"].(string)+"?"+query.Encode()).body)
		if n, _ := p["counts"].(map[string]any)["pending"].(float64); n != 1 {
			t.Errorf("%s: %v is pending, and one is alive", which, n)
		}
	}
	if a := ask("GET", "/admin/v1/revocations/"+newID()+"?position=1.1&selector=colour%3Dred"); a.status != 400 {
		t.Errorf("a selector that is none: %d", a.status)
	}
	d.orchard.mu.Lock()
	d.orchard.down = false
	d.orchard.mu.Unlock()
}
