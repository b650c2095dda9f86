package config

import (
	"reflect"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/limit"
)

// maxRate bounds rates and bursts: beyond it, off says what is meant.
const maxRate = 1_000_000

// Limits says how fast callers may ask. A zero rate is none.
type Limits struct {
	Address  limit.Rate // of each address
	Workload limit.Rate // of each verified workload
}

// defaultLimits are far above what one workload or one address needs, and far below what fills a disk.
func defaultLimits() Limits {
	return Limits{Address: limit.Rate{PerSecond: 200, Burst: 1000}, Workload: limit.Rate{PerSecond: 50, Burst: 500}}
}

type limitsBlock struct {
	Address  orOff[rateBlock] `yaml:"address,omitempty" jsonschema_description:"What each address may ask of /token, /introspect and /revoke together, before anything else is looked at; an IPv6 network of 64 bits counts as one. Default: {rate: 200, burst: 1000}. Too low, and workloads behind one address translation refuse each other; off, and one stranger can use up the CPU."`
	Workload orOff[rateBlock] `yaml:"workload,omitempty" jsonschema_description:"What each workload may ask once its token has verified. Default: {rate: 50, burst: 500}. Too low, and a workload with many instances is refused; off, and whoever holds one live token can fill the audit log."`
}

type rateBlock struct {
	Rate  int `yaml:"rate" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"Requests a second, in the long run; 1 to 1000000. Required."`
	Burst int `yaml:"burst" jsonschema:"minimum=1,maximum=1000000" jsonschema_description:"Requests at once; 1 to 1000000. Required."`
}

// orOff is a T, or the word off.
type orOff[T any] struct {
	off  bool
	some *T // nil when left out or off
}

var (
	_ checker          = (*orOff[rateBlock])(nil)
	_ yaml.Unmarshaler = (*orOff[rateBlock])(nil)
)

func (*orOff[T]) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.ScalarNode {
		d.shape(n, reflect.TypeFor[T](), path, true)
		return true
	}
	if n.Value != "off" || n.Tag != "!!str" {
		d.place(n, path, "%s must be a mapping (key: value) or the word off, not %s", last(path), show(n.Value))
	}
	return true
}

// UnmarshalYAML takes a T or the word off.
func (o *orOff[T]) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		o.off = true
		return nil
	}
	o.some = new(T)
	return n.Load(o.some, yaml.WithKnownFields())
}

// JSONSchema describes the two forms.
func (orOff[T]) JSONSchema() *jsonschema.Schema {
	own := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, Anonymous: true}
	some := own.Reflect(new(T))
	some.Version = ""
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Const: "off"}, some}}
}

// limits checks the block limits.
func (d *document) limits(b orOff[limitsBlock]) Limits {
	if b.off {
		return Limits{}
	}
	out := defaultLimits()
	if b.some == nil {
		return out
	}
	d.rate("limits.address", b.some.Address, &out.Address)
	d.rate("limits.workload", b.some.Workload, &out.Workload)
	return out
}

// rate checks one limit and replaces the default by it.
func (d *document) rate(path string, b orOff[rateBlock], r *limit.Rate) {
	switch {
	case b.off:
		*r = limit.Rate{}
	case b.some != nil:
		*r = limit.Rate{PerSecond: b.some.Rate, Burst: b.some.Burst}
		d.bounded(join(path, "rate"), r.PerSecond)
		d.bounded(join(path, "burst"), r.Burst)
	}
}

func (d *document) bounded(path string, n int) {
	if d.ok(path) && (n < 1 || n > maxRate) {
		d.problem(path, "%s is outside 1 to %d; for no limit, write off in place of the mapping", last(path), maxRate)
	}
}
