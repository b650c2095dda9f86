package redis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// adminPassword is that of the user which deploy/redis/sallyport.acl makes.
const adminPassword = "admin-7hTq2"

// nodes are the two of this package. Tests that look at every user are not parallel.
var nodes []*redistest.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		for range 2 {
			n, err := redistest.StartNode()
			if err == nil {
				nodes = append(nodes, n)
				defer n.Close()
				err = furnish(n)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// sampleUser is the line of the deployment's sample as arguments of ACL SETUSER.
func sampleUser() ([]any, error) {
	raw, err := os.ReadFile("../../deploy/redis/sallyport.acl")
	if err != nil {
		return nil, err
	}
	words := strings.Fields(strings.Replace(string(raw), "CHANGE-ME", adminPassword, 1))
	out := []any{"ACL", "SETUSER"}
	for _, w := range words[1:] {
		out = append(out, w)
	}
	return out, nil
}

// furnish makes the admin, and keys of two applications.
func furnish(n *redistest.Server) error {
	user, err := sampleUser()
	if err != nil {
		return err
	}
	ctx := context.Background()
	return errors.Join(n.Client.Do(ctx, user...).Err(), n.Client.Do(ctx, "ACL", "SAVE").Err(),
		n.Client.Set(ctx, "app:1", "v", 0).Err(), n.Client.Set(ctx, "other:1", "w", 0).Err())
}

var target = policy.Target{Name: "sessions-redis", Scopes: []string{"read", "write"}}

func scopes() map[string]any {
	return map[string]any{
		"read":  &redis.Scope{Keys: []string{"app:*"}, Commands: []string{"+@read", "+@connection"}},
		"write": &redis.Scope{Keys: []string{"other:*"}, Commands: []string{"+@write", "+@connection"}},
	}
}

func adminURL(address string) string { return "redis://sallyport:" + adminPassword + "@" + address }

// settings names as many nodes as there are URLs.
func settings(urls ...string) *redis.Settings {
	s := &redis.Settings{Endpoints: []string{"redis://" + nodes[0].Address + "/0", "redis://" + nodes[1].Address + "/0"}}
	for i := range urls {
		s.URLs = append(s.URLs, secret.Ref{Env: fmt.Sprint(i)})
	}
	return s
}

// targetOf is the target with the URLs of its nodes.
func targetOf(urls ...string) brokers.Target {
	return brokers.Target{
		Name: target.Name, Scopes: target.Scopes, MaxLifetime: 15 * time.Minute,
		Secret: func(r secret.Ref) (secret.Value, error) {
			for i, u := range urls {
				if r.Env == fmt.Sprint(i) {
					return secret.New(u), nil
				}
			}
			return secret.Value{}, errors.New("no such secret")
		},
		Path: func(p string) string { return p },
	}
}

func build(t testing.TB, s *redis.Settings, scopes map[string]any, urls ...string) *redis.Broker {
	t.Helper()
	tg := targetOf(urls...)
	if problems := redis.Kind().Check(tg, s, scopes); len(problems) > 0 {
		t.Fatalf("the settings do not load: %v", problems)
	}
	b, err := redis.Kind().Build(tg, s, scopes, brokers.Deps{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	out := b.(*redis.Broker)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// newBroker is the broker of most tests: both nodes.
func newBroker(t testing.TB) *redis.Broker {
	urls := []string{adminURL(nodes[0].Address), adminURL(nodes[1].Address)}
	return build(t, settings(urls...), scopes(), urls...)
}

func order(t testing.TB, scopes ...string) brokers.Order {
	t.Helper()
	return brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
		Target: target, Scopes: scopes, Lifetime: 10 * time.Minute, Lease: brokers.Lease{ID: brokertest.NewID()},
	})
}

// mint mints, and revokes when the test ends.
func mint(t testing.TB, b *redis.Broker, o brokers.Order) login {
	t.Helper()
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatalf("minting: %v", err)
	}
	t.Cleanup(func() {
		if _, err := b.Revoke(context.Background(), handle(o)); err != nil {
			t.Errorf("revoking: %v", err)
		}
	})
	return loginOf(t, c)
}

func handle(o brokers.Order) brokers.Handle { return brokertest.HandleOf(o, secret.Value{}) }

// login is the credential as a workload reads it.
type login struct {
	Type       string    `json:"type"`
	Version    int       `json:"version"`
	URLs       []string  `json:"urls"`
	User       string    `json:"user"`
	Password   string    `json:"password"`
	Expiration time.Time `json:"expiration"`
}

func loginOf(t testing.TB, c brokers.Credential) login {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(c.Value.Reveal()))
	d.DisallowUnknownFields()
	var l login
	if err := d.Decode(&l); err != nil {
		t.Fatalf("the credential is not what its schema says: %v", err)
	}
	return l
}

// cli runs a command with the vendor's client, and returns what it prints.
func (l login) cli(t testing.TB, n *redistest.Server, args ...string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(n.Address)
	cmd := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-h", host, "-p", port, "--user", l.User, "--no-auth-warning"}, args...)...)
	cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+l.Password)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("redis-cli: %v; install it with: apt-get install -y redis-tools", err)
	}
	return strings.TrimSpace(string(out))
}

// refused reports whether a node did not let somebody in at all.
func refused(out string) bool {
	return strings.Contains(out, "WRONGPASS") || strings.Contains(out, "NOAUTH")
}

// open opens a pool of one session, as a Go workload does.
func (l login) open(t testing.TB, n *redistest.Server) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: n.Address, Username: l.User, Password: l.Password, PoolSize: 1, MaxRetries: -1, Protocol: 2})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ours lists the users of leases, of any node.
func ours(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, n := range nodes {
		users, err := n.Client.Do(context.Background(), "ACL", "USERS").StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, slices.DeleteFunc(users, func(u string) bool { return u == "default" || u == "sallyport" })...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
