package revocation

// Run returns the longest run of used slots, which is the most that a look-up can see.
func (s *Set) Run() int {
	longest := 0
	for i := range s.mirror.dead.shards {
		run := 0
		for _, tag := range s.mirror.dead.shards[i].tags {
			if run++; tag == 0 {
				run = 0
			}
			longest = max(longest, run)
		}
	}
	return longest
}

// Slots returns how many slots there are.
func (s *Set) Slots() int {
	n := 0
	for i := range s.mirror.dead.shards {
		n += len(s.mirror.dead.shards[i].slots)
	}
	return n
}

// Longest returns how many entries stand under one term at most, all of which a look-up of it goes through.
func (s *Set) Longest() int {
	n := 0
	for _, list := range s.index.byTerm {
		n = max(n, len(list))
	}
	return n
}
