package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/metrics"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// log is an audit log that says what it is told to.
type log struct{ err error }

func (l *log) Append(context.Context, *audit.Record) error { return l.err }
func (l *log) Junk(string, *audit.Record)                  {}

// everything has one value of each kind that can be read.
func everything() metrics.Sources {
	return metrics.Sources{
		Version: "v1.2.3",
		Audit: func() audit.Stats {
			return audit.Stats{Appended: 7, Bytes: 700, Syncs: 3, SyncAge: time.Second, Unsynced: 2, Signed: 5, Last: 9, Free: 1 << 30,
				Junk: map[string]uint64{"token signature is wrong": 4}}
		},
		Keys: func() []federation.KeyStatus {
			return []federation.KeyStatus{
				{Issuer: "https://a.example", Source: "discovery", Healthy: true, Keys: 3, Fetched: time.Now().Add(-time.Hour)},
				{Issuer: "https://a.example", Source: "discovery", Healthy: false, Keys: 2, Dropped: 1, Fetched: time.Now()},
			}
		},
		Signing: func() []metrics.SigningKey {
			return []metrics.SigningKey{
				{Set: "tokens", ID: "k1", Algorithm: "ES256", State: "retired", Age: 2 * time.Hour},
				{Set: "tokens", ID: "k2", Algorithm: "ES256", State: "active", Age: time.Hour},
			}
		},
		Heard:       func() (time.Duration, bool) { return 1500 * time.Millisecond, true },
		Revocations: func() (int, revocation.Position) { return 11, revocation.Position{Epoch: 2, N: 40} },
		Certificate: func() time.Time { return time.Unix(1_800_000_000, 0) },
		Minted:      func() time.Time { return time.Unix(1_700_000_000, 0) },
		Leases: func() metrics.Leases {
			return metrics.Leases{
				Leads: true, Waiting: 90 * time.Second,
				Standing: map[metrics.ByTarget]int{{Target: "orders", Word: "live"}: 5, {Target: "orders", Word: "dying"}: 1, {Target: "gone", Word: "dying"}: 2, {Target: "gone too", Word: "dying"}: 3},
				Kills:    map[metrics.ByTarget]uint64{{Target: "orders", Word: "dead"}: 7, {Target: "gone", Word: "failed"}: 8, {Target: "gone too", Word: "failed"}: 1},
				Orphans:  map[string]uint64{"orders": 2},
			}
		},
		Limited: func() map[string]uint64 { return map[string]uint64{"address": 6} },
		Config:  func() string { return "abc123" },
		Checks:  func() map[string]bool { return map[string]bool{"audit": true, "configuration": false} },
	}
}

func configured() *metrics.Metrics {
	m := metrics.New(everything())
	m.Configure(metrics.Names{
		Issuers: map[string]bool{"prod.example/cluster": true},
		Targets: map[string]string{"orders": "orders", "https://orders.example/": "orders", "billing": "billing"},
	})
	return m
}

// scrape returns what /metrics answers.
func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %q", line)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "sallyport_") {
				t.Log(line)
			}
		}
	}
}

