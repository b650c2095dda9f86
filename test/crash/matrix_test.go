package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	issuer = "http://127.0.0.1:1"
	most   = 80 // messages that any operation may take
	atOnce = 6  // processes
)

// axis is what is cut: which connection, during which operation, with which store.
type axis struct {
	name   string
	shared bool // leases are in a Redis
	store  bool // the connection to the Redis is counted, not the one to the upstream
	revoke bool // during a revocation, not a mint
}

var axes = []axis{
	{"mint: upstream messages, embedded store", false, false, false},
	{"revoke: upstream messages, embedded store", false, false, true},
	{"mint: upstream messages, Redis store", true, false, false},
	{"revoke: upstream messages, Redis store", true, false, true},
	{"mint: store messages", true, true, false},
	{"revoke: store messages", true, true, true},
}

// world is what all points share.
type world struct {
	bin      string
	postgres *postgrestest.Server
	platform *stage.Platform
	admin    *pgx.Conn
	mu       sync.Mutex // of admin
}

// point is one cell of the matrix.
type point struct {
	killed   bool // the operation ended before so many messages
	answered string
	after    int // roles that stood right after the process was killed
	adopted  int // leases that the next process found
	unasked  int // of them, live ones that no caller has: completed, and the process died before it answered
	orphans  int // roles left in the end
	leases   int // leases left in the end
	works    int // roles that could log in, and had no lease, at any look after the restart
	took     time.Duration
	err      error
}

// Every step of a mint and of a revocation, with the process killed right there. failures.md has no row for it; Vault's
// users do: orphaned users after a crash.
func TestNothingIsLeftWhateverStepAProcessDiesAt(t *testing.T) {
	w := newWorld(t)
	slots := make(chan struct{}, atOnce)
	for _, a := range axes {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			var rows []string
			for first := 0; first < most; first += atOnce {
				batch := make([]point, atOnce)
				var all sync.WaitGroup
				for i := range batch {
					all.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						batch[i] = w.try(t, a, first+i)
					})
				}
				all.Wait()
				ended := false
				for i, p := range batch {
					if ended {
						break
					}
					rows = append(rows, p.row(first+i))
					if p.err != nil || p.orphans > 0 || p.leases > 0 || p.works > 0 {
						t.Errorf("killed after %d messages: %v; %d roles and %d leases are left, %d worked without a lease", first+i, p.err, p.orphans, p.leases, p.works)
					}
					ended = !p.killed
				}
				if ended {
					if len(rows) < 2 {
						t.Error("nothing was cut: the operation takes no message of this kind")
					}
					t.Logf("%s\n%s", a.name, strings.Join(append([]string{header}, rows...), "\n"))
					return
				}
			}
			t.Errorf("the operation did not end within %d messages", most)
		})
	}
}

// answer is what a caller got when the process did not die first.
const answer = "an answer"

const header = "  messages  killed  caller got  roles then  leases then  live, unanswered  orphans  leases left  worked without lease"

func (p point) row(n int) string {
	return fmt.Sprintf("  %8d  %-6v  %-10s  %10d  %11d  %16d  %7d  %11d  %20d", n, p.killed, p.answered, p.after, p.adopted, p.unasked, p.orphans, p.leases, p.works)
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	bin := os.Getenv("SALLYPORT_BIN")
	if bin == "" {
		var err error
		if bin, err = stage.Build(dir); err != nil {
			t.Fatal(err)
		}
	}
	platform, err := stage.NewPlatform()
	if err != nil {
		t.Fatal(err)
	}
	server := postgrestest.Start(t)
	return &world{bin: bin, postgres: server, platform: platform, admin: server.Connect(t, server.DSN("postgres"))}
}

// run is one process with its own group role, store and proxies, so that points do not see each other.
type run struct {
	*world
	node     *stage.Node
	group    string
	upstream *brokertest.Proxy
	store    *brokertest.Proxy // nil without a Redis
	server   string            // of sallyport.yaml
}

var number struct {
	sync.Mutex
	n int
}

func (w *world) newRun(t *testing.T, a axis) (*run, error) {
	number.Lock()
	number.n++
	r := &run{world: w, group: fmt.Sprintf("app_%d", number.n)}
	number.Unlock()
	r.node = &stage.Node{Name: r.group, Dir: filepath.Join(t.TempDir(), r.group)}
	r.server = "issuer: " + issuer + "\nsigning: {seal_with: {file: secrets/kek}}\nlimits: off\n"
	r.upstream = brokertest.NewProxy(t, w.postgres.Addr())
	if _, err := w.query("CREATE ROLE " + r.group); err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(r.upstream.Addr(), ":")
	dsn := strings.Replace(w.postgres.DSN("postgres"), fmt.Sprintf("port=%d", w.postgres.Port()), "port="+port, 1)
	files := map[string]string{
		"secrets/kek": stage.KEK(), "secrets/dsn": dsn, "c.jwks.json": w.platform.JWKS, "trust/prod.yaml": w.platform.Trust(issuer),
		"targets/db.yaml": fmt.Sprintf("target: db\nbroker: postgres\nscopes: {read: {roles: [%s]}}\npostgres: {dsn: {file: secrets/dsn}, host: %s, port: %d, sslmode: disable}\n", r.group, host, w.postgres.Port()),
		"policy/p.yaml":   "rules:\n  - {name: db, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [db], scopes: [read]}\n",
	}
	if a.shared {
		redis, err := redistest.Start(false)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = redis.Close() })
		r.store = brokertest.NewProxy(t, redis.Client.Options().Addr)
		files["secrets/redis"] = "redis://:" + redis.Password + "@" + r.store.Addr() + "/0"
		r.server += "store: {redis: {url: {file: secrets/redis}}}\nrevocation: {max_staleness: 2s}\n"
	}
	for name, text := range files {
		if err := stage.Write(filepath.Join(r.node.Dir, name), text); err != nil {
			return nil, err
		}
	}
	t.Cleanup(r.node.Kill)
	return r, r.node.Start(w.bin, r.server)
}

