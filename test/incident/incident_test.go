// Package incident plays what a responder does at 3 a.m. on a whole deployment: three real server processes, a real Redis, a
// real PostgreSQL.
package incident

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
	"github.com/sallyport-sts/sallyport/test/stage"
)

const (
	issuer    = "http://127.0.0.1:1" // a load balancer would stand there
	staleness = 3 * time.Second
)

// subs are the workloads that may have anything.
const subs = "checkout, warehouse, cut-off, alone, victim-0, victim-1, victim-2, victim-3, victim-4, victim-5, victim-6, victim-7, victim-8"

// estate is three replicas and what they share. Replica C reaches Redis through a proxy.
type estate struct {
	t        testing.TB
	bin      string
	redis    *redistest.Server
	away     *brokertest.Proxy // of C
	postgres *postgrestest.Server
	admin    *pgx.Conn
	platform *stage.Platform
	nodes    []*stage.Node
	server   map[string]string // sallyport.yaml by node
}

func newEstate(t testing.TB) *estate {
	t.Helper()
	e := &estate{t: t, bin: os.Getenv("SALLYPORT_BIN"), server: map[string]string{}}
	dir := t.TempDir()
	var err error
	if e.bin == "" {
		if e.bin, err = stage.Build(dir); err != nil {
			t.Fatal(err)
		}
	}
	if e.platform, err = stage.NewPlatform(); err != nil {
		t.Fatal(err)
	}
	if e.redis, err = redistest.Start(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.redis.Close() })
	e.away = brokertest.NewProxy(t, e.redis.Client.Options().Addr)
	e.postgres = postgrestest.Start(t)
	e.admin = e.postgres.Connect(t, e.postgres.DSN("postgres"))
	if _, err := e.admin.Exec(t.Context(), "CREATE ROLE app"); err != nil {
		t.Fatal(err)
	}
	kek := stage.KEK()
	for _, name := range []string{"A", "B", "C"} {
		n := &stage.Node{Name: name, Dir: filepath.Join(dir, name)}
		url := e.redis.URL
		if name == "C" {
			url = "redis://:" + e.redis.Password + "@" + e.away.Addr() + "/0"
		}
		for file, text := range map[string]string{
			"secrets/kek": kek, "secrets/redis": url, "secrets/dsn": e.postgres.DSN("postgres"), "c.jwks.json": e.platform.JWKS,
			"trust/prod.yaml":      e.platform.Trust(issuer),
			"targets/orders.yaml":  "target: orders\nbroker: jwt\nscopes: {read: {}}\nresource_servers: [\"spiffe://prod.example/c/gateway\"]\n",
			"targets/billing.yaml": "target: billing\nbroker: jwt\nscopes: {read: {}}\nresource_servers: [\"spiffe://prod.example/c/gateway\"]\n",
			"targets/db.yaml":      fmt.Sprintf("target: db\nbroker: postgres\nscopes: {read: {roles: [app]}}\npostgres: {dsn: {file: secrets/dsn}, host: 127.0.0.1, port: %d, sslmode: disable}\n", e.postgres.Port()),
			"policy/policy.yaml": "rules:\n" +
				"  - {name: orders, workloads: {trust_domain: prod.example, issuer: c, where: {sub: [" + subs + "]}}, targets: [orders], scopes: [read]}\n" +
				"  - {name: billing, workloads: {trust_domain: prod.example, issuer: c}, exchange_from: [orders], targets: [billing], scopes: [read]}\n" +
				"  - {name: db, workloads: {trust_domain: prod.example, issuer: c}, exchange_from: [billing], targets: [db], scopes: [read]}\n" +
				"  - {name: introspect, workloads: {trust_domain: prod.example, issuer: c, where: {sub: gateway}}, targets: [introspection]}\n",
		} {
			if err := stage.Write(filepath.Join(n.Dir, file), text); err != nil {
				t.Fatal(err)
			}
		}
		e.server[name] = "issuer: " + issuer + "\nsigning: {seal_with: {file: secrets/kek}}\nlimits: off\nleases: {max: 50000, per_target: 20000, per_workload: 20000}\nstore: {redis: {url: {file: secrets/redis}}}\nrevocation: {max_staleness: " + staleness.String() + "}\n"
		e.nodes = append(e.nodes, n)
		t.Cleanup(n.Kill)
		e.start(n)
	}
	for _, n := range e.nodes {
		e.ready(n)
	}
	return e
}

