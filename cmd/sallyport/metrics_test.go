package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// metrics is what /metrics says.
func (d *deployment) metrics() string {
	d.t.Helper()
	hc := http.Client{Timeout: patience}
	resp, err := hc.Get("http://" + d.ops + "/metrics")
	if err != nil {
		d.t.Fatalf("asking /metrics: %v", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("/metrics answers %d: %v", resp.StatusCode, err)
	}
	return string(raw)
}

func TestMetricsRepeatNothingThatCallersSend(t *testing.T) {
	t.Parallel()
	const mark = "hostile-7f3a"
	d := newDeployment(t)
	d.start()
	c := d.caller()
	subject, stranger := d.subject("checkout"), d.subject("stranger-"+mark)
	seen := secrets{"a caller's word": []byte(mark)}
	minted := seen.token("a minted token", c.minted(t, seen.token("a subject token", subject), "gateway"))
	forged := seen.token("a forged token", subject[:len(subject)-8]+"AAAAAAAA")

	for _, form := range []url.Values{
		exchangeForm(subject, minted, ""), // a token in the wrong parameter
		exchangeForm(subject, mark, ""),
		exchangeForm(stranger, "gateway", ""),
		exchangeForm(stranger, mark, mark),
		exchangeForm(forged, "gateway", ""),
		exchangeForm(subject, "gateway", mark),
		exchangeForm(mark, mark, mark),
		{"grant_type": {mark}, "subject_token": {minted}, "subject_token_type": {mark}, "resource": {"https://" + mark + "/"}},
	} {
		if a := c.post("/token", "", form); a.err != nil || a.status != http.StatusBadRequest {
			t.Errorf("a hostile request: got %s, want 400", a)
		}
	}
	wantStatus(t, "introspecting as a stranger", c.introspect(mark, minted), http.StatusUnauthorized)
	wantStatus(t, "revoking nonsense", c.revoke(mark), http.StatusOK)
	wantStatus(t, "exchanging with another method", c.post("/token?"+mark, "", url.Values{}, "X-"+mark, mark), http.StatusBadRequest)

	said := d.metrics()
	seen.absent(t, "/metrics", []byte(said))
	if strings.Contains(said, "eyJ") {
		t.Errorf("/metrics has what looks like a token:\n%s", said)
	}
	for _, want := range []string{
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="issued",target="gateway"} 1`,
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="gateway"} 2`, // the stranger, and the scope
		`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="unknown"} 4`,
		`sallyport_refusals_total{error="invalid_token",operation="introspection"} 1`,
		`sallyport_check_ok{check="audit"} 1`,
		`sallyport_issuer_keys_healthy{source="jwks_file",url="` + clusterURL + `"} 1`,
	} {
		if !strings.Contains(said, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(said) {
			if strings.HasPrefix(line, "sallyport_") {
				t.Log(line)
			}
		}
	}
}

func TestMetricsNameWhatAReloadBringsAndCountWhatItRefuses(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	d.edit("policy/shop.yaml", "targets: [gateway]", "targets: [nowhere]")
	p.saidSoon("reload refused", 1)
	eventually(t, "the refused reload is counted", func() error { return d.lacking(`sallyport_check_ok{check="configuration"} 0`) })
	if strings.Contains(d.metrics(), "sallyport_config_reload_failures_total 0\n") {
		t.Error("a reload was refused and none is counted")
	}
	d.edit("policy/shop.yaml", "targets: [nowhere]", "targets: [gateway]")
	d.write("targets/later.yaml", "target: later\nbroker: jwt\nscopes: {call: {}}\n", 0o644)
	eventually(t, "the new target is a label", func() error {
		d.caller().exchange(d.subject("checkout"), "later")
		return d.lacking(`sallyport_exchanges_total{issuer="prod.example/cluster",outcome="refused",target="later"} `)
	})
}

// lacking is an error unless /metrics has the text.
func (d *deployment) lacking(text string) error {
	if said := d.metrics(); !strings.Contains(said, text) {
		return fmt.Errorf("/metrics lacks %s", text)
	}
	return nil
}

func TestFloodIsRefusedAndCounted(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, "limits: off", "limits: {address: {rate: 1, burst: 50}}")
	d.start()
	c := d.caller()
	subject := d.subject("checkout")
	limited := 0
	for limited == 0 {
		if a := c.exchange(subject, "gateway"); a.err != nil || a.status == http.StatusTooManyRequests {
			limited++
			wantStatus(t, "beyond the limit", a, http.StatusTooManyRequests)
		}
	}
	if err := d.lacking(`sallyport_rate_limited_total{by="address"} 1`); err != nil {
		t.Error(err)
	}
	if err := d.lacking(`sallyport_junk_total{reason="too many requests"} 1`); err != nil {
		t.Error(err)
	}
	if d.readyz().status != http.StatusOK {
		t.Error("a flood on the workload listener made the server not ready")
	}
}
