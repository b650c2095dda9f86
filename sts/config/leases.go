package config

import "github.com/sallyport-sts/sallyport/sts/lease"

// Bounds of the number of leases.
const (
	defaultLeases         = 100_000
	defaultTargetLeases   = 10_000
	defaultWorkloadLeases = 1_000
	maxLeases             = 1_000_000
)

type leasesBlock struct {
	Max         int `yaml:"max,omitempty" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"Credentials that may live outside at once, in all; 1 to 1000000. Default: 100000. Beyond it exchanges for such targets answer 429; each takes about 1 KiB of memory or of the Redis."`
	PerTarget   int `yaml:"per_target,omitempty" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"The same for each target that does not say max_leases; 1 to 1000000. Default: 10000."`
	PerWorkload int `yaml:"per_workload,omitempty" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"The same for each workload; 1 to 1000000. Default: 1000. A workload that asks for a new credential with each of its own requests meets it first, and no other workload notices."`
}

// leases checks the block leases.
func (d *document) leases(b leasesBlock) lease.Limits {
	out := lease.Limits{Total: defaultLeases, Target: defaultTargetLeases, Workload: defaultWorkloadLeases}
	for _, one := range []struct {
		key  string
		said int
		to   *int
	}{{"max", b.Max, &out.Total}, {"per_target", b.PerTarget, &out.Target}, {"per_workload", b.PerWorkload, &out.Workload}} {
		path := join("leases", one.key)
		if child(child(d.root, "leases"), one.key) == nil {
			continue
		}
		d.countOf(path, one.said)
		*one.to = one.said
	}
	return out
}

func (d *document) countOf(path string, n int) {
	if d.ok(path) && (n < 1 || n > maxLeases) {
		d.problem(path, "%s is outside 1 to %d; a limit is what keeps an explosion of credentials from becoming one of your upstream", last(path), maxLeases)
	}
}
