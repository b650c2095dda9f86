package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
	"github.com/sallyport-sts/sallyport/test/stage"
)

// set is two replicas, what they share, and the platform that both trust.
type set struct {
	bin      string
	redis    *redistest.Server
	platform *stage.Platform
	nodes    []*stage.Node
}

// issuer is the same for both: a load balancer would stand there.
const issuer = "http://127.0.0.1:1"

const server = "issuer: " + issuer + "\nsigning: {seal_with: {file: secrets/kek}}\nstore: {redis: {url: {file: secrets/redis}}}\nrevocation: {max_staleness: 3s}\n"

func newSet(dir, bin string) (_ *set, err error) {
	s := &set{bin: bin}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.redis, err = redistest.Start(false); err != nil {
		return nil, err
	}
	if s.platform, err = stage.NewPlatform(); err != nil {
		return nil, err
	}
	kek := stage.KEK()
	for _, name := range []string{"A", "B"} {
		n := &stage.Node{Name: name, Dir: filepath.Join(dir, name)}
		s.nodes = append(s.nodes, n)
		for name, text := range map[string]string{
			"secrets/kek": kek, "secrets/redis": s.redis.URL, "c.jwks.json": s.platform.JWKS,
			"trust/prod.yaml":     s.platform.Trust(issuer),
			"targets/orders.yaml": "target: orders\nbroker: jwt\nscopes: {read: {}}\nresource_servers: [\"spiffe://prod.example/c/gateway\"]\n",
			"policy/policy.yaml":  "rules:\n  - {name: orders, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [orders], scopes: [read]}\n  - {name: introspect, workloads: {trust_domain: prod.example, issuer: c, where: {sub: gateway}}, targets: [introspection]}\n",
		} {
			if err := stage.Write(filepath.Join(n.Dir, name), text); err != nil {
				return nil, err
			}
		}
		if err := s.start(n); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *set) start(n *stage.Node) error { return n.Start(s.bin, server) }

func (s *set) close() {
	for _, n := range s.nodes {
		n.Kill()
	}
	if s.redis != nil {
		_ = s.redis.Close()
	}
}

func (s *set) token(sub string) string { return s.platform.Token(sub, issuer) }

func form(pairs ...string) url.Values { return stage.Form(pairs...) }

// reason is what /readyz says of the store.
func reason(n *stage.Node) string {
	resp, err := http.Get("http://" + n.Ops + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var r struct {
		Checks []struct{ Name, Reason string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return err.Error()
	}
	for _, c := range r.Checks {
		if c.Name == "store" {
			return fmt.Sprint(resp.StatusCode, " ", c.Reason)
		}
	}
	return resp.Status
}
