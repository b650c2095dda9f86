package policy

import (
	"fmt"
	"slices"
)

// Bounds of what one decision takes, in units of CEL's cost, one some 100 ns. Whoever holds a token may ask as often as
// their limit lets them, and the attributes that conditions loop over are theirs.
const (
	maxEffort = 3 * maxConditionCost
	heldCost  = 10 // for each rule that is held against a request, its condition aside

	// maxCrowd is how many rules of one target one workload can be about by what they are filed under: so many
	// cost a third of maxEffort, for there are allow rules, deny rules, and those about who acts.
	maxCrowd = maxConditionCost / heldCost
)

// effort counts what a decision takes.
type effort struct {
	probes int // of the index
	held   int // rules that were held against the facts
	near   int // rules that were looked at for the one that came nearest
	cost   uint64
	last   int // the rule that was held last
}

// hold counts rule i, and reports whether there is effort left for it.
func (e *effort) hold(i int) bool {
	if e.exhausted() {
		return false
	}
	e.held++
	e.cost += heldCost
	e.last = i
	return !e.exhausted()
}

func (e *effort) exhausted() bool { return e.cost > maxEffort }

// givenUp words where a decision ended without an answer.
func (p *Policy) givenUp(f Facts, t *Target, e effort) string {
	r := &p.rules[e.last]
	return fmt.Sprintf("given up at rule %s (%s), the rule %d that was held against the request: those that can be about %s at target %s cost more than %d units; tell them apart by where",
		r.Name, r.Source, e.held, whoever(f), t.Name, maxEffort)
}

// crowds reports the rules that are one too many: with so many filed alike, every decision about the workloads that they
// are about could be given up.
func (c *checker) crowds() {
	var excess []int
	for _, buckets := range []map[key]*bucket{c.policy.allow, c.policy.deny} {
		for _, b := range buckets {
			if len(b.always) > maxCrowd {
				excess = append(excess, b.always[maxCrowd])
				continue
			}
			for _, s := range b.shelves {
				for _, rules := range s.under {
					if n := maxCrowd - len(b.always); len(rules) > n {
						excess = append(excess, rules[n])
					}
				}
			}
		}
	}
	slices.Sort(excess)
	for _, i := range slices.Compact(excess) {
		c.rule(i, "workloads.where", "rule %s is one of more than %d that one workload can match at one target; each of them is held against every request of it: tell them apart by where, or make them one", c.policy.rules[i].Name, maxCrowd)
	}
}
