package crash

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/test/stage"
)

const databases = 5

// estate is one process with five databases, each behind a proxy of its own, and a token from which all five can be had.
type estate struct {
	*run
	proxies []*brokertest.Proxy
}

func newEstate(t *testing.T, w *world) *estate {
	e := &estate{run: &run{world: w, group: "estate"}}
	e.node = &stage.Node{Name: "estate", Dir: filepath.Join(t.TempDir(), "e")}
	e.server = "issuer: " + issuer + "\nsigning: {seal_with: {file: secrets/kek}}\nlimits: off\n"
	if _, err := w.query("CREATE ROLE " + e.group); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"secrets/kek": stage.KEK(), "c.jwks.json": w.platform.JWKS, "trust/prod.yaml": w.platform.Trust(issuer),
		"targets/hub.yaml": "target: hub\nbroker: jwt\n",
	}
	var targets []string
	for i := range databases {
		p := brokertest.NewProxy(t, w.postgres.Addr())
		e.proxies = append(e.proxies, p)
		_, port, _ := strings.Cut(p.Addr(), ":")
		name := fmt.Sprintf("db%d", i)
		targets = append(targets, name)
		files["secrets/"+name] = strings.Replace(w.postgres.DSN("postgres"), fmt.Sprintf("port=%d", w.postgres.Port()), "port="+port, 1)
		files["targets/"+name+".yaml"] = fmt.Sprintf("target: %s\nbroker: postgres\nscopes: {read: {roles: [%s]}}\npostgres: {dsn: {file: secrets/%s}, host: 127.0.0.1, port: %d, sslmode: disable}\n", name, e.group, name, w.postgres.Port())
	}
	files["policy/p.yaml"] = "rules:\n" +
		"  - {name: hub, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [hub]}\n" +
		"  - {name: dbs, workloads: {trust_domain: prod.example, issuer: c}, exchange_from: [hub], targets: [" + strings.Join(targets, ", ") + "], scopes: [read]}\n"
	for name, text := range files {
		if err := stage.Write(filepath.Join(e.node.Dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(e.node.Kill)
	if err := e.node.Start(w.bin, e.server); err != nil {
		t.Fatal(err)
	}
	return e
}

// timed exchanges for the healthy databases in turn and returns the times it took, sorted.
func (e *estate) timed(t *testing.T, token string, n int) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range n {
		start := time.Now()
		if _, err := e.node.Exchange(token, fmt.Sprintf("db%d", 1+i%(databases-1))); err != nil {
			t.Fatalf("a database that is well: %v", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took
}

func (e *estate) hub(t *testing.T) string {
	t.Helper()
	token, err := e.node.Exchange(e.platform.Token("checkout", issuer), "hub")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// One dead database among five: exchanges and revocations for the other four go on, the dead one's are pending, and done
// when it is back. Vault's users know the contrary: a revocation queue that hangs on one dead database.
func TestOneDeadDatabaseAmongFiveHoldsUpNoOther(t *testing.T) {
	e := newEstate(t, newWorld(t))
	const each, looks = 10, 40
	doomed := e.hub(t)
	for range each {
		for i := range databases {
			if _, err := e.node.Exchange(doomed, fmt.Sprintf("db%d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	keeper := e.hub(t)
	before := e.timed(t, keeper, looks)

	e.proxies[0].Stall() // it takes connections and says nothing, which is the worst that it can do
	var waiting []error
	done := make(chan error, each)
	for range each { // callers of the dead one, all the time
		go func() { _, err := e.node.Exchange(keeper, "db0"); done <- err }()
	}
	during := e.timed(t, keeper, looks)
	t.Logf("an exchange for one of the four, before: p50 %s, p99 %s; while one is dead: p50 %s, p99 %s",
		before[looks/2], before[looks-1], during[looks/2], during[looks-1])
	if during[looks/2] > 10*before[looks/2]+time.Second {
		t.Errorf("the others became slow: p50 %s, was %s", during[looks/2], before[looks/2])
	}
	status, body, err := e.node.Post("/revoke", stage.Form("token", doomed), "")
	if err != nil || status != 503 {
		t.Errorf("revoking with a dead database among five answers %d %v (%v), want 503: it is not all dead", status, body, err)
	}
	left := map[string]int{}
	if err := e.eventually(func() error {
		clear(left)
		for i := range databases {
			leases, err := e.node.Leases(fmt.Sprintf("db%d", i))
			if err != nil {
				return err
			}
			for _, l := range leases {
				if l.State == "dying" {
					left[fmt.Sprintf("db%d", i)]++
				}
			}
		}
		if left["db1"]+left["db2"]+left["db3"]+left["db4"] > 0 {
			return fmt.Errorf("still dying: %v", left)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if left["db0"] < each {
		t.Errorf("%d leases of the dead database are pending, want at least %d", left["db0"], each)
	}
	t.Logf("revoked %d leases over five databases: four are done, of the dead one %d are pending", each*databases, left["db0"])

	e.proxies[0].Refuse() // what hangs there is cut
	e.proxies[0].Pass()
	for range each {
		waiting = append(waiting, <-done)
	}
	for _, err := range waiting {
		if err != nil && !strings.Contains(err.Error(), "503") { // nil: it was still waiting when the database came back
			t.Errorf("an exchange for the dead database: %v, want 503", err)
		}
	}
	if err := e.eventually(func() error { return e.node.Want("/revoke", stage.Form("token", doomed), "", 200) }); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	if err := e.node.Want("/revoke", stage.Form("token", keeper), "", 200); err != nil {
		if err = e.eventually(func() error { return e.node.Want("/revoke", stage.Form("token", keeper), "", 200) }); err != nil {
			t.Error(err)
		}
	}
	if err := e.eventually(func() error {
		n, err := e.roles("")
		if err == nil && n > 0 {
			err = fmt.Errorf("%d roles are left", n)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
