package policy

// Looked returns how many rules a decision was held against, the look for the nearest rule aside.
func (d Decision) Looked() int { return d.effort.held }

// Steps returns how much a decision did: probes of the index, and rules that were looked at for whatever reason.
func (d Decision) Steps() int { return d.effort.probes + d.effort.held + d.effort.near }

// Cost returns what a decision cost, in CEL's units.
func (d Decision) Cost() uint64 { return d.effort.cost }

// What bounds a decision.
const (
	MaxEffort        = maxEffort
	MaxConditionCost = maxConditionCost
	MaxCrowd         = maxCrowd
)

// Conditions returns how many conditions were compiled.
func (p *Policy) Conditions() int {
	distinct := map[*condition]bool{}
	for _, c := range p.conditions {
		distinct[c] = true
	}
	delete(distinct, nil)
	return len(distinct)
}
