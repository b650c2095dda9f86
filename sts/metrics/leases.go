package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Leases is what is counted of credentials that live outside.
type Leases struct {
	Leads    bool                // this server cleans up; the next two are of interest only then
	Standing map[ByTarget]int    // how many there are, by state
	Waiting  time.Duration       // for how long the oldest has been waiting to be killed
	Kills    map[ByTarget]uint64 // attempts since the start, by outcome
	Orphans  map[string]uint64   // since the start, by target
}

// ByTarget is a target and a state or an outcome.
type ByTarget struct{ Target, Word string }

// sender sends one value of a metric, with labels and their values in turn.
type sender func(kind prometheus.ValueType, name, help string, v float64, labels ...string)

// leases sends what is counted of credentials that live outside. How many there are is told by the replica that leads: all
// replicas have one ledger, and a sum over them must be right.
func (s state) leases(send sender) {
	stats := s.from.Leases()
	targets := s.names.Load().Targets
	known := func(target string) string {
		if name, ok := targets[target]; ok {
			return name
		}
		return unknown // configured once; its leases are still to be killed
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

	send(gauge, "leases_leader", "Whether this server cleans up the credentials that live outside; one of a deployment does.", flag(stats.Leads))
	if stats.Leads {
		standing := map[ByTarget]int{}
		for at, n := range stats.Standing {
			standing[ByTarget{known(at.Target), at.Word}] += n
		}
		for at, n := range standing {
			send(gauge, "leases", "Credentials that live outside, by target and state, as of some seconds ago.", float64(n), "target", at.Target, "state", at.Word)
		}
		send(gauge, "lease_kill_waiting_seconds", "For how long the oldest credential has been waiting to be killed; 0 when none is.", stats.Waiting.Seconds())
	}

	kills, orphans := map[ByTarget]uint64{}, map[string]uint64{}
	for of, n := range stats.Kills {
		kills[ByTarget{known(of.Target), of.Word}] += n
	}
	for target, n := range stats.Orphans {
		orphans[known(target)] += n
	}
	for of, n := range kills {
		send(counter, "lease_kills_total", "Attempts to kill a credential that lives outside, by target and outcome.", float64(n), "target", of.Target, "outcome", of.Word)
	}
	for target, n := range orphans {
		send(counter, "reaper_orphans_total", "Credentials that were found alive after their end and in no ledger, and were killed.", float64(n), "target", target)
	}
}