func (e *estate) start(n *stage.Node) {
	e.t.Helper()
	if err := n.Start(e.bin, e.server[n.Name]); err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) ready(n *stage.Node) {
	e.t.Helper()
	e.eventually(n.Name+" to be ready", func() error {
		resp, err := http.Get("http://" + n.Ops + "/readyz")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (e *estate) eventually(what string, do func() error) {
	e.t.Helper()
	for end := time.Now().Add(stage.Patience); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			e.t.Fatalf("waited %s for %s: %v", stage.Patience, what, err)
		}
	}
}

func (e *estate) any() *stage.Node { return e.nodes[rand.N(len(e.nodes))] }

// cli runs the binary as a responder does.
func (e *estate) cli(n *stage.Node, args ...string) (string, error) {
	out, err := exec.Command(e.bin, append(args, "--admin", "unix:"+n.Admin)...).CombinedOutput()
	return string(out), err
}

// tree is what one identity token was exchanged for: a token, one from it, and a login of PostgreSQL from that; each on some
// replica.
type tree struct{ root, child, name string }

func (e *estate) tree(sub string) tree {
	e.t.Helper()
	var out tree
	var err error
	if out.root, err = e.any().Exchange(e.platform.Token(sub, issuer), "orders"); err == nil {
		if out.child, err = e.any().Exchange(out.root, "billing"); err == nil {
			var form string
			form, err = e.any().Exchange(out.child, "db")
			out.name = login.FindString(form)
		}
	}
	if err != nil || out.name == "" {
		e.t.Fatalf("a tree of %s has the login %q: %v", sub, out.name, err)
	}
	return out
}

// login is the name of what we make in PostgreSQL.
var login = regexp.MustCompile(`sts_[a-z0-9]+_[a-z0-9]+`)

// field reads one string of a flat JSON object.
func field(object, name string) string {
	_, rest, _ := strings.Cut(object, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func (e *estate) roles() int {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stage.Patience)
	defer cancel()
	n := 0
	if err := e.admin.QueryRow(ctx, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sts\_%'`).Scan(&n); err != nil {
		e.t.Fatal(err)
	}
	return n
}

// dead fails unless every token is refused by every node that answers, at once.
func (e *estate) dead(nodes []*stage.Node, bearer string, tokens ...string) {
	e.t.Helper()
	for _, n := range nodes {
		for _, token := range tokens {
			if status, body, err := n.Post("/token", stage.ExchangeForm(token, "billing"), ""); err != nil || status == http.StatusOK {
				e.t.Errorf("%s exchanges a token that is dead: %d, %v", n.Name, status, err)
			} else if status != http.StatusBadRequest && status != http.StatusServiceUnavailable {
				e.t.Errorf("%s answers a dead token with %d %v", n.Name, status, body)
			}
			status, body, err := n.Post("/introspect", stage.Form("token", token), bearer)
			if err != nil || status == http.StatusOK && body["active"] != false {
				e.t.Errorf("%s calls a dead token active: %v, %v", n.Name, body, err)
			}
		}
	}
}

func (e *estate) alive(bearer string, tokens ...string) {
	e.t.Helper()
	for _, n := range e.nodes {
		for _, token := range tokens {
			e.eventually("another's token to be active on "+n.Name, func() error {
				status, body, err := n.Post("/introspect", stage.Form("token", token), bearer)
				if err == nil && (status != http.StatusOK || body["active"] != true) {
					err = fmt.Errorf("%d %v", status, body)
				}
				return err
			})
		}
	}
}

func TestIncidentOnThreeReplicas(t *testing.T) {
	e := newEstate(t)
	a, b, c := e.nodes[0], e.nodes[1], e.nodes[2]
	bearer, err := a.Exchange(e.platform.Token("gateway", issuer), "introspection")
	if err != nil {
		t.Fatal(err)
	}
	var stolen, others []tree
	for range 10 {
		stolen = append(stolen, e.tree("checkout"))
	}
	for range 3 {
		others = append(others, e.tree("warehouse"))
	}
	tokens := func(trees []tree) (out []string) {
		for _, one := range trees {
			out = append(out, one.root, one.child)
		}
		return out
	}
	if n := e.roles(); n != 13 {
		t.Fatalf("%d logins stand, want 13", n)
	}
	dry, err := e.cli(b, "revoke", "attr.sub=checkout", "--dry-run")
	if err != nil || !strings.Contains(dry, "10 live") {
		t.Errorf("dry run: %v\n%s", err, dry)
	}
	e.alive(bearer, stolen[0].root)

	t.Run("one revocation, every replica, every target", func(t *testing.T) {
		out, err := e.cli(b, "revoke", "attr.sub=checkout", "--wait", "30s", "--reason", "stolen from a build log")
		t.Logf("$ sallyport revoke attr.sub=checkout --wait 30s\n%s", out)
		if err != nil || strings.Count(out, " yes ") != 3 || !strings.Contains(out, "10 dead") {
			t.Errorf("the command says %v", err)
		}
		for _, node := range e.nodes { // which is which
			status, err := e.cli(node, "status")
			name := regexp.MustCompile(`(?m)^replica +(\S+)$`).FindStringSubmatch(status)
			if err != nil || name == nil || !strings.Contains(out, name[1]+" ") {
				t.Errorf("the status of a replica does not name it as the table does: %v\n%s", err, status)
			}
		}
		e.dead(e.nodes, bearer, tokens(stolen)...)
		if n := e.roles(); n != 3 {
			t.Errorf("%d logins stand, want 3 of another workload", n)
		}
		e.alive(bearer, tokens(others)...)
	})

	t.Run("a replica is killed while it revokes", func(t *testing.T) {
		acknowledged := 0
		for round := 0; round < 9 && acknowledged < 2; round++ { // each is given more time
			one := e.tree("victim-" + fmt.Sprint(round))
			var wait sync.WaitGroup
			var done error
			wait.Go(func() { _, done = a.Revoke(fmt.Sprintf(`{"selector":["attr.sub=victim-%d"],"wait_seconds":5}`, round)) })
			time.Sleep(time.Duration(round*round) * 4 * time.Millisecond)
			a.Kill()
			wait.Wait()
			if done == nil {
				acknowledged++
				e.dead([]*stage.Node{b, c}, bearer, one.root, one.child)
			}
			e.start(a)
			e.ready(a)
			if done == nil {
				e.dead(e.nodes, bearer, one.root, one.child)
			}
			// Who got no answer asks again, and then it is.
			if _, err := b.Revoke(fmt.Sprintf(`{"selector":["attr.sub=victim-%d"],"wait_seconds":10}`, round)); err != nil {
				t.Fatal(err)
			}
			e.dead(e.nodes, bearer, one.root, one.child)
			e.eventually("its login to be gone", func() error {
				if n := e.roles(); n != 3 {
					return fmt.Errorf("%d logins stand, want 3", n)
				}
				return nil
			})
		}
		t.Logf("%d revocations were acknowledged before the replica was killed", acknowledged)
	})

	t.Run("a replica is cut off", func(t *testing.T) {
		one := e.tree("cut-off")
		e.away.Stall()
		out, err := e.cli(a, "revoke", "attr.sub=cut-off", "--wait", "8s")
		t.Logf("$ sallyport revoke attr.sub=cut-off --wait 8s   # C does not reach Redis\n%s", out)
		if err != nil || !strings.Contains(out, " no ") || !strings.Contains(out, "serves nothing") {
			t.Errorf("the replica that is cut off is not named, or may serve: %v", err)
		}
		e.dead([]*stage.Node{a, b}, bearer, one.root, one.child)
		e.eventually("C to say that it does not know", func() error {
			return c.Want("/introspect", stage.Form("token", one.root), bearer, http.StatusServiceUnavailable)
		})
		e.away.Refuse() // what hung in the proxy is gone
		e.away.Pass()
		e.eventually("C to answer again", func() error {
			status, body, err := c.Post("/introspect", stage.Form("token", one.root), bearer)
			if err == nil && status == http.StatusOK && body["active"] != false {
				t.Error("C is back, and calls active what was revoked while it was away")
			}
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d", status)
			}
			return err
		})
		e.dead(e.nodes, bearer, one.root, one.child)
	})

	t.Run("a replica that is cut off takes a revocation", func(t *testing.T) {
		one := e.tree("alone")
		e.away.Refuse()
		e.eventually("C to say that it does not know", func() error {
			return c.Want("/introspect", stage.Form("token", one.root), bearer, http.StatusServiceUnavailable)
		})
		out, err := e.cli(c, "revoke", "attr.sub=alone", "--reason", "only C can be reached", "--wait", "1s")
		t.Logf("$ sallyport revoke attr.sub=alone   # on C, which does not reach Redis\n%s", out)
		if err == nil || !strings.Contains(out, "in force and durable on this replica alone") || !strings.Contains(out, "dead on this replica") {
			t.Errorf("the revocation is not taken, or said to be everywhere: %v", err)
		}
		c.Kill() // its journal is all that is left of it
		e.away.Pass()
		e.start(c)
		e.ready(c)
		e.dead(e.nodes, bearer, one.root, one.child)
		e.eventually("its login to be gone", func() error {
			if n := e.roles(); n != 3 {
				return fmt.Errorf("%d logins stand, want 3", n)
			}
			return nil
		})
	})

	t.Run("everything is started anew", func(t *testing.T) {
		for _, n := range e.nodes {
			n.Kill()
		}
		e.redis.Kill()
		if err := e.redis.Run(); err != nil {
			t.Fatal(err)
		}
		for _, n := range e.nodes {
			e.start(n)
		}
		for _, n := range e.nodes {
			e.ready(n)
		}
		e.dead(e.nodes, bearer, tokens(stolen)...)
		e.alive(bearer, tokens(others)...)
	})

	t.Run("a lock holds on every replica until it is lifted", func(t *testing.T) {
		out, err := e.cli(c, "lock", "attr.sub=checkout", "--reason", "the pod is still theirs", "-o", "json")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, n := range e.nodes {
			e.eventually("the lock on "+n.Name, func() error {
				return n.Want("/token", stage.ExchangeForm(e.platform.Token("checkout", issuer), "orders"), "", http.StatusBadRequest)
			})
		}
		if out, err := e.cli(a, "unlock", field(strings.ReplaceAll(out, ": ", ":"), "id")); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, n := range e.nodes {
			e.eventually("the end of the lock on "+n.Name, func() error {
				_, err := n.Exchange(e.platform.Token("checkout", issuer), "orders")
				return err
			})
		}
		e.dead(e.nodes, bearer, tokens(stolen)...)
	})
}
