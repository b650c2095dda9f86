package main

import (
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/lease"
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
		Leases: func() lease.Stats {
			if s.leases == nil {
				return lease.Stats{}
			}
			return s.leases.Stats()
		},
		Limited: func() map[string]uint64 { return s.limits.Refused() },
		Config:  func() string { return s.exchanger.ConfigHash() },
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
