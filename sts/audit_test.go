package sts_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// An issued token's record says who, what, by which rule and configuration, and what was made. // standards 4.28
func TestRecordOfAnIssuedToken(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	subject := d.checkout(set("jti", "platform-7"))
	m := d.mint(subject, "orders", "scope", "read", "resource", "https://orders.example/api", "requested_token_type", jwtType)
	recs := d.recorder.of(m.decision)
	if len(recs) != 1 {
		t.Fatalf("%d records, want 1", len(recs))
	}
	got, now, exp := recs[0], d.clock.now(), d.clock.now().Add(10*time.Minute)
	want := audit.Record{
		Type: audit.TypeExchange, Time: now, Decision: m.decision, Outcome: audit.Issued, Config: "config-1", Remote: "127.0.0.1",
		Reasons: []string{"rule checkout-orders (policy/test.yaml:1) allows"},
		Subject: &audit.Subject{
			Workload: "spiffe://prod.example/cluster/checkout/api", TrustDomain: "prod.example", Issuer: "cluster", Iss: "https://cluster.example",
			Sub: "checkout/api", TokenID: "platform-7", Fingerprint: got.Subject.Fingerprint, KeyID: "key-1", Alg: "ES256",
			IssuedAt: now, Expires: exp, Attributes: map[string]string{"team": "checkout"},
		},
		Requested: &audit.Requested{
			Audience: []string{"orders"}, Resource: []string{"https://orders.example/api"}, Scope: "read", SubjectTokenType: jwtType, RequestedTokenType: jwtType,
		},
		Granted: &audit.Granted{Target: "orders", Scopes: []string{"read"}, Rule: "checkout-orders", LifetimeSeconds: 600},
		Lease: &audit.Lease{
			ID: m.decision, Family: m.decision, Position: "1.0", Expires: exp, Kind: "urn:ietf:params:oauth:token-type:jwt", Audience: "https://orders.example/api", Fingerprint: got.Lease.Fingerprint,
		},
	}
	if mustJSON(got) != mustJSON(want) {
		t.Errorf("record\n%s\nwant\n%s", mustJSON(got), mustJSON(want))
	}
	if len(got.Subject.Fingerprint) != 64 || len(got.Lease.Fingerprint) != 64 || got.Subject.Fingerprint == got.Lease.Fingerprint {
		t.Errorf("fingerprints %s and %s", got.Subject.Fingerprint, got.Lease.Fingerprint)
	}
}

// A refusal's record says why, and which rule was near; what nobody signed is junk and no more. // standards 4.28
func TestRecordOfARefusal(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	a := d.refused("other team", 400, "invalid_target", func() answer { return d.exchange(te(d.sign(d.cluster, "checkout/api", "interns"))) })
	rec := d.recorder.of(a.decision())[0]
	near := audit.Near{Rule: "checkout-orders", Claim: "team", Expected: "checkout", Found: "interns"}
	if rec.Outcome != audit.Refused || rec.Error != "invalid_target" || rec.Reason == "" || rec.Near == nil || *rec.Near != near || rec.Config != "config-1" || rec.Lease != nil || rec.Granted != nil {
		t.Errorf("record %s, want a refusal near %+v", mustJSON(rec), near)
	}
	expired := d.checkout(set("exp", d.clock.now().Unix()-60), set("iat", d.clock.now().Unix()-600), without("nbf"))
	early, good := d.checkout(set("nbf", d.clock.now().Add(5*time.Minute).Unix())), d.checkout()
	for name, tc := range map[string]struct {
		token string
		chain bool
	}{"not valid yet": {early, true}, "expired": {expired, false}, "bad signature": {good[:len(good)-8] + "AAAAAAAA", false}, "garbage": {"garbage", false}} {
		records := len(d.recorder.records)
		a := d.exchange(te(tc.token))
		if inChain := len(d.recorder.records) > records; inChain != tc.chain {
			t.Errorf("%s: in the chain %v, want %v: only what was signed, and not what anybody finds in a log, belongs there", name, inChain, tc.chain)
		}
		rec := d.recorder.of(a.decision())[0]
		if rec.Reason == "" || rec.Error != "invalid_request" {
			t.Errorf("%s: record %s has no reason", name, mustJSON(rec))
		}
	}
	for _, reason := range d.recorder.reasons {
		if strings.ContainsAny(reason, ":\"") || len(reason) > 64 {
			t.Errorf("junk is counted under %q, which is no constant", reason)
		}
	}
}

// The record is written before the first byte of the answer.
func TestRecordComesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for name, form := range map[string]string{"issued": te(d.checkout()).Encode(), "refused": te(d.checkout(), "audience", "ledger").Encode(), "junk": "x=y"} {
		var events []string // one goroutine: the handler is called, not served
		d.recorder.intercept(func(audit.Record) error { events = append(events, "record"); return nil })
		req := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(form))
		req.Header.Set("Content-Type", formType)
		w := &watched{ResponseRecorder: httptest.NewRecorder(), event: func(e string) { events = append(events, e) }}
		d.handler.ServeHTTP(w, req)
		if w.Code == 200 {
			d.issued(answer{200, w.Header(), w.Body.String()})
		}
		want := []string{"record", "header", "body"}
		if name == "junk" {
			want = want[1:]
		}
		if !slices.Equal(events, want) {
			t.Errorf("%s: %v, want %v", name, events, want)
		}
	}
}

type watched struct {
	*httptest.ResponseRecorder
	event func(string)
}

