package policy

// Looked returns how many rules a decision was held against, the look for the nearest rule aside.
func (d Decision) Looked() int { return d.looked }

// MaxNear is how many rules the look for the nearest rule may see, besides those of the index.
const MaxNear = maxNear
