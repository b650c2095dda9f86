package postgres_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// letCreate lets who is granted the scope write create things, in both databases, until t ends.
func letCreate(t testing.TB) {
	t.Helper()
	for _, db := range []string{database, other} {
		server.Exec(t, db, "GRANT CREATE ON SCHEMA public TO orders_rw", "GRANT CREATE ON DATABASE "+db+" TO orders_rw")
	}
	t.Cleanup(func() {
		for _, db := range []string{database, other} {
			server.Exec(t, db, "DROP OWNED BY orders_rw", "REVOKE CREATE ON SCHEMA public FROM orders_rw", "REVOKE CREATE ON DATABASE "+db+" FROM orders_rw")
		}
		server.Exec(t, database, "GRANT CONNECT ON DATABASE orders TO orders_rw", "GRANT USAGE ON SCHEMA public TO orders_rw",
			"GRANT SELECT, INSERT, UPDATE, DELETE ON items TO orders_rw", "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_rw")
	})
}

// Whatever a workload has made with the rights of its roles, in whatever database, the role is dropped and it stays, as
// one of those roles' own.
func TestWhatARoleOwnsIsHandedOverInEveryDatabase(t *testing.T) {
	letCreate(t)
	b := newBroker(t, options{settings: postgres.Settings{Owner: "orders_rw"}})
	l, h := mint(t, b, "read", "write")
	for _, db := range []string{database, other} {
		in := l
		in.Database = db
		c := open(t, in)
		for _, sql := range []string{
			"SET ROLE NONE", // as itself, not as the owner that its sessions begin as
			"CREATE TABLE left_behind (n int)", "CREATE VIEW left_view AS SELECT * FROM left_behind", "CREATE TYPE left_type AS (n int)",
			"CREATE SCHEMA left_schema", "CREATE TABLE left_schema.t (n serial)", "CREATE FUNCTION left_schema.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
			"SELECT lo_create(7777)", "CREATE TEMP TABLE scratch (n int)", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
			"ALTER DEFAULT PRIVILEGES IN SCHEMA left_schema GRANT SELECT ON TABLES TO orders_ro",
			"GRANT SELECT ON left_behind TO orders_ro", "SET ROLE orders_rw", "CREATE TABLE of_the_owner (n int)",
			`GRANT SELECT ON of_the_owner TO "` + l.User + `"`,
		} {
			if _, err := c.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone || !strings.Contains(r.Reason, "orders_rw") {
		t.Errorf("the receipt is %+v", r)
	}
	if roleExists(t, l.User) {
		t.Error("the role is left")
	}
	for _, db := range []string{database, other} {
		owners := value[string](t, db, `SELECT string_agg(DISTINCT owner, ',') FROM (
			SELECT tableowner::text AS owner FROM pg_tables WHERE tablename IN ('left_behind', 't', 'of_the_owner')
			UNION ALL SELECT viewowner FROM pg_views WHERE viewname = 'left_view' UNION ALL SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'left_schema'
			UNION ALL SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'f' UNION ALL SELECT typowner::regrole::text FROM pg_type WHERE typname = 'left_type'
			UNION ALL SELECT lomowner::regrole::text FROM pg_largeobject_metadata WHERE oid = 7777) x`)
		if owners != "orders_rw" {
			t.Errorf("in %s what it made belongs to %s, want orders_rw", db, owners)
		}
		if n := value[int](t, db, "SELECT count(*) FROM pg_default_acl WHERE defaclrole::regrole::text LIKE 'sts%' OR defaclrole NOT IN (SELECT oid FROM pg_roles)"); n > 0 {
			t.Errorf("in %s %d default privileges are left", db, n)
		}
	}
	for _, db := range []string{database, other} {
		server.Exec(t, db, "SELECT lo_unlink(7777)")
	}
}

// A function that runs as who owns it must not come to run as somebody who may do more.
func TestWhatIsHandedOverBecomesNoMorePowerful(t *testing.T) {
	letCreate(t) // the more powerful one could have it
	server.Exec(t, database, "GRANT CREATE ON SCHEMA public TO orders_ro")
	t.Cleanup(func() {
		server.Exec(t, database, "DROP FUNCTION IF EXISTS trap", "REVOKE CREATE ON SCHEMA public FROM orders_ro")
	})
	b := newBroker(t, options{settings: postgres.Settings{Owner: "orders_rw"}})
	l, h := mint(t, b, "read")
	if out, err := psql(l.dsn(), "SET ROLE NONE; CREATE FUNCTION trap() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'"); err != nil {
		t.Fatal(err, out)
	}
	revoke(t, b, h)
	if who := value[string](t, database, "SELECT trap()"); who != "orders_ro" {
		t.Errorf("a function that a reader left runs as %s, want orders_ro", who)
	}
}

// Without a role that could have them, objects are left for a person, and not given to the admin or destroyed.
func TestObjectsWithoutAnHeirAreLeftForAPerson(t *testing.T) {
	letCreate(t)
	b := newBroker(t, options{})
	l, h := mint(t, b, "write")
	if out, err := psql(l.dsn(), "SET ROLE NONE; CREATE TABLE orphan (n int)"); err != nil {
		t.Fatal(err, out)
	}
	server.Exec(t, database, `REVOKE orders_rw FROM "`+l.User+`"`)
	if _, err := b.Revoke(t.Context(), h); !errors.Is(err, brokers.ErrMisconfigured) {
		t.Errorf("revoking: %v, want ErrMisconfigured", err)
	}
	if _, err := psql(l.dsn(), "SELECT 1"); err == nil {
		t.Error("it can still log in")
	}
	server.Exec(t, database, "DROP TABLE orphan")
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
}

// A transaction that waits for its second phase keeps its locks, and with them the role, for ever: whoever stole a
// credential could make its revocation hang.
func TestPreparedTransactionDoesNotHoldUpARevocation(t *testing.T) {
	letCreate(t)
	b := newBroker(t, options{})
	l, h := mint(t, b, "read", "write")
	for i, db := range []string{database, other} {
		in := l
		in.Database = db
		if out, err := psql(in.dsn(), "BEGIN; CREATE TABLE prepared (n int); PREPARE TRANSACTION 'it''s \\ "+strconv.Itoa(i)+"'"); err != nil {
			t.Fatal(err, out)
		}
	}
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
	if n := value[int](t, database, "SELECT count(*) FROM pg_prepared_xacts"); n > 0 {
		t.Errorf("%d prepared transactions are left", n)
	}
	mint(t, b, "read") // and the connection is nobody else now
}

// What somebody else has prepared can hold the lock of a database too, for ever. It is nobody at the door.
func TestPreparedTransactionsOfOthersHoldUpNothing(t *testing.T) {
	server.Exec(t, database, "BEGIN; COMMENT ON DATABASE billing IS 'x'; PREPARE TRANSACTION 'foreign'")
	t.Cleanup(func() { server.Exec(t, database, "ROLLBACK PREPARED 'foreign'") })
	if !value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE classid = 'pg_database'::regclass AND pid IS NULL)") {
		t.Fatal("it holds no lock, and this test shows nothing")
	}
	b := newBroker(t, options{})
	_, h := mint(t, b, "read")
	if r := revoke(t, b, h); r.State != brokers.Dead {
		t.Errorf("the receipt is %+v", r)
	}
}

