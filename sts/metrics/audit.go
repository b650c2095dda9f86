package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// Log is what [Metrics.Audit] wraps.
type Log interface {
	Append(ctx context.Context, r *audit.Record) error
	Junk(reason string, r *audit.Record)
}

// Audited passes records on and counts them.
type Audited struct {
	metrics *Metrics
	next    Log
}

// Audit returns a log that passes everything on to next and counts it.
func (m *Metrics) Audit(next Log) *Audited { return &Audited{m, next} }

// Append passes r on. It is counted for what became of the attempt: what cannot be recorded has failed, since
// nothing leaves without a record.
func (a *Audited) Append(ctx context.Context, r *audit.Record) error {
	err := a.next.Append(ctx, r)
	switch {
	case err == nil:
		a.metrics.count(r, r.Outcome, r.Error)
	case r.Type == audit.TypeRevocation && r.Outcome == "": // in force all the same
	case errors.Is(err, audit.ErrUnavailable):
		a.metrics.count(r, audit.Failed, "temporarily_unavailable")
	case r.Outcome != audit.Issued: // else its refusal is appended next
		a.metrics.count(r, audit.Failed, "server_error")
	}
	return err
}

// Junk passes r on and counts it.
func (a *Audited) Junk(reason string, r *audit.Record) {
	a.next.Junk(reason, r)
	if r != nil {
		a.metrics.count(r, r.Outcome, r.Error)
	}
}

func (m *Metrics) count(r *audit.Record, outcome audit.Outcome, code string) {
	if code != "" {
		m.refusals.WithLabelValues(string(r.Type), code).Inc()
	}
	if r.Type != audit.TypeExchange || outcome == "" {
		return
	}
	issuer, target := m.names.Load().of(r)
	m.exchanges.WithLabelValues(issuer, target, string(outcome)).Inc()
	m.duration.WithLabelValues(issuer, target, string(outcome)).Observe(max(0, time.Since(r.Time).Seconds()))
}

// of returns labels for an attempt: words of configuration, or "unknown". The target is told only of who is
// identified: what strangers ask for is of no interest, and would let them draw on the dashboard.
func (n *Names) of(r *audit.Record) (issuer, target string) {
	issuer, target = unknown, unknown
	if r.Subject == nil {
		return issuer, target
	}
	if name := r.Subject.TrustDomain + "/" + r.Subject.Issuer; n.Issuers[name] {
		issuer = name
	}
	switch {
	case r.Subject.Workload == "":
	case r.Granted != nil:
		target = n.target([]string{r.Granted.Target})
	case r.Requested != nil:
		target = n.target(r.Requested.Audience, r.Requested.Resource)
	}
	return issuer, target
}

// target returns the one target that all the words name.
func (n *Names) target(lists ...[]string) string {
	found := ""
	for _, words := range lists {
		for _, word := range words {
			name, ok := n.Targets[word]
			if !ok || found != "" && found != name {
				return unknown
			}
			found = name
		}
	}
	if found == "" {
		return unknown
	}
	return found
}