func attempt(outcome audit.Outcome, code string, change ...func(*audit.Record)) *audit.Record {
	r := &audit.Record{Type: audit.TypeExchange, Time: time.Now(), Outcome: outcome, Error: code,
		Subject:   &audit.Subject{Workload: "spiffe://prod.example/cluster/checkout", TrustDomain: "prod.example", Issuer: "cluster"},
		Requested: &audit.Requested{Audience: []string{"orders"}},
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func TestAttemptsAreCountedOnceAsWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	m := configured()
	l := &log{}
	a := m.Audit(l)
	ctx := context.Background()
	put := func(r *audit.Record, err error) {
		l.err = err
		if got := a.Append(ctx, r); !errors.Is(got, err) {
			t.Errorf("Append of the wrapped log returned %v, of the wrapper %v", err, got)
		}
	}
	granted := func(r *audit.Record) { r.Granted = &audit.Granted{Target: "orders"} }
	put(attempt(audit.Issued, "", granted), nil)
	put(attempt(audit.Refused, "invalid_target", func(r *audit.Record) { r.Requested.Audience = []string{"billing"} }), nil)
	put(attempt(audit.Withdrawn, "invalid_request", granted), nil)
	put(attempt(audit.Issued, "", granted), audit.ErrUnavailable)          // no record, no token, and no second try
	put(attempt(audit.Issued, "", granted), errors.New("not encodable"))   // its refusal follows
	put(attempt(audit.Failed, "server_error", granted), nil)               // that one
	put(attempt(audit.Refused, "invalid_target"), errors.New("too large")) // and nothing follows
	a.Junk("token signature is wrong", attempt(audit.Refused, "invalid_request", func(r *audit.Record) { r.Subject = nil }))
	a.Junk("", nil)

	revoked := &audit.Record{Type: audit.TypeRevocation, Time: time.Now()}
	put(revoked, nil)
	put(revoked, audit.ErrUnavailable) // in force all the same
	a.Junk("token is malformed", revoked)
	put(&audit.Record{Type: audit.TypeRevocation, Time: time.Now(), Outcome: audit.Failed, Error: "temporarily_unavailable"}, nil)
	m.ReloadRefused()
	m.Forged()
	m.Unsure()

	got := scrape(t, m)
	wantLines(t, got,
		`sallyport_forged_tokens_total 1`,
		`sallyport_unsure_tokens_total 1`,
		`sallyport_minted_since_timestamp_seconds 1.7e+09`,
		`sallyport_certificate_not_after_timestamp_seconds 1.8e+09`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="issued",target="orders"} 1`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="billing"} 1`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="withdrawn",target="orders"} 1`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="failed",target="orders"} 3`,
		`sallyport_exchanges_total{issuer="unknown",outcome="refused",target="unknown"} 1`,
		`sallyport_exchange_duration_seconds_count{issuer="prod.example/cluster",outcome="issued",target="orders"} 1`,
		`sallyport_exchange_duration_seconds_count{issuer="prod.example/cluster",outcome="failed",target="orders"} 3`,
		`sallyport_refusals_total{error="invalid_target",operation="exchange"} 1`,
		`sallyport_refusals_total{error="invalid_request",operation="exchange"} 2`,
		`sallyport_refusals_total{error="temporarily_unavailable",operation="exchange"} 1`,
		`sallyport_refusals_total{error="server_error",operation="exchange"} 2`,
		`sallyport_refusals_total{error="temporarily_unavailable",operation="revocation"} 1`,
		`sallyport_config_reload_failures_total 1`,
	)
	if strings.Contains(got, `operation="revocation",error="invalid`) {
		t.Error("a revocation that was answered with 200 is counted as refused")
	}
}

// What callers choose is never a label, wherever a record has it: else strangers could fill the memory of whoever
// scrapes, and a token pasted into the wrong parameter would end up on a dashboard.
func TestLabelsAreWordsOfConfigurationAlone(t *testing.T) {
	t.Parallel()
	m := configured()
	a := m.Audit(&log{})
	const mark = "eyJhbGciOiJFUzI1NiJ9.hostile"
	for _, change := range []func(*audit.Record){
		func(r *audit.Record) { r.Requested.Audience = []string{mark} },
		func(r *audit.Record) { r.Requested.Resource = []string{mark} },
		func(r *audit.Record) { r.Requested.Audience = []string{"orders", mark} },
		func(r *audit.Record) { r.Requested.Audience = []string{"orders", "billing"} },
		func(r *audit.Record) { r.Requested.Audience = nil },
		func(r *audit.Record) { r.Granted = &audit.Granted{Target: mark} },
		func(r *audit.Record) { r.Subject.Issuer = mark },
		func(r *audit.Record) { r.Subject.TrustDomain = mark },
		func(r *audit.Record) { r.Subject.Iss, r.Subject.Sub, r.Subject.KeyID = mark, mark, mark },
		func(r *audit.Record) { r.Reason, r.Decision, r.Remote = mark, mark, mark },
		func(r *audit.Record) { r.Requested.Scope, r.Requested.SubjectTokenType = mark, mark },
		func(r *audit.Record) { r.Subject.Workload = "" }, // not identified: what it asks for does not count
	} {
		r := attempt(audit.Refused, "invalid_target", change)
		_ = a.Append(context.Background(), r)
		a.Junk("token is malformed", r)
	}
	got := scrape(t, m)
	if strings.Contains(got, "hostile") || strings.Contains(got, "eyJ") {
		t.Errorf("/metrics repeats a caller's words:\n%s", got)
	}
	wantLines(t, got,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="unknown"} 14`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="orders"} 6`,
		`sallyport_exchanges_total{issuer="unknown",outcome="refused",target="orders"} 4`,
	)
}

