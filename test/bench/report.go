package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is the outcome of one run; its JSON form is for machines.
type report struct {
	Rounds     int            `json:"rounds"`
	DurationMS float64        `json:"duration_ms"` // of one window
	Tokens     int            `json:"tokens"`      // distinct subject tokens
	Scenario   scenarioReport `json:"scenario"`
	Machine    machine        `json:"machine"`
	Servers    []serverReport `json:"servers"`
	Rows       []row          `json:"rows"`
	FirstError string         `json:"first_error,omitempty"` // the first wrong answer of the run
}

// scenarioReport is the size of the deployment that rows C to F ran.
type scenarioReport struct {
	Rules       int `json:"rules"`
	Conditions  int `json:"conditions"`
	Issuers     int `json:"issuers"`
	Revocations int `json:"revocations"`
}

// machine says where and how undisturbed the run was.
type machine struct {
	Go         string            `json:"go"`
	Platform   string            `json:"platform"`
	Processors int               `json:"processors"`
	LoadBefore float64           `json:"load_before"`   // one-minute load average when the run began
	LoadAfter  float64           `json:"load_after"`    // and when it ended; the run itself adds 2 to 3
	Others     spread            `json:"others"`        // processors busy with neither server nor client, over the windows
	Drift      float64           `json:"drift"`         // A's CPU per request, worst round over best, at its worst number of connections
	SyncMS     float64           `json:"sync_ms"`       // median small synced append where the audit logs lie
	ClientMS   float64           `json:"client_cpu_ms"` // median CPU per request of the load generator
	Settings   map[string]string `json:"settings"`      // Go runtime settings inherited by every server
}

// serverReport is what is measured once for each server.
type serverReport struct {
	Key       string  `json:"key"`
	Name      string  `json:"name"`
	FirstMS   float64 `json:"first_start_ms"` // exec to first 200 from POST /token, nothing on disk but configuration
	RestartMS float64 `json:"restart_ms"`     // the same with the keys and state of the first start
	IdleMB    float64 `json:"idle_mb"`        // resident after that, MiB
	Issued    string  `json:"issued"`         // algorithm of the issued tokens
}

// row is one server at one number of connections. Each spread is over the rounds; ratios are to row A's window of
// the same round.
type row struct {
	Key       string      `json:"key"`
	Name      string      `json:"name"`
	Conns     int         `json:"conns"`
	Requests  int         `json:"requests"` // good answers over all rounds
	Errors    int         `json:"errors"`   // wrong answers over all rounds
	PerSecond spread      `json:"rps"`
	P50       spread      `json:"p50_ms"`
	P99       spread      `json:"p99_ms"`
	CPU       spread      `json:"cpu_ms"` // of the server, per good answer
	RSS       float64     `json:"rss_mb"` // largest at the end of a window, MiB
	RatioRPS  spread      `json:"rps_ratio"`
	RatioCPU  spread      `json:"cpu_ratio"`
	RatioP50  spread      `json:"p50_ratio"`
	RatioP99  spread      `json:"p99_ratio"`
	Samples   []rowSample `json:"samples"` // by round
}

// rowSample is one window.
type rowSample struct {
	PerSecond float64 `json:"rps"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_ms"`
	Others    float64 `json:"others"`
}

func newReport(o options) *report {
	r := &report{Rounds: o.rounds, DurationMS: milliseconds(o.duration), Tokens: o.tokens}
	if o.needsBinary() {
		r.Scenario = scenarioReport{o.scenario.rules, o.scenario.conditions, o.scenario.issuers, o.scenario.revocations}
	}
	r.Machine.Go = runtime.Version()
	r.Machine.Platform = runtime.GOOS + "/" + runtime.GOARCH
	r.Machine.Processors = runtime.NumCPU()
	r.Machine.Settings = make(map[string]string)
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			r.Machine.Settings[name] = v
		}
	}
	return r
}

// fill computes the rows from the samples.
func (r *report) fill(o options, servers []*server, samples map[slot][]sample) {
	for _, s := range servers {
		r.Servers = append(r.Servers, serverReport{Key: s.key, Name: s.name, FirstMS: milliseconds(s.first),
			RestartMS: milliseconds(s.restart), IdleMB: mebibytes(s.idle), Issued: s.issued})
	}
	var others, client []float64
	for _, conns := range o.conns {
		base := samples[slot{"A", conns}]
		for _, s := range servers {
			got := samples[slot{s.key, conns}]
			r.Rows = append(r.Rows, newRow(s, conns, got, base))
			for _, one := range got {
				others = append(others, one.Others)
				if one.Requests > 0 {
					client = append(client, milliseconds(one.Client)/float64(one.Requests))
				}
				if one.First != nil && r.FirstError == "" {
					r.FirstError = fmt.Sprintf("%s at %d connections: %v", s.name, conns, one.First)
				}
			}
		}
		if cpu := newSpread(values(base, sample.cpuPerRequest)); cpu.Min > 0 {
			r.Machine.Drift = max(r.Machine.Drift, cpu.Max/cpu.Min)
		}
	}
	r.Machine.Others = newSpread(others)
	r.Machine.ClientMS = newSpread(client).Median
}

