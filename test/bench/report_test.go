package main

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// twoRounds is a run of rows A and C at one connection on a machine that is twice as slow in round two.
func twoRounds() (options, []*server, map[slot][]sample) {
	one := func(requests int, cpu, p50 time.Duration, wrong int, first error) sample {
		return sample{Requests: requests, Wrong: wrong, First: first, Elapsed: 2 * time.Second, CPU: cpu, Client: cpu / 4,
			P50: p50, P99: 10 * p50, Resident: 16 << 20, Others: 0.5}
	}
	servers := []*server{
		{key: "A", name: "floor-raw", first: 20 * time.Millisecond, restart: 15 * time.Millisecond, idle: 9 << 20, issued: "ES256"},
		{key: "C", name: "sallyport/process", first: 90 * time.Millisecond, restart: 60 * time.Millisecond, idle: 18 << 20, issued: "ES256"},
	}
	samples := map[slot][]sample{
		{"A", 1}: {one(4000, 800*time.Millisecond, 200*time.Microsecond, 0, nil), one(2000, 800*time.Millisecond, 400*time.Microsecond, 0, nil)},
		{"C", 1}: {one(3000, 900*time.Millisecond, 300*time.Microsecond, 0, nil), one(1500, 900*time.Millisecond, 600*time.Microsecond, 3, errors.New("status 503"))},
	}
	return options{rounds: 2, duration: 2 * time.Second, conns: []int{1}, rows: []string{"A", "C"}}, servers, samples
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestReportPairsRounds(t *testing.T) {
	o, servers, samples := twoRounds()
	r := newReport(o)
	r.fill(o, servers, samples)
	if len(r.Rows) != 2 || r.Rows[1].Key != "C" {
		t.Fatalf("rows %+v", r.Rows)
	}
	c := r.Rows[1]
	for what, got := range map[string]struct{ got, want float64 }{
		"req/s":       {c.PerSecond.Median, 1125}, // mean of 1500 and 750
		"CPU ms/req":  {c.CPU.Median, 0.45},       // mean of 0.3 and 0.6
		"rps/A":       {c.RatioRPS.Median, 0.75},
		"CPU/A":       {c.RatioCPU.Median, 1.5},
		"CPU/A least": {c.RatioCPU.Min, 1.5},
		"CPU/A most":  {c.RatioCPU.Max, 1.5},
		"p50/A":       {c.RatioP50.Median, 1.5},
		"p99/A":       {c.RatioP99.Median, 1.5},
		"RSS":         {c.RSS, 16},
		"requests":    {float64(c.Requests), 4500},
		"errors":      {float64(r.errors()), 3},
		"drift":       {r.Machine.Drift, 2}, // A: 0.2 ms, then 0.4 ms
		"others":      {r.Machine.Others.Median, 0.5},
	} {
		if !near(got.got, got.want) {
			t.Errorf("%s: got %v, want %v", what, got.got, got.want)
		}
	}
	if !strings.Contains(r.FirstError, "sallyport/process at 1 connections: status 503") {
		t.Errorf("first error %q", r.FirstError)
	}
}

func TestReportTableShowsRatiosAndNoise(t *testing.T) {
	o, servers, samples := twoRounds()
	r := newReport(o)
	r.Machine.LoadBefore, r.Machine.LoadAfter = 1.5, 3.5
	r.fill(o, servers, samples)
	var b strings.Builder
	if err := r.write(&b, "table"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if got, want := len(strings.Fields(lines[0])), 21; got != want { // 15 columns, some of two words
		t.Errorf("header has %d words, want %d: %s", got, want, lines[0])
	}
	want := []string{"C", "sallyport/process", "1", "1125", "0.45", "4.50", "0.450", "16", "0.75", "1.50", "1.50-1.50", "1.50", "1.50", "90", "60", "3"}
	if got := strings.Fields(lines[2]); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("row C:\n got %v\nwant %v", got, want)
	}
	if len(lines[1]) != len(lines[0]) || len(lines[2]) != len(lines[0]) {
		t.Errorf("columns are not aligned:\n%s\n%s\n%s", lines[0], lines[1], lines[2])
	}
	for _, note := range []string{"load average 1.5 before, 3.5 after", "varied 2.00x", "CPU/A 1.30 means", "issues ES256"} {
		if !strings.Contains(b.String(), note) {
			t.Errorf("the note lacks %q", note)
		}
	}
}

func TestReportJSONHasEveryRound(t *testing.T) {
	o, servers, samples := twoRounds()
	r := newReport(o)
	r.fill(o, servers, samples)
	var b strings.Builder
	if err := r.write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if s := got.Rows[1].Samples; len(s) != 2 || !near(s[0].CPU, 0.3) || !near(s[1].CPU, 0.6) {
		t.Errorf("samples %+v", s)
	}
}

// TestReportOfFailedWindows keeps a server that never answered from breaking the report: NaN has no JSON.
func TestReportOfFailedWindows(t *testing.T) {
	o, servers, samples := twoRounds()
	samples[slot{"C", 1}] = []sample{{Wrong: 7}, {}}
	r := newReport(o)
	r.fill(o, servers, samples)
	var b strings.Builder
	if err := r.write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	if c := r.Rows[1]; c.RatioCPU != (spread{}) || c.Errors != 7 {
		t.Errorf("row C: %+v", c)
	}
}

func TestInOrderReversesEveryOtherRound(t *testing.T) {
	_, servers, _ := twoRounds()
	keys := func(round int) string {
		var s string
		for _, one := range inOrder(servers, round) {
			s += one.key
		}
		return s
	}
	if got := keys(0) + keys(1) + keys(2); got != "ACCAAC" {
		t.Errorf("order over three rounds %s, want ACCAAC", got)
	}
	if servers[0].key != "A" {
		t.Error("inOrder changed its argument")
	}
}

func TestScenarioHoldsOneOfEachDoor(t *testing.T) {
	sc := scenario{rules: 30, conditions: 5, issuers: 3}
	files := sc.files([]byte(`{"keys":[]}`), "127.0.0.1:1", "127.0.0.1:2", "machine")
	for name, want := range map[string]string{
		"sallyport.yaml":      "listen: {workload: 127.0.0.1:1, ops: 127.0.0.1:2}",
		"trust/prod.yaml":     "issuer: " + subjectIssuer + "\n",
		"targets/orders.yaml": "target: orders",
		"policy/orders.yaml":  `where: {repository_id: "90210", ref: refs/heads/main}`,
		"keys/ci.json":        `{"keys":[]}`,
	} {
		if !strings.Contains(string(files[name]), want) {
			t.Errorf("%s lacks %q:\n%s", name, want, files[name])
		}
	}
	if !strings.Contains(string(files["sallyport.yaml"]), "durability: machine") {
		t.Error("the durability did not reach the configuration")
	}
	if got := len(strings.TrimSpace(string(files["secrets/kek"]))); got != 44 { // 32 bytes in base64
		t.Errorf("key-encryption key of %d characters", got)
	}
	if again := sc.files(nil, "", "", ""); string(again["secrets/kek"]) == string(files["secrets/kek"]) {
		t.Error("two runs share a key-encryption key")
	}
	policy := string(files["policy/orders.yaml"])
	for word, want := range map[string]int{"- name:": 30, "when:": 5, "targets: [orders]": 30, "issuer: ci,": 30, `"90210"`: 4} {
		if got := strings.Count(policy, word); got != want {
			t.Errorf("the policy has %q %d times, want %d", word, got, want)
		}
	}
	if last := policy[strings.LastIndex(policy, "- name:"):]; !strings.Contains(last, `{repository_id: "90210", ref: refs/heads/main}`) || !strings.Contains(last, "when:") {
		t.Errorf("the caller's rule is not the last, or has no condition:\n%s", last)
	}
	if got := strings.Count(string(files["trust/prod.yaml"]), "- name:"); got != 3 {
		t.Errorf("%d issuers, want 3", got)
	}
}

// A server that remembers what it verified must not be measured on its memory: every token comes once before any
// comes again, whatever the connections do.
func TestEveryTokenComesBeforeAnyComesAgain(t *testing.T) {
	s := &server{requests: [][]byte{{0}, {1}, {2}, {3}, {4}}}
	for round := range 3 {
		seen := map[byte]bool{}
		for range 5 {
			seen[s.next()[0]] = true
		}
		if len(seen) != 5 {
			t.Errorf("round %d presented %d of 5 tokens", round, len(seen))
		}
	}
}
