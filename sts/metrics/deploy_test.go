package metrics_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/metrics"
)

var (
	sample    = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{([^}]*)\})? `)
	labelName = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
	metric    = regexp.MustCompile(`\b((?:sallyport|process|go)_[a-z_]+)(?:\{([^}]*)\})?`)
	grouping  = regexp.MustCompile(`by \(([^)]*)\)`)
)

// served returns the labels of every metric, by the names that /metrics has.
func served(t *testing.T) map[string][]string {
	t.Helper()
	m := configured()
	_ = m.Audit(&log{}).Append(context.Background(), attempt(audit.Refused, "invalid_target"))
	out := map[string][]string{}
	for _, s := range sample.FindAllStringSubmatch(scrape(t, m), -1) {
		out[s[1]] = []string{}
		for _, l := range labelName.FindAllStringSubmatch(s[2], -1) {
			out[s[1]] = append(out[s[1]], l[1])
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d metrics were found; the test looks at nothing", len(out))
	}
	return out
}

// expressions returns every expr of the files in deploy/ops.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	var alerts struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "ops", name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if err := yaml.Unmarshal(read("alerts.yaml"), &alerts); err != nil {
		t.Fatalf("alerts.yaml: %v", err)
	}
	if err := json.Unmarshal(read("dashboard.json"), &dashboard); err != nil {
		t.Fatalf("dashboard.json: %v", err)
	}
	out := map[string]string{}
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			out["alert "+r.Alert] = r.Expr
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			out["panel "+p.Title] = target.Expr
		}
	}
	return out
}

// An alert on a metric or label that does not exist never fires, and nobody notices.
func TestAlertsAndDashboardUseMetricsThatExist(t *testing.T) {
	t.Parallel()
	have := served(t)
	list := expressions(t)
	if len(list) < 15 {
		t.Fatalf("only %d expressions were found; the test looks at nothing", len(list))
	}
	for where, expr := range list {
		found := metric.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s: %s uses no metric", where, expr)
		}
		for _, m := range found {
			labels, ok := have[m[1]]
			if !ok {
				t.Errorf("%s uses %s, which is not served", where, m[1])
			}
			for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(labels, l[1]) {
					t.Errorf("%s asks for label %s of %s, which has %v", where, l[1], m[1], labels)
				}
			}
			for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
				for name := range strings.SplitSeq(g[1], ",") {
					if !slices.Contains(labels, strings.TrimSpace(name)) {
						t.Errorf("%s groups by %s, which %s does not have", where, name, m[1])
					}
				}
			}
		}
	}
}

// docs/operating.md lists every metric of ours, and no other.
func TestDocumentedMetricsAreThoseServed(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]string{}
	for name, labels := range served(t) {
		if strings.HasPrefix(name, "sallyport_") {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
			labels = slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return l == "le" })
			slices.Sort(labels)
			have[name] = labels
		}
	}
	row := regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\| ([^|]*) \\|")
	for _, r := range row.FindAllStringSubmatch(string(raw), -1) {
		labels, ok := have[r[1]]
		if !ok {
			t.Errorf("docs/operating.md lists %s, which is not served", r[1])
		}
		var said []string
		for name := range strings.FieldsFuncSeq(r[2], func(c rune) bool { return strings.ContainsRune("`, -", c) }) {
			said = append(said, name)
		}
		slices.Sort(said)
		if !slices.Equal(said, labels) {
			t.Errorf("docs/operating.md gives %s the labels %v, it has %v", r[1], said, labels)
		}
		delete(have, r[1])
	}
	for name := range have {
		t.Errorf("docs/operating.md does not list %s", name)
	}
}

var _ metrics.Log = (*log)(nil)
