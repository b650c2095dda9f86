package incident

import (
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/stage"
)

// BenchmarkRevokedEverywhere measures, on three replicas over one Redis, how long after its holder's revocation was answered a
// token is still called active anywhere: asked at once, and again and again, until every replica refuses it.
func BenchmarkRevokedEverywhere(b *testing.B) {
	e := newEstate(b)
	bearer, err := e.nodes[0].Exchange(e.platform.Token("gateway", issuer), "introspection")
	if err != nil {
		b.Fatal(err)
	}
	var answered, refused []time.Duration
	for b.Loop() {
		token, err := e.nodes[0].Exchange(e.platform.Token("checkout", issuer), "orders")
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := e.nodes[len(refused)%3].Want("/revoke", stage.Form("token", token), "", http.StatusOK); err != nil {
			b.Fatal(err)
		}
		returned := time.Now()
		var all sync.WaitGroup
		late := make([]time.Duration, len(e.nodes))
		for i, n := range e.nodes {
			all.Go(func() {
				for {
					asked := time.Now()
					status, body, err := n.Post("/introspect", stage.Form("token", token), bearer)
					if err != nil || status != http.StatusOK {
						b.Errorf("%s: %d %v", n.Name, status, err)
						return
					}
					if body["active"] == false {
						return
					}
					late[i] = asked.Sub(returned) // it was active then
				}
			})
		}
		all.Wait()
		answered = append(answered, returned.Sub(start))
		refused = append(refused, slices.Max(late))
	}
	for name, d := range map[string][]time.Duration{"answered": answered, "active-after": refused} {
		slices.Sort(d)
		for _, q := range []struct {
			name string
			at   int
		}{{"p50", len(d) / 2}, {"p99", len(d) * 99 / 100}, {"p99.9", len(d) * 999 / 1000}} {
			b.ReportMetric(float64(d[min(q.at, len(d)-1)].Microseconds())/1000, name+"-"+q.name+"-ms")
		}
	}
}

// BenchmarkRevokeIdentity measures one revocation of an identity that has many logins of PostgreSQL and as many tokens, until
// the last receipt: SALLYPORT_LEASES of each, 10,000 unless it says otherwise.
func BenchmarkRevokeIdentity(b *testing.B) {
	n := 10_000
	if s := os.Getenv("SALLYPORT_LEASES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	e := newEstate(b)
	var tokens atomic.Int64
	start := time.Now()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			node := e.nodes[i%len(e.nodes)]
			for tokens.Add(1) <= int64(n) {
				root, err := node.Exchange(e.platform.Token("checkout", issuer), "orders")
				if err == nil {
					if root, err = node.Exchange(root, "billing"); err == nil {
						_, err = node.Exchange(root, "db")
					}
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	minted := time.Since(start)
	if have := e.roles(); have != n || b.Failed() {
		b.Fatalf("%d logins stand, want %d", have, n)
	}
	for b.Loop() {
		start = time.Now()
		out, err := e.cli(e.nodes[0], "revoke", "attr.sub=checkout", "--wait", "5m")
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/revocation")
		if left := e.roles(); left != 0 {
			b.Errorf("%d logins are left", left)
		}
	}
	b.ReportMetric(float64(n)/minted.Seconds(), "logins-minted/s")
	b.ReportMetric(float64(2*n), "tokens")
}
