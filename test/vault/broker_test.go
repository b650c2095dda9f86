package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/jackc/pgx/v5"
	openbao "github.com/openbao/openbao/api/v2"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

const tokensFile = `
target: orders
broker: vault
max_lifetime: 15m
scopes:
  read: {role: orders, policies: [orders-read]}
  write: {role: orders, policies: [orders-write]}
vault: {address: ADDRESS, audience: 'https://vault.example', revoke_role: orders-revoker}
`

const databaseFile = `
target: orders-db
broker: vault
max_lifetime: 15m
scopes:
  read: {role: orders-db-read, read: database/creds/orders-ro, takes_back: true, policies: [orders-db-ro]}
  write: {role: orders-db-write, read: database/creds/orders-rw, takes_back: true, policies: [orders-db-rw], covers: [read]}
vault: {address: ADDRESS, audience: 'https://vault.example', revoke_role: orders-db-revoker}
`

const staticFile = `
target: motd
broker: vault
max_lifetime: 15m
scopes: {read: {role: motd, read: kv/data/orders/motd, static: true}}
vault: {address: ADDRESS, audience: 'https://vault.example', revoke_role: motd-revoker}
`

const batchFile = `
target: bulk
broker: vault
max_lifetime: 15m
scopes: {read: {role: bulk, batch: true}}
vault: {address: ADDRESS, audience: 'https://vault.example'}
`

// world is one Vault that trusts one issuer, with a kv store and a PostgreSQL behind it.
type world struct {
	vault    *Server
	postgres *Postgres
	issuer   *issuer
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{vault: StartVault(tb), postgres: StartPostgres(tb), issuer: newIssuer(tb)}
	for path, kind := range map[string]string{"kv": "kv-v2", "database": "database"} {
		in := &api.MountInput{Type: strings.TrimSuffix(kind, "-v2")}
		if kind == "kv-v2" {
			in.Options = map[string]string{"version": "2"}
		}
		if err := w.vault.Root.Sys().Mount(path, in); err != nil {
			tb.Fatal(err)
		}
	}
	w.write(tb, "database/config/orders", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "orders-ro,orders-rw", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%s/orders?sslmode=disable", w.postgres.Host, w.postgres.Port),
		"username":       "postgres", "password": w.postgres.Password,
		"username_template": `{{ .DisplayName | replace "token-" "" | truncate 40 }}-{{ random 8 | lowercase }}`,
	})
	for role, group := range map[string]string{"orders-ro": "orders_ro", "orders-rw": "orders_rw"} {
		w.write(tb, "database/roles/"+role, map[string]any{
			"db_name": "orders", "default_ttl": "1h", "max_ttl": "1h",
			"creation_statements":   `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE ` + group,
			"revocation_statements": `ALTER ROLE "{{name}}" NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'; DROP ROLE IF EXISTS "{{name}}"`,
		})
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the store upgrades itself first
		_, err := w.vault.Root.Logical().Write("kv/data/orders/motd", map[string]any{"data": map[string]any{"text": "hello"}})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			tb.Fatal(err)
		}
	}
	for name, text := range map[string]string{"orders-read": `path "kv/data/orders/*" { capabilities = ["read"] }`, "orders-write": `path "kv/data/orders/*" { capabilities = ["create", "update"] }`} {
		if err := w.vault.Root.Sys().PutPolicy(name, text); err != nil {
			tb.Fatal(err)
		}
	}
	return w
}

func (w *world) write(tb testing.TB, path string, body map[string]any) {
	tb.Helper()
	if _, err := w.vault.Root.Logical().Write(path, body); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
}

// target is a target whose file Vault was told about.
type target struct {
	*world
	policy   policy.Target
	settings vault.Settings
	scopes   map[string]any
}

// deploy has Vault trust us for a target, by what the command prints for that program.
func (w *world) deploy(tb testing.TB, file, program string) *target {
	tb.Helper()
	file = strings.ReplaceAll(file, "ADDRESS", w.vault.Address)
	var f struct {
		Target string
		Scopes map[string]vault.Scope
		Vault  vault.Settings
	}
	if err := yaml.Unmarshal([]byte(file), &f); err != nil {
		tb.Fatal(err)
	}
	text := trusted(tb, w.issuer.url, f.Target, file, program)
	if program == "curl" {
		w.vault.shell(tb, text)
	} else {
		w.vault.interpret(tb, text)
	}
	out := &target{world: w, policy: policy.Target{Name: f.Target}, settings: f.Vault, scopes: map[string]any{}}
	for name, s := range f.Scopes {
		out.policy.Scopes = append(out.policy.Scopes, name)
		out.scopes[name] = &s
	}
	return out
}

