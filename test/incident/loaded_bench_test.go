package incident

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/stage"
)

// loadedRevocations is how many BenchmarkLoaded loads.
const loadedRevocations = 1_000_000

// BenchmarkLoaded compares a server that has a million revocations with one that has none, in rounds that take turns: exchanges a
// second, each over connections of its own, and how long the start takes until it is ready.
func BenchmarkLoaded(b *testing.B) {
	dir := b.TempDir()
	bin, err := stage.Build(dir)
	if err != nil {
		b.Fatal(err)
	}
	platform, err := stage.NewPlatform()
	if err != nil {
		b.Fatal(err)
	}
	const server = "issuer: " + issuer + "\nsigning: {seal_with: {file: secrets/kek}}\nlimits: off\n"
	nodes, starts := map[int]*stage.Node{}, map[int]time.Duration{}
	for _, n := range []int{0, loadedRevocations} {
		node := &stage.Node{Name: fmt.Sprint(n), Dir: filepath.Join(dir, fmt.Sprint(n))}
		for file, text := range map[string]string{
			"secrets/kek": stage.KEK(), "c.jwks.json": platform.JWKS, "trust/prod.yaml": platform.Trust(issuer),
			"targets/orders.yaml": "target: orders\nbroker: jwt\nscopes: {read: {}}\n",
			"policy/policy.yaml":  "rules:\n  - {name: orders, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [orders], scopes: [read]}\n",
		} {
			if err := stage.Write(filepath.Join(node.Dir, file), text); err != nil {
				b.Fatal(err)
			}
		}
		b.Cleanup(node.Kill)
		if err := node.Start(bin, server); err != nil {
			b.Fatal(err)
		}
		node.Kill()
		if n > 0 {
			if err := stage.FillRevocations(b.Context(), node.Dir, n); err != nil {
				b.Fatal(err)
			}
		}
		start := time.Now()
		if err := node.Start(bin, server); err != nil {
			b.Fatal(err)
		}
		for {
			if resp, err := http.Get("http://" + node.Ops + "/readyz"); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		starts[n] = time.Since(start)
		nodes[n] = node
	}
	var tokens []string
	for range 2000 {
		tokens = append(tokens, platform.Token("checkout", issuer))
	}
	rate := func(node *stage.Node) float64 {
		var done atomic.Int64
		end := time.Now().Add(2 * time.Second)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := i; time.Now().Before(end); j += 8 {
					if _, err := node.Exchange(tokens[j%len(tokens)], "orders"); err != nil {
						b.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		all.Wait()
		return float64(done.Load()) / 2
	}
	for b.Loop() {
		var ratios []float64
		for round := range 11 {
			none, full := rate(nodes[0]), rate(nodes[loadedRevocations])
			if round%2 == 1 { // whoever comes first has it no easier
				full, none = rate(nodes[loadedRevocations]), rate(nodes[0])
			}
			if round > 0 { // the first warms up
				ratios = append(ratios, full/none)
			}
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "throughput-ratio")
		for n, took := range starts {
			b.ReportMetric(took.Seconds(), fmt.Sprintf("start-with-%d-s", n))
		}
	}
}