// One role that somebody keeps locked, and one whose session cannot end, are left for another attempt; the others go.
func TestOneBadRoleHoldsUpNoOther(t *testing.T) {
	b := newBroker(t, options{})
	const n = 12
	logins, handles := make([]login, n), make([]brokers.Handle, n)
	for i := range n {
		logins[i], handles[i] = mint(t, b, "read")
	}
	const locked, stuck, foreign = 3, 7, 10
	holder := server.Connect(t, server.DSN(database))
	if _, err := holder.Exec(t.Context(), `BEGIN; ALTER ROLE "`+logins[locked].User+`" CONNECTION LIMIT 5`); err != nil {
		t.Fatal(err)
	}
	session := open(t, logins[stuck])
	pid := int(session.PgConn().PID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	asked := handles
	asked[foreign] = brokers.Handle{Name: "orders_ro"}
	start := time.Now()
	for i, r := range b.RevokeAll(t.Context(), asked) {
		switch i {
		case locked, stuck:
			if !errors.Is(r.Err, brokers.ErrUnavailable) {
				t.Errorf("role %d: %v, want ErrUnavailable", i, r.Err)
			}
			if value[bool](t, database, "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", logins[i].User) != (i == locked) {
				t.Errorf("role %d: whether it can log in is wrong", i)
			}
		case foreign:
			if r.Err == nil {
				t.Errorf("somebody else's role has the receipt %+v", r.Receipt)
			}
		default:
			if r.Err != nil || r.Receipt.State != brokers.Dead || r.Receipt.Gone || roleExists(t, logins[i].User) {
				t.Errorf("role %d: %v (%+v)", i, r.Err, r.Receipt)
			}
		}
	}
	t.Logf("took %s", time.Since(start).Round(time.Millisecond))
	if !roleExists(t, "orders_ro") {
		t.Error("somebody else's role was dropped")
	}
	if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	for _, i := range []int{locked, stuck} {
		if r := revoke(t, b, handles[i]); r.State != brokers.Dead || r.Gone {
			t.Errorf("role %d, later: %+v", i, r)
		}
	}
	if works(session) == nil {
		t.Error("the session that was stuck serves")
	}
}

// A thief who changes the password of the role in a transaction that never ends keeps the role's row locked, and comes
// back whenever its session is ended.
func TestRoleCannotLockItselfAgainstRevocation(t *testing.T) {
	b := newBroker(t, options{})
	l, h := mint(t, b, "read")
	hold := func(ctx context.Context) *pgx.Conn {
		c, err := pgx.Connect(ctx, l.dsn())
		if err != nil {
			return nil
		}
		if _, err := c.Exec(ctx, `SET ROLE NONE; BEGIN; ALTER ROLE "`+l.User+`" PASSWORD 'mine'`); err != nil {
			_ = c.Close(ctx)
			return nil
		}
		return c
	}
	first := hold(t.Context())
	if first == nil {
		t.Fatal("a role cannot change its password, and this test shows nothing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if c := hold(ctx); c != nil {
					_, _ = c.Exec(ctx, "SELECT pg_sleep(60)")
					_ = c.Close(ctx)
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
	if works(first) == nil || roleExists(t, l.User) {
		t.Error("the role, or its session, is still there")
	}
}

// A lock on something that the role owns passes.
func TestLockedTableIsTriedAgain(t *testing.T) {
	letCreate(t)
	b := newBroker(t, options{})
	l, h := mint(t, b, "read", "write")
	if out, err := psql(l.dsn(), "CREATE TABLE held (n int)"); err != nil {
		t.Fatal(err, out)
	}
	t.Cleanup(func() { server.Exec(t, database, "DROP TABLE held") }) // it has another owner by then
	holder := server.Connect(t, server.DSN(database))
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE held"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := b.Revoke(t.Context(), h); !errors.Is(err, brokers.ErrUnavailable) || time.Since(start) > 9*time.Second {
		t.Errorf("revoking: %v after %s, want ErrUnavailable, soon", err, time.Since(start))
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
}

// Somebody dropped the role by hand. Its session goes on, with the rights of the role that it is by SET ROLE, and has no
// name any more.
func TestSessionOfARoleThatIsGoneIsFoundByItsNumber(t *testing.T) {
	b := newBroker(t, options{})
	l, h := mint(t, b, "read")
	session := open(t, l)
	server.Exec(t, database, `DROP ROLE "`+l.User+`"`)
	if _, err := session.Exec(t.Context(), "SELECT id FROM items"); err != nil {
		t.Fatalf("the session lost its rights with its role, and this test shows nothing: %v", err)
	}
	if r := revoke(t, b, h); r.State != brokers.Dead || !r.Gone {
		t.Errorf("the receipt is %+v, want dead and gone", r)
	}
	if works(session) == nil {
		t.Error("the session serves")
	}
}

// A role of another name that got the number since is not touched.
func TestSessionsOfOthersAreNotTouched(t *testing.T) {
	b := newBroker(t, options{})
	l, h := mint(t, b, "read")
	bystander := server.Connect(t, server.DSN(database))
	oid := value[uint32](t, database, "SELECT oid FROM pg_roles WHERE rolname = 'postgres'")
	o := newOrder(t, "read")
	if r := revoke(t, b, brokers.Handle{Name: o.Name(), Data: secret.New(strconv.Itoa(int(oid)))}); !r.Gone {
		t.Errorf("the receipt is %+v", r)
	}
	neighbour := open(t, l)
	_, mine := mint(t, b, "read")
	revoke(t, b, mine)
	if works(bystander) != nil || works(neighbour) != nil {
		t.Error("a session of somebody else was ended")
	}
	revoke(t, b, h)
}

// A revocation that comes while the role is being made, by whoever is gone since, waits and finds it.
func TestRevocationWaitsForAMintInFlight(t *testing.T) {
	b := newBroker(t, options{})
	o := newOrder(t, "read")
	holder := server.Connect(t, server.DSN(database))
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE pg_auth_members IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	minted := make(chan error, 1)
	go func() {
		_, err := b.Mint(context.WithoutCancel(t.Context()), o)
		minted <- err
	}()
	eventually(t, "the mint does not wait", func() bool {
		return value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pg_auth_members'::regclass AND NOT granted)")
	})
	revoked := make(chan brokers.Receipt, 1)
	go func() {
		r, err := newBroker(t, options{}).Revoke(context.WithoutCancel(t.Context()), brokers.Handle{Name: o.Name()})
		if err != nil {
			t.Errorf("revoking: %v", err)
		}
		revoked <- r
	}()
	eventually(t, "the revocation does not wait", func() bool {
		return value[bool](t, database, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)")
	})
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-minted; err != nil {
		t.Errorf("minting: %v", err)
	}
	if r := <-revoked; r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v, want dead and not gone", r)
	}
	if roleExists(t, o.Name()) {
		t.Error("the role is left")
	}
}

// A caller that stops waiting is not told that nothing was made.
func TestMintThatNobodyWaitsForIsUncertain(t *testing.T) {
	b := newBroker(t, options{})
	mint(t, b, "read") // there is a connection
	holder := server.Connect(t, server.DSN(database))
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE pg_auth_members IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	o := newOrder(t, "read")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Mint(ctx, o); !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting: %v, want ErrUncertain", err)
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	revoke(t, b, brokers.Handle{Name: o.Name()})
	if roleExists(t, o.Name()) {
		t.Error("the role is left")
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := b.Mint(ctx, o); !errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting for nobody: %v, want ErrUnavailable: nothing was sent", err)
	}
}

// Only a name that an order has reaches a statement.
func TestNamesOfOthersAreRefused(t *testing.T) {
	b := newBroker(t, options{})
	good := newOrder(t, "read").Name()
	for _, name := range []string{
		"", "postgres", admin, "orders_ro", "sts_", good + "x", good[:len(good)-1], `x"; DROP ROLE orders_ro; --`, good + `"; DROP ROLE orders_ro; --`,
		good + "\x00", "sts_tlpxaw_abcdefghijklmno'", strings.Repeat("s", 70),
	} {
		if r, err := b.Revoke(t.Context(), brokers.Handle{Name: name}); err == nil || !strings.Contains(err.Error(), "no name of a lease") || len(err.Error()) > 250 {
			t.Fatalf("revoking %q: %v (%+v), want it refused before anything is asked", name, err, r)
		}
	}
}

func TestNamesThatOnlyLookLikeOursAreNotListed(t *testing.T) {
	names := []string{"sts_admin", "stsXtlpxaw_abcdefghijklmnop", "sts_tlpxaw_ABCDEFGHIJKLMNOP", "sts_tlpxaw_abcdefghijklmnopq"}
	for _, name := range names {
		server.Exec(t, database, `CREATE ROLE "`+name+`"`)
		t.Cleanup(func() { server.Exec(t, database, `DROP ROLE "`+name+`"`) })
	}
	b := newBroker(t, options{})
	l, _ := mint(t, b, "read")
	for h, err := range b.List(t.Context()) {
		if err != nil || h.Name != l.User {
			t.Errorf("it lists %q (%v)", h.Name, err)
		}
	}
}

// The exact rights of the admin: without each of them, what needs it says so, and no receipt says dead.
func TestEachRightOfTheAdminIsNeeded(t *testing.T) {
	letCreate(t)
	for _, tc := range []struct {
		name, take, give string
		mints            bool
	}{
		{"to make roles", "ALTER ROLE sallyport NOCREATEROLE", "ALTER ROLE sallyport CREATEROLE", false},
		{"to connect", "REVOKE CONNECT ON DATABASE orders FROM sallyport, orders_ro, orders_rw", "GRANT CONNECT ON DATABASE orders TO sallyport, orders_ro, orders_rw", false},
		{"to end sessions", "REVOKE pg_signal_backend FROM sallyport", "GRANT pg_signal_backend TO sallyport", true},
		{"to connect where objects are", "REVOKE CONNECT ON DATABASE billing FROM PUBLIC", "GRANT CONNECT ON DATABASE billing TO PUBLIC", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			able := newBroker(t, options{})
			l, h := mint(t, able, "read", "write")
			in := l
			in.Database = other
			if out, err := psql(in.dsn(), "CREATE TABLE t"+l.User+" (n int)"); err != nil {
				t.Fatal(err, out)
			}
			session := open(t, l)
			server.Exec(t, database, tc.take)
			given := false
			give := func() {
				if !given {
					server.Exec(t, database, tc.give)
					given = true
				}
			}
			t.Cleanup(give)
			unable := newBroker(t, options{})
			o := newOrder(t, "read")
			if c, err := unable.Mint(t.Context(), o); (err == nil) != tc.mints || err != nil && !errors.Is(err, brokers.ErrMisconfigured) {
				t.Errorf("minting: %v, want ErrMisconfigured unless %v", err, tc.mints)
			} else if err == nil {
				revoke(t, unable, brokertest.HandleOf(o, c.Data))
			}
			if r, err := unable.Revoke(t.Context(), h); !errors.Is(err, brokers.ErrMisconfigured) {
				t.Errorf("revoking: %v (%+v), want ErrMisconfigured", err, r)
			}
			give()
			b := newBroker(t, options{})
			if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone || works(session) == nil {
				t.Errorf("with the right given back: %+v", r)
			}
		})
	}
}

func TestSuperuserCanBeTheAdminToo(t *testing.T) {
	letCreate(t)
	b := newBroker(t, options{dsn: func() string { return server.DSN(database) }})
	l, h := mint(t, b, "read", "write")
	if out, err := psql(l.dsn(), "CREATE TABLE t"+l.User+" (n int)"); err != nil {
		t.Fatal(err, out)
	}
	session := open(t, l)
	if r := revoke(t, b, h); r.State != brokers.Dead || r.Gone || works(session) == nil || roleExists(t, l.User) {
		t.Errorf("the receipt is %+v", r)
	}
}