// try has a process killed after n messages and looks at what is left.
func (w *world) try(t *testing.T, a axis, n int) (p point) {
	start := time.Now()
	defer func() { p.took = time.Since(start) }()
	r, err := w.newRun(t, a)
	if err != nil {
		p.err = err
		return p
	}
	token := ""
	if a.revoke {
		if token, p.err = r.exchanged(); p.err != nil {
			return p
		}
	} else if a.shared {
		if p.err = r.ready(); p.err != nil { // a new deployment waits before it issues
			return p
		}
	}
	proxy := r.upstream
	if a.store {
		proxy = r.store
	}
	died := make(chan struct{})
	proxy.CutAfter(n, func() { r.node.Kill(); close(died) })
	p.answered = answer
	for end := time.Now().Add(stage.Patience); ; { // what failed by itself, while the machine is slow, was not cut: once more
		if a.revoke {
			err = r.node.Want("/revoke", stage.Form("token", token), "", 200)
		} else {
			token, err = r.node.Exchange(w.platform.Token("checkout", issuer), "db")
		}
		if err == nil {
			break
		}
		select { // the caller may notice before this does
		case <-died:
			p.killed = true
		case <-time.After(time.Second):
			if time.Now().Before(end) {
				continue
			}
			p.err = err
		}
		p.answered = "no answer"
		break
	}
	r.node.Kill() // when it was over before: killed between two operations
	proxy.Pass()  // and it kills nobody any more
	p.after, _ = r.roles("")
	if err := r.node.Start(w.bin, r.server); err != nil || p.err != nil {
		p.err = errors.Join(p.err, err)
		return p
	}
	leases, err := r.node.Leases("db")
	if err != nil {
		p.err = err
		return p
	}
	p.adopted = len(leases)
	for _, l := range leases { // nobody can know it: an operator ends it before its time does
		if !a.revoke && l.State == "live" && p.answered != answer {
			p.unasked++
			if p.err = r.eventually(func() error { return r.node.RevokeLease(l.ID) }); p.err != nil {
				return p
			}
		}
	}
	if !a.revoke && p.answered == answer { // its holder has it, and gives it back
		if p.err = r.eventually(func() error { return r.node.Want("/revoke", stage.Form("token", token), "", 200) }); p.err != nil {
			return p
		}
	}
	if a.revoke { // whoever got no answer asks again (RFC 7009 section 2.2.1)
		if p.err = r.eventually(func() error { return r.node.Want("/revoke", stage.Form("token", token), "", 200) }); p.err != nil {
			return p
		}
	}
	p.err = r.eventually(func() error {
		var err error
		if leases, err = r.node.Leases("db"); err != nil {
			return err
		}
		able, err := r.roles("AND rolcanlogin AND rolvaliduntil > now()")
		if err != nil {
			return err
		}
		again, err := r.node.Leases("db") // of the moment after, too: a lease is written before its role is made
		if err != nil {
			return err
		}
		p.works = max(p.works, able-max(len(leases), len(again)))
		if p.orphans, err = r.roles(""); err != nil {
			return err
		}
		p.leases = len(again)
		if p.orphans > 0 || p.leases > 0 {
			return fmt.Errorf("%d roles and %d leases", p.orphans, p.leases)
		}
		return nil
	})
	return p
}

func (r *run) exchanged() (token string, err error) {
	err = r.eventually(func() error {
		token, err = r.node.Exchange(r.platform.Token("checkout", issuer), "db")
		return err
	})
	return token, err
}

// ready waits until a new replica of a Redis issues.
func (r *run) ready() error {
	return r.eventually(func() error {
		return r.node.Want("/token", stage.ExchangeForm(r.platform.Token("nobody", issuer), "db"), "", 400)
	})
}

func (r *run) eventually(do func() error) error {
	for end := time.Now().Add(2 * stage.Patience); ; time.Sleep(50 * time.Millisecond) {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// roles counts the members of this run's group.
func (r *run) roles(also string) (int, error) {
	return r.query("SELECT count(*) FROM pg_roles WHERE pg_has_role(oid, '" + r.group + "', 'member') AND NOT rolsuper AND rolname <> '" + r.group + "' AND rolname LIKE 'sts\\_%' " + also)
}

func (w *world) query(sql string) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stage.Patience)
	defer cancel()
	if strings.HasPrefix(sql, "SELECT") {
		err = w.admin.QueryRow(ctx, sql).Scan(&n)
	} else {
		_, err = w.admin.Exec(ctx, sql)
	}
	return n, err
}
