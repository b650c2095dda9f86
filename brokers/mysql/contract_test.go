package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

var contractTarget = policy.Target{Name: "orders-mysql", Scopes: []string{"read", "write"}}

func (s *mysqlServer) broker(t testing.TB, address string) *Broker {
	t.Helper()
	made, err := Kind().Build(
		brokers.Target{
			Name:   contractTarget.Name,
			Secret: func(secret.Ref) (secret.Value, error) { return secret.New("sallyport:pw@tcp(" + address + ")/"), nil },
			Path:   func(p string) string { return p },
		},
		&Settings{Host: "127.0.0.1"},
		map[string]any{"read": &Scope{Roles: []string{"orders_ro", "stock_ro"}}, "write": &Scope{Roles: []string{"orders_rw"}}},
		brokers.Deps{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	b := made.(*Broker)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// as connects as a workload does.
func (s *mysqlServer) as(t testing.TB, c brokers.Credential) *sql.DB {
	t.Helper()
	var l login
	if err := json.Unmarshal([]byte(c.Value.Reveal()), &l); err != nil {
		t.Fatal(err)
	}
	cfg := driver.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.Logger = l.User, l.Password, "unix", s.socket, &driver.NopLogger{}
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (s *mysqlServer) count(t testing.TB) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.refused {
		t.Errorf("MySQL has no such statement: %s", q)
	}
	s.refused = nil
	return len(s.accounts)
}

// contract: MySQL's dialect against its manual. No MySQL server can be had for these tests.
func TestContractMySQL(t *testing.T) {
	s := newMySQLServer(t)
	read := func(db *sql.DB) error {
		var n int
		return db.QueryRow("SELECT COUNT(*) FROM orders.list").Scan(&n)
	}
	brokertest.RunRevoker(t, brokertest.Upstream{
		Target:  contractTarget,
		Address: s.address,
		Build:   func(t testing.TB, address string) brokers.Revoker { return s.broker(t, address) },
		Works:   func(c brokers.Credential) error { return read(s.as(t, c)) },
		Session: func(t testing.TB, c brokers.Credential) func() bool {
			conn, err := s.as(t, c).Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return func() bool {
				var n int
				return conn.QueryRowContext(context.Background(), "SELECT COUNT(*) FROM orders.list").Scan(&n) == nil
			}
		},
		Count: s.count,
	})
}

func (s *mysqlServer) mint(t *testing.T, b *Broker) (brokers.Handle, brokers.Credential) {
	t.Helper()
	o := brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{Target: contractTarget, Scopes: []string{"read"}, Lease: brokers.Lease{ID: brokertest.NewID()}})
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return brokertest.HandleOf(o, secret.Value{}), c
}

// contract: a killed session is listed until it has rolled back, and for as long there is no receipt.
func TestContractMySQLRevocationWaitsForASessionThatRollsBack(t *testing.T) {
	s := newMySQLServer(t)
	b := s.broker(t, s.address)
	h, c := s.mint(t, b)
	if err := s.as(t, c).Ping(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.stubborn = 1 << 30
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	other, _ := s.mint(t, b)
	results := b.RevokeAll(ctx, []brokers.Handle{h, other})
	if results[0].Err == nil || results[1].Err != nil || results[1].Receipt.State != brokers.Dead {
		t.Errorf("with a session that does not end: %+v, want an error and dead", results)
	}
	s.mu.Lock()
	if s.locks != 1 {
		t.Errorf("%d statements locked: each one is written to the binary log", s.locks)
	}
	for _, th := range s.threads {
		th.linger = min(th.linger, 3)
	}
	s.mu.Unlock()
	if r, err := b.Revoke(t.Context(), h); err != nil || r.State != brokers.Dead || r.Gone || s.count(t) != 0 {
		t.Errorf("after it has ended: %+v, %v", r, err)
	}
}

// contract: DROP USER is atomic, and refuses an account that views or events depend on (error 4006).
func TestContractMySQLDefinerDoesNotKeepOthersAlive(t *testing.T) {
	s := newMySQLServer(t)
	b := s.broker(t, s.address)
	var hs []brokers.Handle
	for range 3 {
		h, _ := s.mint(t, b)
		hs = append(hs, h)
	}
	key := "'" + hs[1].Name + "'@'%'"
	s.mu.Lock()
	s.definers[key] = true
	s.mu.Unlock()
	for i, r := range b.RevokeAll(t.Context(), hs) {
		if i != 1 && (r.Err != nil || r.Receipt.State != brokers.Dead) {
			t.Errorf("result %d: %+v", i, r)
		}
		if i == 1 && (!errors.Is(r.Err, brokers.ErrMisconfigured) || !strings.Contains(r.Err.Error(), "definer")) {
			t.Errorf("the definer's result: %+v", r)
		}
	}
	s.mu.Lock()
	locked := s.accounts[key].locked
	delete(s.definers, key)
	s.mu.Unlock()
	if !locked {
		t.Error("the account that cannot be dropped is not locked")
	}
	if r, err := b.Revoke(t.Context(), hs[1]); err != nil || s.count(t) != 0 {
		t.Errorf("after the right was given: %+v, %v", r, err)
	}
}
