package config

import (
	"testing"

	"github.com/sallyport-sts/sallyport/sts/limit"
)

func TestLimitsAreOnUnlessSwitchedOff(t *testing.T) {
	t.Parallel()
	standard := defaultLimits()
	for text, want := range map[string]Limits{
		"":                       standard,
		"limits: {}":             standard,
		"limits: off":            {},
		"limits: 'off'":          {},
		"limits: {address: off}": {Workload: standard.Workload},
		"limits: {workload: {rate: 7, burst: 9}}":                     {Address: standard.Address, Workload: limit.Rate{PerSecond: 7, Burst: 9}},
		"limits: {address: {rate: 1, burst: 1000000}, workload: off}": {Address: limit.Rate{PerSecond: 1, Burst: 1_000_000}},
	} {
		var problems Problems
		d := parse(source{name: "sallyport.yaml", data: []byte("x: 1\n" + text)}, &problems)
		var f struct {
			X      int                `yaml:"x"`
			Limits orOff[limitsBlock] `yaml:"limits,omitempty"`
		}
		d.decode(d.root, "", &f, true)
		if got := d.limits(f.Limits); got != want || len(problems) > 0 {
			t.Errorf("%q: %+v and problems %v, want %+v", text, got, problems, want)
		}
	}
}
