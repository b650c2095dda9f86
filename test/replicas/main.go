package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sallyport-sts/sallyport/test/stage"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replicas:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "sallyport-replicas-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err := stage.Build(dir)
	if err != nil {
		return err
	}
	s, err := newSet(dir, bin)
	if err != nil {
		return err
	}
	defer s.close()
	st := &story{out: out, set: s}
	st.play()
	return st.err
}

// story ends with the first thing that is not as told.
type story struct {
	out io.Writer
	*set
	step int
	err  error
}

func (s *story) play() {
	a, b := s.nodes[0], s.nodes[1]
	s.title("Two replicas, A and B, over one Redis; each has its own journal and audit log")
	s.ready(a)
	s.ready(b)

	s.title("Exchange on A, introspect on B")
	token := s.exchange(a, s.token("checkout"), "orders", http.StatusOK)
	bearer := s.exchange(b, s.token("gateway"), "introspection", http.StatusOK)
	s.introspect(b, bearer, token, true)

	s.title("Revoke on B: refused on both")
	s.revoke(b, token, http.StatusOK)
	s.introspect(b, bearer, token, false)
	s.introspect(a, bearer, token, false)
	s.exchange(a, token, "orders", http.StatusBadRequest)
	s.exchange(b, token, "orders", http.StatusBadRequest)

	s.title("Redis hangs for longer than max_staleness: nobody claims to know what lives; keys and metadata are served")
	during := s.exchange(a, s.token("checkout"), "orders", http.StatusOK)
	s.keep(s.redis.Stop())
	s.shell("kill -STOP redis-server")
	s.outage(a, b, bearer, during)
	s.title("A revocation in the meantime is in force on A and on record; the answer is 503, because B may not know")
	s.revoke(a, during, http.StatusServiceUnavailable)

	s.title("Redis goes on: caught up, and what was revoked on A is known to B")
	s.keep(s.redis.Continue())
	s.shell("kill -CONT redis-server")
	s.ready(a)
	s.ready(b)
	s.revoke(a, during, http.StatusOK)
	s.introspect(b, bearer, during, false)

	s.title("Redis is killed, and comes back without anything: the journals put back what it had, before anybody serves")
	killed := s.exchange(a, s.token("checkout"), "orders", http.StatusOK)
	alive := s.exchange(a, s.token("checkout"), "orders", http.StatusOK)
	s.redis.Kill()
	s.shell("kill -9 redis-server")
	s.outage(a, b, bearer, killed)
	s.revoke(b, killed, http.StatusServiceUnavailable)
	s.keep(s.redis.Run())
	s.shell("redis-server redis.conf   # empty")
	s.ready(a)
	s.ready(b)
	s.revoke(b, killed, http.StatusOK)
	for _, dead := range []string{token, during, killed} {
		s.introspect(a, bearer, dead, false)
		s.introspect(b, bearer, dead, false)
	}
	s.introspect(a, bearer, alive, true)
	s.introspect(b, bearer, alive, true)

	s.title("B is killed and starts from its journal")
	b.Kill()
	s.shell("kill -9 B")
	s.keep(s.start(b))
	s.ready(b)
	s.introspect(b, bearer, token, false)
	s.introspect(b, bearer, alive, true)
}

// outage waits until both replicas say that they are stale, and holds them to it.
func (s *story) outage(a, b *stage.Node, bearer, token string) {
	for _, n := range []*stage.Node{a, b} {
		s.eventually(n.Name+" to be stale", func() error {
			return n.Want("/introspect", form("token", token), bearer, http.StatusServiceUnavailable)
		})
		s.say("  %s: POST /introspect -> 503", n.Name)
		s.exchange(n, s.token("checkout"), "orders", http.StatusServiceUnavailable)
		for _, path := range []string{"/jwks", "/.well-known/openid-configuration"} {
			resp, err := http.Get("http://" + n.Workload + path)
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("%s of %s answers %d", path, n.Name, resp.StatusCode)
				}
			}
			s.keep(err)
			s.say("  %s: GET %s -> 200", n.Name, path)
		}
		s.say("  %s: GET /readyz -> %s", n.Name, reason(n))
	}
}

func (s *story) ready(n *stage.Node) {
	s.eventually(n.Name+" to be ready", func() error {
		resp, err := http.Get("http://" + n.Ops + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			said, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("readyz answers %d: %s", resp.StatusCode, said)
		}
		return nil
	})
	s.say("  %s: GET /readyz -> 200", n.Name)
}

func (s *story) eventually(what string, check func() error) {
	for deadline := time.Now().Add(stage.Patience); s.err == nil; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.keep(fmt.Errorf("waited %s for %s: %w", stage.Patience, what, err))
		}
	}
}

func (s *story) exchange(n *stage.Node, subject, target string, want int) string {
	var token string
	s.eventually("an exchange on "+n.Name, func() error {
		status, body, err := n.Post("/token", stage.ExchangeForm(subject, target), "")
		if err == nil && status != want {
			err = fmt.Errorf("%d %v, want %d", status, body, want)
		}
		token, _ = body["access_token"].(string)
		return err
	})
	s.say("  %s: POST /token audience=%s -> %d", n.Name, target, want)
	return token
}

// introspect waits for an answer; one that says the wrong thing is the end of the story at once.
func (s *story) introspect(n *stage.Node, bearer, token string, alive bool) {
	s.eventually("an answer of "+n.Name, func() error {
		status, body, err := n.Post("/introspect", form("token", token), bearer)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %v", status, body)
		}
		if err == nil && body["active"] != alive {
			s.keep(fmt.Errorf("%s says active=%v, want %v", n.Name, body["active"], alive))
		}
		return err
	})
	s.say("  %s: POST /introspect -> active: %v", n.Name, alive)
}

func (s *story) revoke(n *stage.Node, token string, want int) {
	s.eventually("revoking on "+n.Name, func() error {
		return n.Want("/revoke", form("token", token), "", want)
	})
	s.say("  %s: POST /revoke -> %d", n.Name, want)
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

func (s *story) shell(command string) { s.say("$ %s", command) }

func (s *story) title(text string) {
	s.step++
	s.say("\n%d. %s", s.step, text)
}

func (s *story) keep(err error) {
	if s.err == nil {
		s.err = err
	}
}