func (w *watched) WriteHeader(status int) { w.event("header"); w.ResponseRecorder.WriteHeader(status) }
func (w *watched) Write(b []byte) (int, error) {
	w.event("body")
	return w.ResponseRecorder.Write(b)
}

// No record, no token: a log that fails is a 503 worth a retry, for issues and for refusals alike. // standards 1.40
func TestNothingIsAnsweredWithoutARecord(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	own := d.mint(d.checkout(), "orders").token
	for name, err := range map[string]error{"full": fmt.Errorf("%w: no space left", audit.ErrUnavailable), "strange": errors.New("the record is too long")} {
		status, code := 503, "temporarily_unavailable"
		if name == "strange" {
			status, code = 500, "server_error"
		}
		d.recorder.failing(err)
		for what, form := range map[string]string{
			"issue": te(d.checkout()).Encode(), "onward": te(own, "audience", "billing").Encode(), "refused target": te(d.checkout(), "audience", "ledger").Encode(),
			"refused scope": te(d.checkout(), "scope", "admin").Encode(), "not valid yet": te(d.checkout(set("nbf", d.clock.now().Add(5*time.Minute).Unix()))).Encode(),
		} {
			a := d.send(http.MethodPost, "/token", form, "Content-Type", formType)
			d.wantRefusal(name+" log, "+what, a, status, code)
			if strings.Contains(a.body, "access_token") || strings.Contains(a.body, "space") {
				t.Errorf("%s: the answer has more than the row: %s", what, redact(a.body))
			}
		}
	}
	before := d.recorder.count(audit.Issued)
	d.recorder.failing(nil)
	d.mint(d.checkout(), "orders")
	if n := d.recorder.count(audit.Issued); n != before+1 {
		t.Errorf("%d issued on record, want one more than %d", n, before)
	}
}

// A caller that hangs up during the mint leaves a record all the same.
func TestAttemptOfACallerWhoHungUpIsOnRecord(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.world.brokers["orders"] = brokerFunc(func(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
		cancel()
		return d.state.Brokers["orders"].Mint(context.WithoutCancel(ctx), o)
	})
	d.exchanger.Swap(d.build(d.world, "config-2"))
	d.recorder.intercept(func(audit.Record) error { return nil })
	out, err := d.exchanger.Exchange(ctx, sts.Request{Form: te(d.checkout()), Remote: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	if recs := d.recorder.of(out.Decision); len(recs) != 1 || recs[0].Outcome != audit.Issued || recs[0].Remote != "192.0.2.1" {
		t.Errorf("recorded %+v", recs)
	}
}

// With the log that ships: every token that left is in it, in a chain that verifies; the last reserve of the disk
// is for revocations.
func TestEveryIssuedTokenIsInTheRealLog(t *testing.T) {
	t.Parallel()
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, headFile := t.TempDir(), filepath.Join(t.TempDir(), "audit.head")
	open := func(reserve int64) *audit.Log {
		log, err := audit.Open(audit.Config{Dir: dir, HeadFile: headFile, Signer: signer, Reserve: reserve, Durability: audit.Machine})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	log := open(1)
	d := deploy(t, func(w *world) { w.audit = log })
	var mu sync.Mutex
	var tokens []minted
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 5 {
				a := d.exchange(te(d.checkout()))
				if a.status != 200 {
					t.Errorf("exchange answers %d", a.status)
					return
				}
				m := d.issued(a)
				d.exchange(te(d.checkout(), "audience", "ledger"))
				d.exchange(te("garbage"))
				mu.Lock()
				tokens = append(tokens, m)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	d.wantRefusal("closed log", d.exchange(te(d.checkout())), 503, "temporarily_unavailable")
	for _, m := range tokens {
		rec, ok, err := audit.Find(dir, m.claims["jti"].(string))
		if err != nil || !ok || rec.Outcome != audit.Issued || rec.Lease == nil || rec.Lease.ID != m.decision {
			t.Fatalf("token %s is not in the log: %v %v %+v", m.decision, ok, err, rec)
		}
	}
	report, err := audit.Verify(dir, headFile, signer.Public().(ed25519.PublicKey), audit.VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("the log does not verify: %v %+v", err, report)
	}
	// The disk has less left than the reserve: no tokens, but the kill works and is on record.
	full := open(1 << 60)
	d.recorder.also = full
	d.wantRefusal("full disk", d.exchange(te(d.checkout())), 503, "temporarily_unavailable")
	a := d.killed(tokens[0].token)
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	if rec, ok, err := audit.Find(dir, a.decision()); err != nil || !ok || rec.Revocation == nil {
		t.Errorf("the revocation is not in the log: %v %v", ok, err)
	}
}

// Reasons that policy composes from what was asked stay short in the record.
func TestCallersCannotFloodTheRecord(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	long := strings.Repeat("x", 20_000)
	for name, form := range map[string]string{
		"scope": te(d.checkout(), "scope", long).Encode(), "audience": te(d.checkout(), "audience", long).Encode(),
		"resource": drop(te(d.checkout(), "resource", "https://h/"+long), "audience").Encode(), "own scope": te(d.mint(d.checkout(), "orders").token, "scope", long).Encode(),
	} {
		a := d.send(http.MethodPost, "/token", form, "Content-Type", formType)
		if n := len(mustJSON(d.recorder.of(a.decision()))); a.status != 400 || n > 2000 {
			t.Errorf("%s of 20,000 bytes: %d, recorded in %d bytes", name, a.status, n)
		}
	}
}
