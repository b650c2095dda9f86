package federation

import "time"

// Settle waits for the fetches under way.
func (c *KeyCache) Settle() {
	for _, s := range c.remotes() {
		s.mu.Lock()
		flight := s.flight
		s.mu.Unlock()
		if flight != nil {
			<-flight
		}
	}
}

// Background reports whether the next caller would be answered from old keys or new ones, as it happens: while a fetch
// begins that nobody has to wait for.
func (c *KeyCache) Background(now time.Time) bool {
	for _, s := range c.remotes() {
		st := s.state.Load()
		if !now.Before(st.refresh) && st.serves(now) && st.settled(now) {
			return true
		}
	}
	return false
}

func (c *KeyCache) remotes() []*remoteSource {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*remoteSource
	for _, s := range c.sources {
		if r, ok := s.(*remoteSource); ok {
			out = append(out, r)
		}
	}
	return out
}
