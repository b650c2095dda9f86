package sts_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/lease"
)

const checkoutID = "spiffe://prod.example/cluster/checkout/api"

// A moment that is past divides: what was decided before it dies, with everything that was exchanged from it, also since; what was
// decided after it lives.
func TestMomentDividesWhatWasDecided(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	old := d.mint(d.checkout(), "orders")
	stolen := d.checkout() // identity token
	d.clock.advance(5 * time.Minute)
	moment := d.clock.now()
	d.clock.advance(time.Minute)
	child := d.mint(old.token, "billing") // after the moment, of what was before it
	fresh := d.mint(d.checkout(), "orders")
	d.clock.advance(time.Minute)

	dry := operate(t, d).does(`"dry_run":true,"before":"`+moment.UTC().Format(time.RFC3339)+`"`, "subject="+checkoutID)
	if living := dry["tokens"].(map[string]any)["living"]; living != 2.0 {
		t.Errorf("a dry run counts %v tokens, want the old one and its child", living)
	}
	done := operate(t, d).does(`"reason":"taken back","before":"`+moment.UTC().Format(time.RFC3339)+`"`, "subject="+checkoutID)
	caller := d.gateway()
	if d.active(caller, old.token) || d.active(caller, child.token) {
		t.Errorf("before the moment: active %v, its child %v", d.active(caller, old.token), d.active(caller, child.token))
	}
	if !d.active(caller, fresh.token) {
		t.Error("what was decided after the moment is dead")
	}
	d.refused("an identity token from before", 400, "invalid_request", func() answer { return d.exchange(te(stolen, "audience", "orders")) })
	d.mint(d.checkout(), "orders")
	if rec := d.recorder.of(done["id"].(string))[0]; rec.Revocation == nil || !rec.Revocation.Before.Equal(moment) {
		t.Errorf("recorded %+v", rec.Revocation)
	}
	// Without a moment, all of it.
	operate(t, d).revokes("subject=" + checkoutID)
	if d.active(caller, fresh.token) {
		t.Error("it outlives a revocation without a moment")
	}
}

// What lives outside is divided the same.
func TestMomentDividesLeases(t *testing.T) {
	t.Parallel()
	d := deployOutside(t, lease.Limits{})
	d.pick(d.checkout())
	d.clock.advance(time.Minute)
	moment := d.clock.now()
	d.clock.advance(time.Minute)
	d.pick(d.checkout())
	_, ask := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	a := ask("POST", "/admin/v1/revocations", `{"selector":["subject=`+checkoutID+`"],"before":"`+moment.UTC().Format(time.RFC3339)+`"}`)
	if receipts, _ := object(t, a.body)["receipts"].([]any); a.status != 200 || len(receipts) != 1 || d.orchard.count() != 1 {
		t.Errorf("%d %s; %d live", a.status, a.body, d.orchard.count())
	}
}

// A moment that says nothing is refused: one to come, of a lock, of what names one thing.
func TestMomentThatSaysNothingIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	_, ask := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	past, future := d.clock.now().Add(-time.Hour).UTC().Format(time.RFC3339), d.clock.now().Add(time.Hour).UTC().Format(time.RFC3339)
	for name, tc := range map[string]struct{ body, says string }{
		"to come":    {`{"selector":["attr.team=x"],"before":"` + future + `"}`, "is not past"},
		"of a lock":  {`{"selector":["attr.team=x"],"lock":true,"before":"` + past + `"}`, "a lock"},
		"of a lease": {`{"selector":["lease=aaaaaaaaaaaaaaaaaaaaaaaaaa"],"before":"` + past + `"}`, "one thing"},
		"of a jti":   {`{"selector":["jti=https://x.example/1"],"before":"` + past + `"}`, "one thing"},
		"a word":     {`{"selector":["attr.team=x"],"before":"yesterday"}`, "the body must be"},
	} {
		if a := ask("POST", "/admin/v1/revocations", tc.body); a.status != 400 || !strings.Contains(string(a.body), tc.says) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// Attack: a thief exchanges after the moment what they had stolen before it. What they get dies with the rest, and what was issued after
// the moment lives.
func TestWhatAThiefHadBeforeTheMomentBuysNothingThatLives(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller, stolen := d.gateway(), d.checkout()
	nameless := d.checkout(without("iat"))
	d.clock.advance(10 * time.Second)
	moment := d.clock.now()
	d.clock.advance(time.Minute)
	bought := d.mint(stolen, "orders") // decided after the moment, of a token from before it
	onward := d.issued(d.exchange(te(bought.token, "audience", "billing")))
	timeless := d.mint(nameless, "orders") // of one that does not say when
	clean := d.mint(d.checkout(), "orders")
	d.clock.advance(time.Minute)
	operate(t, d).does(`"reason":"taken back","before":"`+moment.UTC().Format(time.RFC3339)+`"`, "subject="+checkoutID)
	d.refused("the platform's token itself", 400, "invalid_request", func() answer { return d.exchange(te(stolen, "audience", "orders")) })
	for name, one := range map[string]struct {
		token string
		lives bool
	}{
		"bought": {bought.token, false}, "exchanged onward": {onward.token, false}, "of a token that does not say when": {timeless.token, false}, "of one from after it": {clean.token, true},
	} {
		if d.active(caller, one.token) != one.lives {
			t.Errorf("%s: active is %v", name, !one.lives)
		}
	}
}

// A platform's token that does not say when it was issued stays refused for as long as such tokens live, and is not good again when its
// remaining life is short enough.
func TestTokenWithoutItsTimeOfIssueStaysRevoked(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	stolen := d.checkout(without("iat"), set("exp", d.clock.now().Add(26*time.Hour+10*time.Minute).Unix()))
	operate(t, d).does(`"reason":"stolen"`, "subject="+checkoutID)
	d.clock.advance(26 * time.Hour)
	if err := errors.Join(d.keys.Refresh(t.Context()), d.revocations.Prune(t.Context(), d.clock.now())); err != nil {
		t.Fatal(err)
	}
	d.refused("a day later", 400, "invalid_request", func() answer { return d.exchange(te(stolen, "audience", "orders")) })
}
