package metrics

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// unknown stands for every value that configuration does not have.
const unknown = "unknown"

// Metrics counts attempts and serves them with all the rest. It is safe for concurrent use.
type Metrics struct {
	registry       *prometheus.Registry
	names          atomic.Pointer[Names]
	exchanges      *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	refusals       *prometheus.CounterVec
	reloadFailures prometheus.Counter
	forged, unsure prometheus.Counter
}

// durations returns the bounds of the histogram in seconds: an exchange takes some 200 us where nothing is fetched,
// and at most the 15 s that a request may take.
func durations() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}
}

// New returns metrics of the parts in s. Attempts have no names in their labels until [Metrics.Configure].
func New(s Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_exchanges_total",
			Help: "Attempts to exchange a token, by configured issuer (TRUST_DOMAIN/NAME), target and outcome.",
		}, []string{"issuer", "target", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_exchange_duration_seconds",
			Help:    "Time from the first look at an exchange until it is on record, by configured issuer (TRUST_DOMAIN/NAME), target and outcome.",
			Buckets: durations(),
		}, []string{"issuer", "target", "outcome"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_refusals_total",
			Help: "Requests that were refused or failed, by operation and by the error code on the wire.",
		}, []string{"operation", "error"}),
		reloadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_config_reload_failures_total",
			Help: "Reloads that were refused; the old configuration stayed in force.",
		}),
	}
	m.names.Store(&Names{})
	m.forged = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sallyport_forged_tokens_total", Help: "Tokens with a good signature of ours that nobody minted: somebody has our signing key.",
	})
	m.unsure = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sallyport_unsure_tokens_total", Help: "Tokens with a good signature of ours that were exchanged or introspected, and of which it was not found out whether a replica minted them.",
	})
	m.registry.MustRegister(m.exchanges, m.duration, m.refusals, m.reloadFailures, m.forged, m.unsure, state{s, &m.names},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Names are the words of configuration that may be labels. They are not changed after they are given away.
type Names struct {
	Issuers map[string]bool   // TRUST_DOMAIN/NAME
	Targets map[string]string // target, by each of its names and resources
}

// Configure puts the names of a configuration in force.
func (m *Metrics) Configure(n Names) { m.names.Store(&n) }

// ReloadRefused counts a reload that was refused.
func (m *Metrics) ReloadRefused() { m.reloadFailures.Inc() }

// Forged counts a token that is signed with our key and was minted by nobody.
func (m *Metrics) Forged() { m.forged.Inc() }

// Unsure counts a token that is signed with our key and that nobody could say the maker of.
func (m *Metrics) Unsure() { m.unsure.Inc() }

// Handler serves the metrics in the text format of Prometheus, whatever format is asked for.
func (m *Metrics) Handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:      promhttp.ContinueOnError, // what can be had is served
		DisableCompression: true,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Del("Accept")
		h.ServeHTTP(w, r)
	})
}
