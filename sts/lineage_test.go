package sts_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// lineageOf reads the private claim of a minted token.
func lineageOf(m minted) (family string, ancestors []string) {
	own, _ := m.claims["sallyport"].(map[string]any)
	family, _ = own["family"].(string)
	list, _ := own["ancestors"].([]any)
	for _, a := range list {
		s, _ := a.(string)
		ancestors = append(ancestors, s)
	}
	return family, ancestors
}

// A child names its family and every ancestor, oldest first, in the token and in the record.
func TestChildCarriesItsDescent(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	root := d.mint(d.checkout(), "orders")
	child := d.mint(root.token, "billing")
	grandchild := d.mint(child.token, "archive")
	for _, tc := range []struct {
		m         minted
		ancestors []string
	}{{root, nil}, {child, []string{root.decision}}, {grandchild, []string{root.decision, child.decision}}} {
		family, ancestors := lineageOf(tc.m)
		if family != root.decision || mustJSON(ancestors) != mustJSON(tc.ancestors) {
			t.Errorf("token of family %s with ancestors %v, want %s with %v", family, ancestors, root.decision, tc.ancestors)
		}
		if tc.m.claims["sub"] != root.claims["sub"] {
			t.Errorf("sub changed to %v on the way", tc.m.claims["sub"])
		}
		l := d.recorder.of(tc.m.decision)[0].Lease
		if l == nil || l.ID != tc.m.decision || l.Family != root.decision || mustJSON(l.Ancestors) != mustJSON(tc.ancestors) {
			t.Errorf("recorded lease %+v", l)
		}
	}
}

// Revoking a token kills what descends from it, and neither its ancestors nor its siblings.
func TestRevocationKillsDescendantsAlone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller := d.gateway()
	root := d.mint(d.checkout(), "orders")
	parent, sibling := d.mint(root.token, "orders"), d.mint(root.token, "orders")
	child := d.mint(parent.token, "orders")
	grandchild := d.mint(child.token, "orders")
	stranger := d.mint(d.checkout(), "orders")
	d.killed(parent.token)
	for name, tc := range map[string]struct {
		m     minted
		alive bool
	}{
		"root": {root, true}, "parent": {parent, false}, "sibling": {sibling, true}, "child": {child, false}, "grandchild": {grandchild, false}, "another family": {stranger, true},
	} {
		if got := d.active(caller, tc.m.token); got != tc.alive {
			t.Errorf("%s: active %v, want %v", name, got, tc.alive)
		}
		if a := d.exchange(te(tc.m.token, "audience", "billing")); (a.status == 200) != tc.alive {
			t.Errorf("%s: exchange onward answers %d", name, a.status)
		}
	}
	d.killed(root.token)
	if d.active(caller, sibling.token) {
		t.Error("the sibling outlives the root")
	}
}

// A chain has an end. // standards 1.45
func TestChainOfExchangesIsBounded(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	last := d.mint(d.checkout(), "orders")
	for range policy.MaxDepth - 1 {
		last = d.mint(last.token, "orders")
	}
	d.refused("one too many", 400, "invalid_target", func() answer { return d.exchange(te(last.token)) })
	if len(last.token) > 4<<10 {
		t.Errorf("the last token of a chain has %d bytes", len(last.token))
	}
}

// held is a broker that mints, says so, and waits.
type held struct {
	next            brokers.Broker
	minted, goAhead chan struct{}
}

func (h *held) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	c, err := h.next.Mint(ctx, o)
	h.minted <- struct{}{}
	<-h.goAhead
	return c, err
}

// What is revoked between the decision and the answer is withdrawn: nothing is returned, and the record says
// that something had been made.
func TestRevocationDuringTheMintWithdraws(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, name := range []string{"the subject token", "its ancestor"} {
		root := d.mint(d.checkout(), "orders")
		parent := d.mint(root.token, "orders")
		victim := parent
		if name == "its ancestor" {
			victim = root
		}
		h := &held{next: d.state.Brokers["billing"], minted: make(chan struct{}), goAhead: make(chan struct{})}
		d.world.brokers["billing"] = h
		d.exchanger.Swap(d.build(d.world, "held"))
		done := make(chan answer)
		go func() { done <- d.exchange(te(parent.token, "audience", "billing")) }()
		<-h.minted
		d.killed(victim.token)
		close(h.goAhead)
		a := <-done
		d.wantRefusal(name, a, 400, "invalid_request")
		recs := d.recorder.of(a.decision())
		if len(recs) != 1 || recs[0].Outcome != audit.Withdrawn || recs[0].Lease == nil || recs[0].Lease.ID != a.decision() || recs[0].Granted == nil {
			t.Errorf("%s: recorded %+v, want one withdrawn lease", name, recs)
		}
	}
}

// What is revoked between the last check and the answer is dead by its ancestors, for whoever asks.
func TestRevocationDuringTheRecordIsSeenByEverybody(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	caller := d.gateway()
	root := d.mint(d.checkout(), "orders")
	d.recorder.intercept(func(rec audit.Record) error {
		if rec.Outcome == audit.Issued {
			d.recorder.intercept(nil)
			d.killed(root.token)
		}
		return nil
	})
	late := d.mint(root.token, "orders")
	if d.active(caller, late.token) {
		t.Error("a token minted while its parent died is alive")
	}
}

// The position in a token is where the revocation log stood when it was decided.
func TestTokenCarriesThePositionOfItsDecision(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	var last revocation.Position
	for range 3 {
		m := d.mint(d.checkout(), "orders")
		p, err := revocation.ParsePosition(m.claims["sallyport"].(map[string]any)["position"].(string))
		if err != nil || p != d.revocations.Position() || p.N < last.N {
			t.Errorf("position %v (%v), the log is at %v", p, err, d.revocations.Position())
		}
		last = p
		d.killed(m.token)
	}
}

// A revocation is kept for as long as anything can live that it matches.
func TestRevocationIsKeptUntilTheLastDescendantIsGone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	root := d.mint(d.checkout(), "orders")
	child := d.mint(root.token, "orders")
	d.killed(root.token)
	for range 30 {
		d.clock.advance(3 * time.Minute)
		if err := d.revocations.Prune(t.Context(), d.clock.now()); err != nil {
			t.Fatal(err)
		}
		if d.active(d.gateway(), child.token) {
			t.Fatal("a dead token came back to life when its revocation was pruned")
		}
	}
	if d.revocations.Len() != 0 {
		t.Error("the revocation is kept for ever")
	}
}