func (d *target) build(tb testing.TB, address string) brokers.Revoker {
	tb.Helper()
	s := d.settings
	s.Address = "http://" + address
	of := brokers.Target{Name: d.policy.Name, MaxLifetime: 15 * time.Minute, Path: func(p string) string { return p }}
	if problems := vault.Kind().Check(of, &s, d.scopes); len(problems) > 0 {
		tb.Fatalf("the target does not load: %v", problems)
	}
	b, err := vault.Kind().Build(of, &s, d.scopes, brokers.Deps{Issuer: d.issuer.url, Assertions: d.issuer, Now: time.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return b.(brokers.Revoker)
}

func (d *target) broker(tb testing.TB) brokers.Revoker {
	return d.build(tb, strings.TrimPrefix(d.vault.Address, "http://"))
}

func (d *target) order(tb testing.TB, lifetime time.Duration, scopes ...string) brokers.Order {
	tb.Helper()
	return brokertest.NewOrder(tb, time.Now().Truncate(time.Second), brokertest.Spec{Target: d.policy, Scopes: scopes, Lifetime: lifetime, Lease: brokers.Lease{ID: brokertest.NewID()}})
}

func (d *target) mint(tb testing.TB, o brokers.Order) brokers.Credential {
	tb.Helper()
	b := d.broker(tb)
	c, err := b.Mint(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { // what counts what lives comes after
		if _, err := b.Revoke(context.Background(), brokertest.HandleOf(o, c.Data)); err != nil {
			tb.Errorf("revoking at the end: %v", err)
		}
	})
	return c
}

// living returns how many tokens Vault keeps that were made for the target.
func (d *target) living(tb testing.TB) int {
	tb.Helper()
	list, err := d.vault.Root.Logical().List("auth/token/accessors")
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, accessor := range list.Data["keys"].([]any) {
		found, err := d.vault.Root.Auth().Token().LookupAccessor(accessor.(string))
		if err != nil {
			continue // gone meanwhile
		}
		meta, _ := found.Data["meta"].(map[string]any)
		if meta["target"] == d.policy.Name && found.Data["path"] == "auth/token/create" {
			n++
		}
	}
	return n
}

// login is a database login out of a credential.
func login(c brokers.Credential) (user, password string, err error) {
	var s struct {
		Type string
		Data struct{ Username, Password string }
	}
	err = json.Unmarshal([]byte(c.Value.Reveal()), &s)
	return s.Data.Username, s.Data.Password, err
}

func (p *Postgres) connect(ctx context.Context, c brokers.Credential) (*pgx.Conn, error) {
	user, password, err := login(c)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=orders sslmode=disable connect_timeout=10", p.Host, p.Port))
	if err != nil {
		return nil, err
	}
	config.User, config.Password = user, password
	return pgx.ConnectConfig(ctx, config)
}

func TestVault(t *testing.T) {
	w := newWorld(t)
	tokens, database := w.deploy(t, tokensFile, "curl"), w.deploy(t, databaseFile, "vault")
	t.Run("tokens", func(t *testing.T) { tokens.tokens(t) })
	t.Run("database", func(t *testing.T) { database.database(t) })
	t.Run("suite with tokens", func(t *testing.T) {
		brokertest.RunRevoker(t, brokertest.Upstream{
			Target: tokens.policy, Address: strings.TrimPrefix(w.vault.Address, "http://"), Build: tokens.build, Lost: true, Lag: 2 * time.Second,
			Works: func(c brokers.Credential) error {
				_, err := newClient(t, w.vault.Address, c.Value.Reveal()).Logical().Read("kv/data/orders/motd")
				return err
			},
			Count: tokens.living,
		})
	})
	t.Run("suite with a database", func(t *testing.T) {
		brokertest.RunRevoker(t, brokertest.Upstream{
			Target: database.policy, Address: strings.TrimPrefix(w.vault.Address, "http://"), Build: database.build, Lost: true, Lag: 2 * time.Second,
			Works: func(c brokers.Credential) error {
				conn, err := w.postgres.connect(context.Background(), c)
				if err != nil {
					return err
				}
				defer conn.Close(context.Background())
				_, err = conn.Exec(context.Background(), "SELECT * FROM orders")
				return err
			},
			Session: func(t testing.TB, c brokers.Credential) func() bool {
				conn, err := w.postgres.connect(context.Background(), c)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close(context.Background()) })
				return func() bool { _, err := conn.Exec(context.Background(), "SELECT * FROM orders"); return err == nil }
			},
			Count: database.roles,
		})
	})
	t.Run("a static secret", func(t *testing.T) {
		d := w.deploy(t, staticFile, "vault")
		c := d.mint(t, d.order(t, 5*time.Minute, "read"))
		if v := c.Value.Reveal(); !strings.Contains(v, `"text":"hello"`) || !strings.Contains(v, `"static":true`) {
			t.Errorf("the secret is %s", v)
		}
	})
	t.Run("a batch token", func(t *testing.T) {
		d := w.deploy(t, batchFile, "vault")
		if err := w.vault.Root.Sys().PutPolicy("sallyport-bulk", `path "kv/data/orders/*" { capabilities = ["read"] }`); err != nil {
			t.Fatal(err)
		}
		o := d.order(t, 15*time.Minute, "read")
		c := d.mint(t, o)
		if _, err := newClient(t, w.vault.Address, c.Value.Reveal()).Logical().Read("kv/data/orders/motd"); err != nil {
			t.Error(err)
		}
		if r, err := d.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, c.Data)); err != nil || r.State != brokers.DiesAt {
			t.Errorf("the receipt is %+v (%v)", r, err)
		}
		if _, err := d.broker(t).Mint(t.Context(), d.order(t, 5*time.Minute, "read")); !errors.Is(err, brokers.ErrTooShort) {
			t.Errorf("a grant shorter than the role's tokens: %v", err)
		}
	})
}

