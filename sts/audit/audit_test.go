package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// testKey is a fixed key; other yields keys that differ from it.
func testKey(other byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{other}, ed25519.SeedSize))
}

func testPublic() ed25519.PublicKey { return testKey(0).Public().(ed25519.PublicKey) }

func testConfig(root string) Config {
	return Config{Dir: filepath.Join(root, "audit"), HeadFile: filepath.Join(root, "head"), Signer: testKey(0), Reserve: 1}
}

// fakeClock stands still until it is told to move. It begins at 1970.
type fakeClock struct{ ns atomic.Int64 }

func (c *fakeClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func mustOpen(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func mustAppend(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := l.Append(context.Background(), exchange(i)); err != nil {
			t.Fatalf("Append %d: %v", i, err)
		}
	}
}

func mustVerify(t testing.TB, cfg Config) Report {
	t.Helper()
	r, err := Verify(cfg.Dir, cfg.HeadFile, testPublic(), VerifyOptions{})
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return r
}

func wantOK(t testing.TB, r Report) {
	t.Helper()
	for _, f := range r.Findings {
		t.Errorf("Verify found %s", f)
	}
	if !r.OK() {
		t.FailNow()
	}
}

func decisionID(i int) string { return fmt.Sprintf("%032x", i) }

// exchange is a record as an exchange writes it, about 1.3 KB.
func exchange(i int) *Record {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return &Record{
		Type: TypeExchange, Decision: decisionID(i), Outcome: Issued,
		Reasons: []string{"rule checkout-reads-orders (policy/orders.yaml:3) allows"},
		Config:  "9f86d081884c7d659a2feaa0c55ad015", Remote: "10.1.2.3:45678",
		Subject: &Subject{
			Workload: "spiffe://prod.example/cluster-1/ns/checkout/sa/api", TrustDomain: "prod.example", Issuer: "cluster-1",
			Iss: "https://oidc.prod.example/cluster-1", Sub: "system:serviceaccount:checkout:api",
			TokenID: "7b7c2c8e-1111-2222-3333-444455556666", Fingerprint: strings.Repeat("0123456789abcdef", 4),
			KeyID: "k1", Alg: "RS256", IssuedAt: at, Expires: at.Add(time.Hour),
			Attributes: map[string]string{"namespace": "checkout", "service_account": "api"},
		},
		Requested: &Requested{Audience: []string{"orders-db"}, Scope: "read", SubjectTokenType: "urn:ietf:params:oauth:token-type:jwt"},
		Granted:   &Granted{Target: "orders-db", Scopes: []string{"read"}, Rule: "checkout-reads-orders", LifetimeSeconds: 600},
		Lease: &Lease{
			ID: decisionID(i), Family: decisionID(i), Position: "1.42", Expires: at.Add(10 * time.Minute),
			Kind: "jwt", Audience: "orders-db", Fingerprint: strings.Repeat("fedcba9876543210", 4),
		},
	}
}

// small is a record of about 250 bytes as it stands in the file.
func small(i int) *Record {
	return &Record{Type: TypeExchange, Decision: decisionID(i), Outcome: Refused, Error: "invalid_target", Reason: "no rule"}
}

// decisions returns how often each decision stands in the chain.
func decisions(t testing.TB, dir string) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := Scan(dir, func(l Line) error {
		if l.Decision != "" {
			out[l.Decision]++
		}
		return nil
	}, Filter{Types: []Type{TypeExchange}})
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return out
}

// records returns all records of one type.
func records(t testing.TB, dir string, typ Type) []Record {
	t.Helper()
	var out []Record
	err := Scan(dir, func(l Line) error { out = append(out, l.Record); return nil }, Filter{Types: []Type{typ}})
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return out
}