func TestStateIsReadWhenAskedFor(t *testing.T) {
	t.Parallel()
	got := scrape(t, configured())
	wantLines(t, got,
		`sallyport_config_info{hash="abc123"} 1`,
		`sallyport_check_ok{check="audit"} 1`,
		`sallyport_check_ok{check="configuration"} 0`,
		`sallyport_issuer_keys_healthy{source="discovery",url="https://a.example"} 0`, // the worst of the two
		`sallyport_issuer_keys{source="discovery",url="https://a.example"} 2`,
		`sallyport_issuer_keys_dropped{source="discovery",url="https://a.example"} 1`,
		`sallyport_signing_key_age_seconds{algorithm="ES256",kid="k1",set="tokens",state="retired"} 7200`,
		`sallyport_signing_key_age_seconds{algorithm="ES256",kid="k2",set="tokens",state="active"} 3600`,
		`sallyport_store_heard_age_seconds 1.5`,
		`sallyport_rate_limited_total{by="address"} 6`,
		`sallyport_revocations 11`,
		`sallyport_revocation_epoch 2`,
		`sallyport_revocation_position 40`,
		`sallyport_audit_records_total 7`,
		`sallyport_audit_unsigned_records 4`,
		`sallyport_audit_unsynced_records 2`,
		`sallyport_junk_total{reason="token signature is wrong"} 4`,
	)
	for _, name := range []string{"sallyport_build_info{", "go_goroutines ", "process_start_time_seconds ", `sallyport_issuer_keys_age_seconds{source="discovery",url="https://a.example"} 36`} {
		if !strings.Contains(got, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
}

// Replicas share one ledger: what it holds is told once, and a target that is configured no more is no label.
func TestLeasesAreToldByWhoeverLeads(t *testing.T) {
	t.Parallel()
	got := scrape(t, configured())
	wantLines(t, got,
		`sallyport_leases_leader 1`,
		`sallyport_leases{state="live",target="orders"} 5`,
		`sallyport_leases{state="dying",target="orders"} 1`,
		`sallyport_leases{state="dying",target="unknown"} 5`,
		`sallyport_lease_kill_waiting_seconds 90`,
		`sallyport_lease_kills_total{outcome="dead",target="orders"} 7`,
		`sallyport_lease_kills_total{outcome="failed",target="unknown"} 9`,
		`sallyport_reaper_orphans_total{target="orders"} 2`,
	)
	from := everything()
	from.Leases = func() metrics.Leases {
		return metrics.Leases{Kills: map[metrics.ByTarget]uint64{{Target: "orders", Word: "dead"}: 3}}
	}
	got = scrape(t, metrics.New(from))
	wantLines(t, got, `sallyport_leases_leader 0`, `sallyport_lease_kills_total{outcome="dead",target="unknown"} 3`)
	if strings.Contains(got, "\nsallyport_leases{") || strings.Contains(got, "\nsallyport_lease_kill_waiting_seconds") {
		t.Error("a replica that does not lead tells what the ledger holds")
	}
}
