package vault

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
	"github.com/sallyport-sts/sallyport/test/deployment"
	"github.com/sallyport-sts/sallyport/test/stage"
)

const (
	clients     = 16 // at once
	connections = 4  // of each contender to PostgreSQL
	sallyportAt = "http://127.0.0.1:1"
)

// contender makes and revokes logins of one PostgreSQL.
type contender struct {
	name   string
	create func(ctx context.Context, i int) error
	list   func(ctx context.Context) (int, error) // how many it knows of
	revoke func(ctx context.Context) error        // all, in one sweep
	like   string                                 // pattern of its roles' names
}

// BenchmarkLeases has bare SQL, Sallyport and Vault's database engine make SALLYPORT_LEASES (default 10,000) logins each in one
// real PostgreSQL that syncs, with as many connections and as many callers, in turns of a tenth; then each revokes all of
// its own in one sweep. `make bench-leases` runs it once and prints a table.
func BenchmarkLeases(b *testing.B) {
	n := 10_000
	if s := os.Getenv("SALLYPORT_LEASES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 10 {
			b.Fatal("SALLYPORT_LEASES is not a number of at least 10")
		}
	}
	ctx := b.Context()
	server := postgrestest.Start(b, "fsync=on", "max_connections=100")
	server.Exec(b, "postgres", "CREATE ROLE app_ro")
	pool, err := pgxpool.New(ctx, server.DSN("postgres")+"&pool_max_conns="+strconv.Itoa(connections))
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	all := []*contender{rawSQL(pool), withSallyport(b, server, n), withVault(b, server)}
	took := make([]time.Duration, len(all))
	for turn := range 10 {
		for i, c := range all {
			start := time.Now()
			if err := each(ctx, n/10, func(k int) error { return c.create(ctx, turn*n/10+k) }); err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
			took[i] += time.Since(start)
		}
	}
	table := [][]string{{"", "created/s", "x raw", "listed in", "revoked/s", "x raw", "left"}}
	var rawRevoke time.Duration
	bloat := catalogs(b, pool)
	for i, c := range all {
		start := time.Now()
		known, err := c.list(ctx)
		if err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
		listed := time.Since(start)
		if have := count(b, pool, c.like); have != n || known != n {
			b.Fatalf("%s: %d roles stand and it knows of %d, want %d", c.name, have, known, n)
		}
		start = time.Now()
		if err := c.revoke(ctx); err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
		for count(b, pool, c.like) > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		revoked := time.Since(start)
		if i == 0 {
			rawRevoke = revoked
		}
		rate := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(n)/d.Seconds()) }
		times := func(d, of time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()/of.Seconds()) }
		table = append(table, []string{c.name, rate(took[i]), times(took[i], took[0]), listed.Round(time.Millisecond).String(), rate(revoked), times(revoked, rawRevoke), "0"})
		b.ReportMetric(float64(n)/took[i].Seconds(), c.name+"-created/s")
		b.ReportMetric(float64(n)/revoked.Seconds(), c.name+"-revoked/s")
	}
	b.Logf("%d logins each, %d callers, %d connections\n%s\ncatalogs: %s when all stood, %s after all were revoked (dead rows are autovacuum's)", n, clients, connections, aligned(table), bloat, catalogs(b, pool))
}

