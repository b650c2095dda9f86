package metrics

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Sources are asked whenever metrics are. None but Heard is nil, and each is cheap and safe for concurrent use.
type Sources struct {
	Version     string
	Audit       func() audit.Stats
	Keys        func() []federation.KeyStatus
	Signing     func() []SigningKey                   // our own
	Heard       func() (age time.Duration, ever bool) // of what replicas share; nil for one replica
	Revocations func() (live int, at revocation.Position)
	Minted      func() time.Time // from when on the index of what was minted knows everything
	Certificate func() time.Time // end of the one that is served; zero for none
	Leases      func() Leases
	Limited     func() map[string]uint64 // requests refused, by what limit
	Config      func() string            // hash of the configuration in force
	Checks      func() map[string]bool   // of /readyz: whether all is well, by name
}

// SigningKey is one of our own keys: which set it is of, where it is on its timeline, and for how long it has been
// published.
type SigningKey struct {
	Set, Algorithm, State, ID string
	Age                       time.Duration
}

// state is what is read from other parts.
type state struct {
	from  Sources
	names *atomic.Pointer[Names]
}

var _ prometheus.Collector = state{}

// Describe implements prometheus.Collector. It says nothing in advance: what there is, Collect says once.
func (state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s state) Collect(ch chan<- prometheus.Metric) {
	send := sender(func(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("sallyport_"+name, help, names, nil), kind, v, values...)
	})
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

	send(gauge, "build_info", "1, with the version.", 1, "version", s.from.Version, "goversion", runtime.Version())
	send(gauge, "config_info", "1, with the hash of the configuration in force.", 1, "hash", s.from.Config())
	for name, ok := range s.from.Checks() {
		send(gauge, "check_ok", "Whether a check of /readyz passes.", flag(ok), "check", name)
	}

	for at, k := range bySource(s.from.Keys()) {
		labels := []string{"url", at.url, "source", at.source}
		send(gauge, "issuer_keys_healthy", "Whether the newest attempt to read an issuer's keys succeeded, or there was none yet.", flag(k.healthy), labels...)
		send(gauge, "issuer_keys_age_seconds", "Age of the keys of an issuer in use; 0 while there are none.", k.age.Seconds(), labels...)
		send(gauge, "issuer_keys", "Usable keys of an issuer.", float64(k.keys), labels...)
		send(gauge, "issuer_keys_dropped", "Published keys of an issuer that cannot be used.", float64(k.dropped), labels...)
	}

	for _, k := range s.from.Signing() {
		send(gauge, "signing_key_age_seconds", "Time since one of our own keys was published, by its place on the timeline.", k.Age.Seconds(),
			"set", k.Set, "algorithm", k.Algorithm, "state", k.State, "kid", k.ID)
	}
	if s.from.Heard != nil {
		age, ever := s.from.Heard()
		seconds := age.Seconds()
		if !ever {
			seconds = math.Inf(1)
		}
		send(gauge, "store_heard_age_seconds", "Time since this replica last heard what the others know; beyond revocation.max_staleness it issues nothing.", seconds)
	}

	for by, n := range s.from.Limited() {
		send(counter, "rate_limited_total", "Requests refused because there were too many from one address or workload.", float64(n), "by", by)
	}

	live, position := s.from.Revocations()
	send(gauge, "revocations", "Revocations in force.", float64(live))
	send(gauge, "revocation_position", "Newest entry of the revocation log, within its epoch.", float64(position.N))
	send(gauge, "revocation_epoch", "Epoch of the revocation log; a new one begins when a store lost data.", float64(position.Epoch))

	send(gauge, "minted_since_timestamp_seconds", "Moment from which on this replica knows which tokens it minted: of older ones it cannot say whether they are forged.", float64(s.from.Minted().Unix()))

	if ends := s.from.Certificate(); !ends.IsZero() {
		send(gauge, "certificate_not_after_timestamp_seconds", "End of the certificate that is served.", float64(ends.Unix()))
	}

	s.leases(send)

	a := s.from.Audit()
	send(counter, "audit_records_total", "Audit records written since start.", float64(a.Appended))
	send(counter, "audit_bytes_total", "Bytes of audit records written since start.", float64(a.Bytes))
	send(counter, "audit_syncs_total", "Syncs of the audit log to disk since start.", float64(a.Syncs))
	send(gauge, "audit_sync_age_seconds", "Time since the last sync of the audit log, or since start.", a.SyncAge.Seconds())
	send(gauge, "audit_unsynced_records", "Audit records that a power cut would take.", float64(a.Unsynced))
	send(gauge, "audit_unsigned_records", "Audit records that no signed head vouches for yet.", float64(a.Last-min(a.Last, a.Signed)))
	send(gauge, "audit_free_bytes", "Free disk where the audit log is, as last asked.", float64(a.Free))
	for reason, n := range a.Junk {
		send(counter, "junk_total", "Requests that failed before a signature verified, by reason; they are sampled, not recorded.", float64(n), "reason", reason)
	}
}

type sourceKey struct{ url, source string }

type sourceState struct {
	healthy       bool
	age           time.Duration
	keys, dropped int
}

// bySource joins sources that differ in neither label, such as those of two issuers that share a URL and differ in
// their algorithms: the worst of each counts, and a metric must not come twice.
func bySource(list []federation.KeyStatus) map[sourceKey]sourceState {
	out := make(map[sourceKey]sourceState, len(list))
	now := time.Now()
	for _, k := range list {
		at := sourceKey{k.Issuer, k.Source}
		this := sourceState{k.Healthy, k.Age(now), k.Keys, k.Dropped}
		if other, ok := out[at]; ok {
			this = sourceState{
				this.healthy && other.healthy, max(this.age, other.age),
				min(this.keys, other.keys), max(this.dropped, other.dropped),
			}
		}
		out[at] = this
	}
	return out
}

func flag(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}