func TestLogIsFoundAgainAfterRestart(t *testing.T) {
	cfg := testConfig(t.TempDir())
	for session := range 3 {
		l := mustOpen(t, cfg)
		mustAppend(t, l, session*100, session*100+100)
		if err := l.Health(); err != nil {
			t.Errorf("Health: %v", err)
		}
		mustClose(t, l)
	}
	for _, i := range []int{0, 99, 100, 299} {
		rec, ok, err := Find(cfg.Dir, decisionID(i))
		if err != nil || !ok {
			t.Fatalf("Find %d: %v %v", i, ok, err)
		}
		want := exchange(i)
		if rec.Subject.Workload != want.Subject.Workload || !rec.Lease.Expires.Equal(want.Lease.Expires) || rec.Time.IsZero() || rec.N == 0 {
			t.Errorf("Find %d: got %+v", i, rec)
		}
	}
	if _, ok, err := Find(cfg.Dir, decisionID(300)); ok || err != nil {
		t.Errorf("Find of a decision that never was: %v %v", ok, err)
	}
	r := mustVerify(t, cfg)
	wantOK(t, r)
	if r.Unsigned > 1 || r.LastN != r.Records || r.Segments != 3 || r.Recovered != 0 {
		t.Errorf("report of a closed log: %+v", r)
	}
	if n := len(records(t, cfg.Dir, TypeClosed)); n != 3 {
		t.Errorf("closed records: got %d, want 3", n)
	}
}

func TestScanFiltersByTypeTimeAndDecision(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.SegmentSize = smallestSegment
	clock := &fakeClock{}
	clock.advance(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Sub(clock.now()))
	cfg.Now = clock.now
	l := mustOpen(t, cfg)
	for i := range 100 {
		clock.advance(time.Minute)
		if err := l.Append(t.Context(), small(i)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)
	count := func(f Filter) (n int) {
		if err := Scan(cfg.Dir, func(Line) error { n++; return nil }, f); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	if got := count(Filter{Types: []Type{TypeExchange}, From: first.Add(51 * time.Minute), To: first.Add(61 * time.Minute)}); got != 10 {
		t.Errorf("records of ten minutes: got %d", got)
	}
	if got := count(Filter{Decision: decisionID(7)}); got != 1 {
		t.Errorf("records of one decision: got %d", got)
	}
	stop := errors.New("enough")
	if err := Scan(cfg.Dir, func(Line) error { return stop }, Filter{}); !errors.Is(err, stop) {
		t.Errorf("Scan went on after an error of its function: %v", err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) {
		t.Errorf("second Open: got %v, want ErrLocked and the directory", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, cfg))
}

func TestAppendRefusesRecordsThatAreNotTheCallers(t *testing.T) {
	l := mustOpen(t, testConfig(t.TempDir()))
	for _, typ := range []Type{"", TypeOpened, TypeRecovered, TypeSegment, TypeClosed, TypePruned, TypeAccepted, TypeJunk, TypeHead, "other"} {
		if err := l.Append(t.Context(), &Record{Type: typ}); err == nil {
			t.Errorf("a caller may write a record of type %q", typ)
		}
	}
	long := &Record{Type: TypeExchange, Reason: strings.Repeat("x", MaxLine)}
	if err := l.Append(t.Context(), long); err == nil {
		t.Error("a record longer than MaxLine was written")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(cancelled, exchange(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with a cancelled context: %v", err)
	}
}

func TestAppendAfterCloseIsUnavailable(t *testing.T) {
	l := mustOpen(t, testConfig(t.TempDir()))
	mustClose(t, l)
	if err := l.Append(t.Context(), exchange(1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Append after Close: got %v", err)
	}
	if err := l.Health(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Health after Close: got %v", err)
	}
	mustClose(t, l)
}

func TestConfigIsChecked(t *testing.T) {
	good := testConfig(t.TempDir())
	for name, spoil := range map[string]func(*Config){
		"no directory":          func(c *Config) { c.Dir = "" },
		"no head file":          func(c *Config) { c.HeadFile = "" },
		"head beside the log":   func(c *Config) { c.HeadFile = filepath.Join(c.Dir, "head") },
		"no key":                func(c *Config) { c.Signer = nil },
		"unknown durability":    func(c *Config) { c.Durability = "none" },
		"negative retention":    func(c *Config) { c.Keep = -1 },
		"tiny segments":         func(c *Config) { c.SegmentSize = 1 },
		"old key of wrong size": func(c *Config) { c.OldKeys = []ed25519.PublicKey{{1}} },
	} {
		cfg := good
		spoil(&cfg)
		if l, err := Open(cfg); err == nil {
			_ = l.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	l.Junk("x", exchange(1))
	mustClose(t, l)
	for _, path := range []string{cfg.Dir, cfg.HeadFile, segmentPath(cfg.Dir, 1), filepath.Join(cfg.Dir, junkNames[0])} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
	}
}