// each calls do n times, so many at once.
func each(ctx context.Context, n int, do func(int) error) error {
	var all sync.WaitGroup
	var next atomic.Int64
	var first atomic.Pointer[error]
	for range clients {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && first.Load() == nil && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// verifier of a password that nobody has; PostgreSQL takes it as it is.
const verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

const (
	creation   = `CREATE ROLE "%s" LOGIN PASSWORD '%s' VALID UNTIL '%s' CONNECTION LIMIT 10 IN ROLE app_ro; ALTER ROLE "%s" SET role = 'app_ro'`
	revocation = `ALTER ROLE "%s" NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'; DROP ROLE IF EXISTS "%s"`
)

// rawSQL is the floor: the statements, one by one, and nothing around them.
func rawSQL(pool *pgxpool.Pool) *contender {
	run := func(ctx context.Context, sql string) error {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		_, err = c.Conn().PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	var made atomic.Int64
	return &contender{
		name: "raw-SQL", like: `raw\_%`,
		create: func(ctx context.Context, i int) error {
			made.Add(1)
			name := fmt.Sprintf("raw_%d", i)
			return run(ctx, fmt.Sprintf(creation, name, verifier, "2040-01-01 00:00:00+00", name))
		},
		list: func(ctx context.Context) (n int, err error) {
			err = pool.QueryRow(ctx, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'raw\_%'`).Scan(&n)
			return n, err
		},
		revoke: func(ctx context.Context) error {
			return each(ctx, int(made.Load()), func(i int) error {
				name := fmt.Sprintf("raw_%d", i)
				for _, sql := range strings.SplitAfter(fmt.Sprintf(revocation, name, name, name), "; ") {
					if err := run(ctx, sql); err != nil { // each committed: no login may come between
						return err
					}
				}
				return nil
			})
		},
	}
}

// withSallyport is a real process. All logins descend from one token, and die with it.
func withSallyport(b *testing.B, server *postgrestest.Server, n int) *contender {
	b.Helper()
	platform, err := stage.NewPlatform()
	if err != nil {
		b.Fatal(err)
	}
	node := &stage.Node{Name: "sallyport", Dir: filepath.Join(b.TempDir(), "s")}
	for name, text := range map[string]string{
		"secrets/kek": stage.KEK(), "secrets/dsn": server.DSN("postgres"), "c.jwks.json": platform.JWKS, "trust/prod.yaml": platform.Trust(sallyportAt),
		"targets/hub.yaml": "target: hub\nbroker: jwt\nmax_lifetime: 1h\n",
		"targets/db.yaml":  fmt.Sprintf("target: db\nbroker: postgres\nmax_lifetime: 1h\nscopes: {read: {roles: [app_ro]}}\npostgres: {dsn: {file: secrets/dsn}, max_connections: %d, sslmode: disable}\n", connections),
		"policy/p.yaml": "rules:\n  - {name: hub, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [hub], outlives_subject: true}\n" +
			"  - {name: db, workloads: {trust_domain: prod.example, issuer: c}, exchange_from: [hub], targets: [db], scopes: [read]}\n",
	} {
		if err := stage.Write(filepath.Join(node.Dir, name), text); err != nil {
			b.Fatal(err)
		}
	}
	rest := fmt.Sprintf("issuer: %s\nsigning: {seal_with: {file: secrets/kek}}\nlimits: off\nleases: {max: %d, per_target: %d, per_workload: %d}\n", sallyportAt, n, n, n)
	if err := node.Start(deployment.Binary(b), rest); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(node.Kill)
	hub, err := node.Exchange(platform.Token("checkout", sallyportAt), "hub")
	if err != nil {
		b.Fatal(err)
	}
	return &contender{
		name: "Sallyport", like: `sts\_%`,
		create: func(context.Context, int) error { _, err := node.Exchange(hub, "db"); return err },
		list: func(context.Context) (int, error) {
			leases, err := node.Leases("db")
			return len(leases), err
		},
		revoke: func(ctx context.Context) error {
			for ctx.Err() == nil { // 503 after five seconds: not all dead yet
				status, _, err := node.Post("/revoke", url.Values{"token": {hub}}, "")
				if err != nil || status == 200 {
					return err
				}
			}
			return ctx.Err()
		},
	}
}

// withVault is Vault's database engine with the same statements.
func withVault(b *testing.B, server *postgrestest.Server) *contender {
	b.Helper()
	v := StartVault(b)
	dsn, err := url.Parse(server.DSN("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	password, _ := dsn.User.Password()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	write := func(path string, body map[string]any) {
		_, err := v.Root.Logical().Write(path, body)
		must(err)
	}
	_, err = v.Root.Logical().Write("sys/mounts/database", map[string]any{"type": "database"})
	must(err)
	write("database/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "ro", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/postgres?sslmode=disable", server.Addr()),
		"username":       dsn.User.Username(), "password": password, "max_open_connections": connections, "max_idle_connections": connections,
		"username_template": `{{ printf "v_%s" (random 20 | lowercase) }}`,
	})
	write("database/roles/ro", map[string]any{
		"db_name": "pg", "default_ttl": "1h", "max_ttl": "1h",
		"creation_statements":   fmt.Sprintf(creation, "{{name}}", "{{password}}", "{{expiration}}", "{{name}}"),
		"revocation_statements": fmt.Sprintf(revocation, "{{name}}", "{{name}}", "{{name}}"),
	})
	v.Root.SetClientTimeout(10 * time.Minute)
	return &contender{
		name: "Vault-1.14.1", like: `v\_%`,
		create: func(ctx context.Context, _ int) error {
			_, err := v.Root.Logical().ReadWithContext(ctx, "database/creds/ro")
			return err
		},
		list: func(ctx context.Context) (int, error) {
			s, err := v.Root.Logical().ListWithContext(ctx, "sys/leases/lookup/database/creds/ro")
			if err != nil || s == nil {
				return 0, err
			}
			keys, _ := s.Data["keys"].([]any)
			return len(keys), nil
		},
		revoke: func(ctx context.Context) error {
			_, err := v.Root.Logical().WriteWithContext(ctx, "sys/leases/revoke-prefix/database/creds/ro", map[string]any{"sync": true})
			return err
		},
	}
}

func count(b *testing.B, pool *pgxpool.Pool, like string) (n int) {
	b.Helper()
	if err := pool.QueryRow(b.Context(), "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1", like).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

// catalogs is how large the shared catalogs are that know of roles.
func catalogs(b *testing.B, pool *pgxpool.Pool) (size string) {
	b.Helper()
	const sum = "SELECT pg_size_pretty(sum(pg_total_relation_size(c))) FROM unnest(ARRAY['pg_authid','pg_auth_members','pg_db_role_setting','pg_shdepend']::regclass[]) c"
	if err := pool.QueryRow(b.Context(), sum).Scan(&size); err != nil {
		b.Fatal(err)
	}
	return size
}

func aligned(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len(c))
		}
	}
	var out strings.Builder
	for _, r := range rows {
		for i, c := range r {
			fmt.Fprintf(&out, "  %*s", widths[i], c)
		}
		out.WriteByte('\n')
	}
	return out.String()
}
