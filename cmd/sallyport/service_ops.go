package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts"
)

// status is what `sallyport status` shows.
func (s *service) status() sts.AdminStatus {
	a := s.audit.Stats()
	checks, _ := sts.Run(s.checks)
	out := sts.AdminStatus{
		Version: versionName(), Started: s.started, Issuer: s.server.Issuer, Config: s.exchanger.ConfigHash(), Checks: checks,
		Revocations: sts.AdminRevocations{Position: s.revocations.Position().String(), Live: s.revocations.Len()},
		Audit:       sts.AdminAudit{Last: a.Last, Signed: a.Signed, Unsynced: a.Unsynced, Free: a.Free},
		Issuers:     []sts.AdminIssuer{},
	}
	if s.replica != nil {
		out.Replica = s.replica.Name()
	}
	for _, k := range slices.SortedFunc(slices.Values(s.keyCache.Status()), func(a, b federation.KeyStatus) int {
		return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Source, b.Source))
	}) {
		out.Issuers = append(out.Issuers, sts.AdminIssuer{
			Issuer: k.Issuer, Source: k.Source, Used: k.Used, Healthy: k.Healthy, Keys: k.Keys,
			Age: int64(k.Age(time.Now()) / time.Second), Error: k.LastError,
		})
	}
	return out
}