func newRow(s *server, conns int, got, base []sample) row {
	p50 := func(s sample) float64 { return milliseconds(s.P50) }
	p99 := func(s sample) float64 { return milliseconds(s.P99) }
	ratio := func(of func(sample) float64) spread {
		return newSpread(pairedRatios(values(got, of), values(base, of)))
	}
	out := row{
		Key: s.key, Name: s.name, Conns: conns,
		PerSecond: newSpread(values(got, sample.perSecond)),
		P50:       newSpread(values(got, p50)),
		P99:       newSpread(values(got, p99)),
		CPU:       newSpread(values(got, sample.cpuPerRequest)),
		RatioRPS:  ratio(sample.perSecond),
		RatioCPU:  ratio(sample.cpuPerRequest),
		RatioP50:  ratio(p50),
		RatioP99:  ratio(p99),
	}
	for _, one := range got {
		out.Requests += one.Requests
		out.Errors += one.Wrong
		out.RSS = max(out.RSS, mebibytes(one.Resident))
		out.Samples = append(out.Samples, rowSample{one.perSecond(), p50(one), p99(one), one.cpuPerRequest(), one.Others})
	}
	return out
}

func values(samples []sample, of func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return out
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// errors counts the wrong answers.
func (r *report) errors() int {
	n := 0
	for _, row := range r.Rows {
		n += row.Errors
	}
	return n
}

// write prints the report as a table for people or as JSON.
func (r *report) write(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if err := r.writeTable(w); err != nil {
		return err
	}
	return r.writeNotes(w)
}

func (r *report) writeTable(w io.Writer) error {
	var text strings.Builder
	tw := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%-*s\tconns\treq/s\tp50 ms\tp99 ms\tCPU ms/req\tRSS MB\trps/A\tCPU/A\tmin-max\tp50/A\tp99/A\tstart ms\trestart ms\terrors\t\n",
		nameWidth, "row")
	for i, row := range r.Rows {
		if i > 0 && row.Conns != r.Rows[i-1].Conns {
			fmt.Fprintln(tw, strings.Repeat("\t", tableColumns))
		}
		s := r.Servers[slices.IndexFunc(r.Servers, func(s serverReport) bool { return s.Key == row.Key })]
		fmt.Fprintf(tw, "%-*s\t%d\t%.0f\t%.2f\t%.2f\t%.3f\t%.0f\t%.2f\t%.2f\t%.2f-%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%d\t\n",
			nameWidth, row.Key+" "+row.Name, row.Conns, row.PerSecond.Median, row.P50.Median, row.P99.Median, row.CPU.Median, row.RSS,
			row.RatioRPS.Median, row.RatioCPU.Median, row.RatioCPU.Min, row.RatioCPU.Max, row.RatioP50.Median,
			row.RatioP99.Median, s.FirstMS, s.RestartMS, row.Errors)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// The shape of the table.
const (
	nameWidth    = len("D sallyport/machine") // the only column aligned left
	tableColumns = 15
)

// writeNotes says how to read the table and how far to trust it.
func (r *report) writeNotes(w io.Writer) error {
	m := r.Machine
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d rounds of %.1f s a window, rows interleaved in each round, medians over the rounds; %d subject tokens.\n",
		r.Rounds, r.DurationMS/1000, r.Tokens)
	b.WriteString("x/A divides a row's window by A's window of the same round; the median of those is shown. CPU/A 1.30 means: for each\n" +
		"exchange the server spends 30 % more processor time than form, RS256 verify, ES256 sign and JSON cost with nothing around them.\n" +
		"CPU/A is the figure to compare; req/s and p99 also depend on what else the machine does. start and restart: exec to the\n" +
		"first 200 from POST /token, without and with the state of an earlier start, once per run, steps of 2 ms.\n")
	if sc := r.Scenario; sc.Rules > 0 {
		fmt.Fprintf(&b, "Rows from C on: %d rules of the caller's issuer and target, its own last, %d with a condition; %d issuers; %d live revocations.\n",
			sc.Rules, sc.Conditions, sc.Issuers, sc.Revocations)
	}
	for _, s := range r.Servers {
		fmt.Fprintf(&b, "%s %s: issues %s, %.0f MB resident when idle.\n", s.Key, s.Name, s.Issued, s.IdleMB)
	}
	fmt.Fprintf(&b, "Machine: %s, %s, %d processors; load average %.1f before, %.1f after (the run itself adds 2 to 3);\n",
		m.Go, m.Platform, m.Processors, m.LoadBefore, m.LoadAfter)
	fmt.Fprintf(&b, "others used %.2f processors in the median window (%.2f-%.2f); A's own CPU per request varied %.2fx between rounds (worst level).\n",
		m.Others.Median, m.Others.Min, m.Others.Max, m.Drift)
	fmt.Fprintf(&b, "A small synced write takes %.2f ms here; the load generator, on the same processors, spends %.3f ms CPU a request.\n", m.SyncMS, m.ClientMS)
	for name, v := range m.Settings {
		fmt.Fprintf(&b, "%s=%s is set for every server.\n", name, v)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
