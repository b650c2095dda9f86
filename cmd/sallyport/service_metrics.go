package main

import (
	"time"

	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/metrics"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// newMetrics reads from the parts that the service has by now; the rest is there before anybody asks.
func (s *service) newMetrics() *metrics.Metrics {
	from := metrics.Sources{
		Version: versionName(),
		Audit:   s.audit.Stats,
		Keys:    s.keyCache.Status,
		Signing: s.signingKeys,
		Revocations: func() (int, revocation.Position) {
			return s.revocations.Len(), s.revocations.Position()
		},
		Minted:      func() time.Time { return s.index.Since() },
		Certificate: s.certificateEnds,
		Leases:      s.leaseMetrics,
		Limited:     func() map[string]uint64 { return s.limits.Refused() },
		Config:      func() string { return s.exchanger.ConfigHash() },
		Checks: func() map[string]bool {
			results, _ := sts.Run(s.checks)
			out := make(map[string]bool, len(results))
			for _, r := range results {
				out[r.Name] = r.OK
			}
			return out
		},
	}
	if s.replica != nil {
		from.Heard = s.replica.Age
	}
	return metrics.New(from)
}

func (s *service) signingKeys() []metrics.SigningKey {
	list := s.keys.Timeline()
	out := make([]metrics.SigningKey, len(list))
	for i, k := range list {
		out[i] = metrics.SigningKey{Set: k.Set, Algorithm: k.Algorithm, State: string(k.State), ID: k.ID, Age: k.Age}
	}
	return out
}

// leaseMetrics is what the keeper of leases has counted.
func (s *service) leaseMetrics() metrics.Leases {
	if s.leases == nil {
		return metrics.Leases{}
	}
	stats := s.leases.Stats()
	out := metrics.Leases{
		Leads: stats.Leads, Standing: make(map[metrics.ByTarget]int, len(stats.Leases)), Waiting: stats.Waiting,
		Kills: make(map[metrics.ByTarget]uint64, len(stats.Kills)), Orphans: stats.Orphans,
	}
	for at, n := range stats.Leases {
		out.Standing[metrics.ByTarget{Target: at.Target, Word: string(at.State)}] = n
	}
	for of, n := range stats.Kills {
		out.Kills[metrics.ByTarget{Target: of.Target, Word: of.Outcome}] = n
	}
	return out
}

// namesIn are the words of a configuration that metrics may have in labels.
func namesIn(set *config.Set) metrics.Names {
	n := metrics.Names{Issuers: map[string]bool{}, Targets: map[string]string{}}
	for _, is := range set.Issuers {
		n.Issuers[is.TrustDomain+"/"+is.Name] = true
	}
	for _, t := range set.Targets {
		n.Targets[t.Policy.Name] = t.Policy.Name
		if t.Policy.Resource != "" {
			n.Targets[t.Policy.Resource] = t.Policy.Name
		}
	}
	return n
}
