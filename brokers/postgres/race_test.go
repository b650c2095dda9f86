package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers/postgres/postgrestest"
)

// A login that was let in before the role was locked, and is no session yet, would outlive the role: DROP ROLE does not
// look for it. The server shows no such login among its sessions; here one is held there by a lock of its database.
func TestLoginThatIsHalfWayInDoesNotOutliveItsRole(t *testing.T) {
	server.Database(t, "lobby")
	l, h := mint(t, newBroker(t, options{}), "read")
	l.Database = "lobby"
	door := server.Connect(t, server.DSN(postgrestest.Superuser))
	if _, err := door.Exec(t.Context(), "BEGIN; ALTER DATABASE lobby RENAME TO lobby2"); err != nil {
		t.Fatal(err)
	}
	type result struct {
		c   *pgx.Conn
		err error
	}
	arrived := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := pgx.Connect(ctx, l.dsn())
		arrived <- result{c, err}
	}()
	eventually(t, "the login does not wait at the door", func() bool {
		return value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND NOT granted)")
	})
	if r, err := newBroker(t, options{}).Revoke(t.Context(), h); err == nil {
		t.Errorf("a revocation says %s while a login of the role is half way in", r.State)
	}
	if _, err := door.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	in := <-arrived
	if in.err != nil {
		t.Fatalf("the login that was half way in failed, and this test shows nothing: %v", in.err)
	}
	defer in.c.Close(t.Context())
	revoke(t, newBroker(t, options{}), h)
	if err := works(in.c); err == nil {
		t.Error("the session outlives its role")
	}
	if n := value[int](t, database, "SELECT count(*) FROM pg_stat_activity WHERE usesysid::text = $1", h.Data.Reveal()); n > 0 {
		t.Errorf("%d sessions of the role are left", n)
	}
}

// eventually waits for what the server does by itself.
func eventually(t testing.TB, otherwise string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}
