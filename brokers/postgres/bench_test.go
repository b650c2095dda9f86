package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
)

// floor is the same work in bare statements over one connection.
type floor struct {
	b *testing.B
	c *pgx.Conn
	n int
}

func (f *floor) run(sql string) {
	if _, err := f.c.PgConn().Exec(f.b.Context(), sql).ReadAll(); err != nil {
		f.b.Fatal(err)
	}
}

// ready is a verifier; of anything else the server derives one by itself.
const ready = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

func (f *floor) create(password string) string {
	f.n++
	name := fmt.Sprintf("raw_%d", f.n)
	f.run("CREATE ROLE " + name + " LOGIN PASSWORD '" + password + "' VALID UNTIL '2040-01-01 00:00:00+00' CONNECTION LIMIT 10 IN ROLE orders_ro; ALTER ROLE " + name + " SET role = 'orders_ro'")
	return name
}

func (f *floor) drop(names []string) {
	f.run("ALTER ROLE " + strings.Join(names, " NOLOGIN; ALTER ROLE ") + " NOLOGIN")
	f.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('" + strings.Join(names, "', '") + "')")
	f.run("DROP ROLE " + strings.Join(names, "; DROP ROLE "))
}

// bench starts a server that syncs, with an admin that is no superuser, and warms both sides up.
func bench(b *testing.B) (*postgres.Broker, *floor) {
	s := postgrestest.Start(b, "fsync=on")
	s.Exec(b, "postgres", "CREATE ROLE orders_ro", "CREATE ROLE orders_rw", "CREATE ROLE sallyport LOGIN CREATEROLE PASSWORD 'x' IN ROLE pg_signal_backend")
	dsn := s.UserDSN("sallyport", "x", "postgres")
	f := &floor{b: b, c: s.Connect(b, dsn)}
	broker := newBroker(b, options{dsn: func() string { return dsn }})
	for range 20 {
		f.drop([]string{f.create(ready)})
		h, _ := benchMint(b, broker, newOrder(b, "read"))
		if _, err := broker.Revoke(b.Context(), h); err != nil {
			b.Fatal(err)
		}
	}
	return broker, f
}

func benchMint(b *testing.B, broker *postgres.Broker, o brokers.Order) (brokers.Handle, time.Duration) {
	start := time.Now()
	c, err := broker.Mint(b.Context(), o)
	took := time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	return brokertest.HandleOf(o, c.Data), took
}

func report(b *testing.B, ours, raw time.Duration, units int) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours.Microseconds())/float64(units), "us/each")
	b.ReportMetric(float64(raw.Microseconds())/float64(units), "us-raw/each")
	b.ReportMetric(float64(ours)/float64(raw), "x-raw")
}

func BenchmarkMint(b *testing.B) {
	broker, f := bench(b)
	var ours, raw, plain time.Duration
	n := 0
	for b.Loop() {
		o := newOrder(b, "read")
		start := time.Now()
		name := f.create(ready)
		raw += time.Since(start)
		start = time.Now()
		other := f.create("a password that the server hashes")
		plain += time.Since(start)
		h, took := benchMint(b, broker, o) // last: its next verifier is derived in the background
		ours, n = ours+took, n+1
		f.drop([]string{name, other})
		if _, err := broker.Revoke(b.Context(), h); err != nil {
			b.Fatal(err)
		}
	}
	report(b, ours, raw, n)
	b.ReportMetric(float64(ours)/float64(plain), "x-plain")
}

func BenchmarkRevokeAll(b *testing.B) {
	for _, size := range []int{1, 200} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			broker, f := bench(b)
			var ours, raw time.Duration
			n := 0
			for b.Loop() {
				hs, names := make([]brokers.Handle, size), make([]string, size)
				for i := range hs {
					hs[i], _ = benchMint(b, broker, newOrder(b, "read"))
					names[i] = f.create(ready)
				}
				start := time.Now()
				for i, r := range broker.RevokeAll(b.Context(), hs) {
					if r.Err != nil || r.Receipt.State != brokers.Dead || r.Receipt.Gone {
						b.Fatalf("%d: %v (%+v)", i, r.Err, r.Receipt)
					}
				}
				ours += time.Since(start)
				start = time.Now()
				f.drop(names)
				raw, n = raw+time.Since(start), n+size
			}
			report(b, ours, raw, n)
		})
	}
}