// roles returns how many logins Vault made in the database.
func (d *target) roles(t testing.TB) int {
	t.Helper()
	var n int
	out, err := d.postgres.psql("postgres", d.postgres.Password, "orders", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sts-%'")
	if err == nil {
		_, err = fmt.Sscan(out, &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tokens: what the scope allows and no more, for as long as the grant and no longer, by three clients.
func (d *target) tokens(t *testing.T) {
	o := d.order(t, 10*time.Minute, "read")
	c := d.mint(t, o)
	client := newClient(t, d.vault.Address, c.Value.Reveal())
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Errorf("reading what the scope allows: %v", err)
	}
	bao, err := openbao.NewClient(&openbao.Config{Address: d.vault.Address})
	if err != nil {
		t.Fatal(err)
	}
	bao.SetToken(c.Value.Reveal())
	if _, err := bao.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Errorf("reading it with OpenBao's client: %v", err)
	}
	// Nothing else, and nothing that would make it more or longer.
	for path, body := range map[string]map[string]any{
		"kv/data/orders/motd": {"data": map[string]any{"text": "x"}}, "auth/token/create": {"ttl": "24h"}, "auth/token/create-orphan": {"ttl": "24h"},
		"auth/token/renew-self": {"increment": "24h"}, "auth/token/revoke-accessor": {"accessor": "x"}, "sys/policies/acl/x": {"policy": ""},
	} {
		if _, err := client.Logical().Write(path, body); err == nil || !strings.Contains(err.Error(), "Code: 403") {
			t.Errorf("writing %s: %v, want 403", path, err)
		}
	}
	self, err := d.vault.Root.Auth().Token().Lookup(c.Value.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	end, _ := self.Data["explicit_max_ttl"].(json.Number).Int64()
	meta := fmt.Sprint(self.Data["meta"])
	if self.Data["renewable"] != false || end == 0 || end > 600 || self.Data["orphan"] != false || !strings.Contains(meta, o.Lease().ID) || !strings.Contains(meta, o.Grant().Workload().ID()) {
		t.Errorf("the token is %v", self.Data)
	}
	if _, err := d.vault.Root.Auth().Token().RenewTokenAsSelf(c.Value.Reveal(), 3600); err == nil {
		t.Error("the token was renewed")
	}

	// It ends by itself with the grant.
	short := d.mint(t, d.order(t, 4*time.Second, "read"))
	client = newClient(t, d.vault.Address, short.Value.Reveal())
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Until(short.Expires.Add(time.Second)))
	if _, err := client.Logical().Read("kv/data/orders/motd"); err == nil {
		t.Error("a token works a second after its grant")
	}

	// Wrapped: curl unwraps it once, and the second time is told.
	wrapping := *d
	wrapping.settings.WrapTTL = time.Minute
	o = d.order(t, 10*time.Minute, "read")
	w := wrapping.mint(t, o)
	unwrap := func() (string, error) {
		out, err := exec.Command("curl", "-sS", "--fail-with-body", "-X", "POST", "-H", "X-Vault-Token: "+w.Value.Reveal(), d.vault.Address+"/v1/sys/wrapping/unwrap").Output()
		return string(out), err
	}
	out, err := unwrap()
	var inside struct{ Auth struct{ Client_token string } }
	if err != nil || json.Unmarshal([]byte(out), &inside) != nil {
		t.Fatalf("unwrapping: %v %s", err, out)
	}
	client = newClient(t, d.vault.Address, inside.Auth.Client_token)
	if _, err := client.Logical().Read("kv/data/orders/motd"); err != nil {
		t.Errorf("what was wrapped: %v", err)
	}
	if out, err := unwrap(); err == nil {
		t.Errorf("it was unwrapped twice: %s", out)
	}
	if r, err := wrapping.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, w.Data)); err != nil || r.State != brokers.Dead {
		t.Errorf("the receipt is %+v (%v)", r, err)
	}
	if _, err := client.Logical().Read("kv/data/orders/motd"); err == nil {
		t.Error("what was wrapped outlives its revocation")
	}
	o = d.order(t, 10*time.Minute, "read")
	w = wrapping.mint(t, o)
	if r, err := wrapping.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, w.Data)); err != nil || r.State != brokers.Dead {
		t.Errorf("the receipt of one that nobody unwrapped is %+v (%v)", r, err)
	}
	if out, err := unwrap(); err == nil {
		t.Errorf("a revoked one was unwrapped: %s", out)
	}

	// A revoker whose policy is gone gets a 403 as for a dead token, and that is no death.
	o = d.order(t, 10*time.Minute, "read")
	c = d.mint(t, o)
	const name = "sallyport-orders-revoker"
	text, err := d.vault.Root.Sys().GetPolicy(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.vault.Root.Sys().PutPolicy(name, `path "nothing" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	if r, err := d.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, c.Data)); err == nil {
		t.Errorf("a revoker without rights has the receipt %+v", r)
	}
	if err := d.vault.Root.Sys().PutPolicy(name, text); err != nil {
		t.Fatal(err)
	}
	if r, err := d.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, c.Data)); err != nil || r.State != brokers.Dead || r.Gone {
		t.Errorf("the receipt is %+v (%v)", r, err)
	}
}

// database: psql in, refused what the scope does not allow, out when the grant ends although the lease is an hour.
func (d *target) database(t *testing.T) {
	c := d.mint(t, d.order(t, 5*time.Second, "read"))
	user, password, err := login(c)
	if err != nil || !strings.HasPrefix(user, "sts-") {
		t.Fatalf("the login is %q (%v)", user, err)
	}
	if out, err := d.postgres.psql(user, password, "orders", "SELECT count(*) FROM orders"); err != nil || out != "1" {
		t.Errorf("reading with psql: %q (%v)", out, err)
	}
	if _, err := d.postgres.psql(user, password, "orders", "INSERT INTO orders VALUES (2)"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("writing with the scope read: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); d.roles(t) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the login outlives its grant")
		}
	}
	if _, err := d.postgres.psql(user, password, "orders", "SELECT 1"); err == nil {
		t.Error("the login works after its grant")
	}
	o := d.order(t, 10*time.Minute, "read", "write")
	c = d.mint(t, o)
	if user, password, err = login(c); err != nil {
		t.Fatal(err)
	}
	if _, err := d.postgres.psql(user, password, "orders", "INSERT INTO orders VALUES (2)"); err != nil {
		t.Errorf("writing with both scopes: %v", err)
	}
	if r, err := d.broker(t).Revoke(t.Context(), brokertest.HandleOf(o, c.Data)); err != nil || r.State != brokers.Dead || d.roles(t) > 0 {
		t.Errorf("the receipt is %+v (%v); %d roles left", r, err, d.roles(t))
	}
}
