package redis_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Two nodes, and the network to one of them fails.
func TestBroker(t *testing.T) {
	brokertest.RunRevoker(t, brokertest.Upstream{
		Target:  target,
		Address: nodes[0].Address,
		Build: func(t testing.TB, address string) brokers.Revoker {
			urls := []string{adminURL(address), adminURL(nodes[1].Address)}
			return build(t, settings(urls...), scopes(), urls...)
		},
		Works: func(c brokers.Credential) error { return works(t, loginOf(t, c)) },
		Session: func(t testing.TB, c brokers.Credential) func() bool {
			var conns []*goredis.Conn
			for _, n := range nodes {
				conns = append(conns, loginOf(t, c).open(t, n).Conn())
			}
			return func() bool {
				return slices.ContainsFunc(conns, func(c *goredis.Conn) bool { return c.Get(context.Background(), "app:1").Err() == nil })
			}
		},
		Count: func(t testing.TB) int { return len(ours(t)) },
	})
}

// works runs the vendor's client at every node: what the scope allows works, what it does not is refused. A credential
// that opens only some nodes works, too, and is reported.
func works(t testing.TB, l login) error {
	t.Helper()
	opened := 0
	for _, n := range nodes {
		out := l.cli(t, n, "GET", "app:1")
		if refused(out) {
			continue
		}
		opened++
		if out != "v" {
			t.Errorf("GET app:1 says %q", out)
		}
		for _, denied := range [][]string{{"SET", "app:1", "x"}, {"GET", "other:1"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"ACL", "LIST"}} {
			if out := l.cli(t, n, denied...); !strings.Contains(out, "NOPERM") && !refused(out) {
				t.Errorf("%v says %q, want NOPERM", denied, out)
			}
		}
	}
	switch opened {
	case 0:
		return errors.New("no node lets it in")
	case len(nodes):
	default:
		t.Errorf("%d of %d nodes let it in", opened, len(nodes))
	}
	return nil
}

func TestCredentialSaysWhatAClientNeeds(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read", "write")
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = b.Revoke(context.Background(), handle(o)) }()
	brokertest.CheckForm(t, c)
	l := loginOf(t, c)
	want := login{Type: "redis", Version: 1, URLs: settings().Endpoints, User: o.Name(), Password: l.Password, Expiration: o.Grant().Expires().Truncate(time.Second).UTC()}
	if !reflect.DeepEqual(l, want) || len(l.Password) != 32 {
		t.Errorf("got %+v\nwant %+v", l, want)
	}
	if c.Type != brokers.TypePrefix+"redis" || c.TokenType != brokers.NotApplicable || c.Audience != target.Name || !c.Data.IsZero() || c.Fingerprint != "" {
		t.Errorf("the credential is %+v", c)
	}
	if !strings.HasPrefix(c.Value.Reveal(), `{"type":"redis","version":1,`) {
		t.Error("the first member does not say the kind")
	}
}

// A union of rules would let the commands of the one scope touch the keys of the other.
func TestScopesTogetherAreNoMoreThanEachByItself(t *testing.T) {
	l := mint(t, newBroker(t), order(t, "read", "write"))
	for _, tc := range []struct {
		command []string
		allowed bool
	}{
		{[]string{"GET", "app:1"}, true},
		{[]string{"DEL", "other:9"}, true},
		{[]string{"DEL", "app:9"}, false},
		{[]string{"GET", "other:1"}, false},
		{[]string{"GET", "neither:1"}, false},
		{[]string{"PING"}, true},
		{[]string{"PUBLISH", "app:1", "x"}, false},
	} {
		if out := l.cli(t, nodes[1], tc.command...); strings.Contains(out, "NOPERM") == tc.allowed {
			t.Errorf("%v says %q, allowed should be %v", tc.command, out, tc.allowed)
		}
	}
}

func TestChannelsAreThoseOfTheScope(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address), adminURL(nodes[1].Address)}
	b := build(t, settings(urls...), map[string]any{"read": &redis.Scope{Channels: []string{"events:*"}, Commands: []string{"+publish", "+ping"}}}, urls...)
	l := mint(t, b, order(t, "read"))
	if out := l.cli(t, nodes[0], "PUBLISH", "events:1", "x"); out != "0" {
		t.Errorf("PUBLISH says %q", out)
	}
	if out := l.cli(t, nodes[0], "PUBLISH", "other", "x"); !strings.Contains(out, "NOPERM") {
		t.Errorf("PUBLISH elsewhere says %q", out)
	}
}

// One dead node of two: nothing is made anywhere, nothing is called dead, and what is owed is done when it is back.
func TestDeadNodeIsToldAndRecoveredFrom(t *testing.T) {
	b := newBroker(t)
	o, second := order(t, "read"), order(t, "read")
	l := mint(t, b, o)
	nodes[1].Kill()
	start := time.Now()
	if _, err := b.Mint(t.Context(), second); !errors.Is(err, brokers.ErrUnavailable) || errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("minting with a dead node: %v, want ErrUnavailable", err)
	}
	users, err := nodes[0].Client.Do(t.Context(), "ACL", "USERS").StringSlice()
	if err != nil || slices.Contains(users, second.Name()) {
		t.Errorf("the other node has %v (%v)", users, err)
	}
	if r, err := b.Revoke(t.Context(), handle(o)); err == nil || strings.Contains(err.Error(), adminPassword) {
		t.Errorf("revoking with a dead node: %+v, %v", r, err)
	}
	if out := l.cli(t, nodes[0], "GET", "app:1"); !refused(out) {
		t.Errorf("the node that lives was not told: %q", out)
	}
	listed, told := 0, false
	for _, err := range b.List(t.Context()) {
		listed++
		told = told || err != nil
	}
	if !told || listed != 1 {
		t.Errorf("it lists %d entries with a dead node, error %v", listed, told)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to notice", took)
	}
	restart(t, nodes[1])
	if r, err := b.Revoke(t.Context(), handle(o)); err != nil || r.State != brokers.Dead {
		t.Errorf("after it came back: %+v, %v", r, err)
	}
	mint(t, b, second)
	if n := len(ours(t)); n != 1 {
		t.Errorf("%d users, want 1", n)
	}
}

func TestHungNodeHoldsNobody(t *testing.T) {
	b := newBroker(t)
	o, second := order(t, "read"), order(t, "read")
	mint(t, b, o)
	if err := nodes[1].Stop(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, mintErr := b.Mint(ctx, second)
	_, revokeErr := b.Revoke(ctx, handle(o))
	took := time.Since(start)
	if err := nodes[1].Continue(); err != nil {
		t.Fatal(err)
	}
	if mintErr == nil || revokeErr == nil || took > 5*time.Second {
		t.Errorf("mint: %v, revoke: %v; took %s", mintErr, revokeErr, took)
	}
	if _, err := b.Revoke(t.Context(), handle(second)); err != nil {
		t.Errorf("revoking what may have been made: %v", err)
	}
}

// A node that takes the user and one that refuses: the first one is told to forget it.
func TestUserIsOnAllNodesOrOnNone(t *testing.T) {
	b := newBroker(t)
	o := order(t, "read")
	if err := nodes[1].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "-acl|setuser").Err(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := nodes[1].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "+acl|setuser").Err(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := b.Mint(t.Context(), o); !errors.Is(err, brokers.ErrMisconfigured) || errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("got %v, want ErrMisconfigured", err)
	}
	if users := ours(t); len(users) != 0 {
		t.Errorf("%v are left", users)
	}
	// And when it cannot be told: something may be there.
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "-acl|deluser").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := b.Mint(t.Context(), o)
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "+acl|deluser").Err(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("got %v, want ErrUncertain", err)
	}
	if r, err := b.Revoke(t.Context(), handle(o)); err != nil || r.Gone || len(ours(t)) != 0 {
		t.Errorf("revoking it: %+v, %v", r, err)
	}
}

func TestChangedPasswordIsReadAnew(t *testing.T) {
	password := "old-3d"
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "rotating", "reset", "on", ">"+password, "+ping", "+acl").Err(); err != nil {
		t.Fatal(err)
	}
	defer nodes[0].Client.Do(context.Background(), "ACL", "DELUSER", "rotating")
	tg := targetOf("")
	tg.Secret = func(secret.Ref) (secret.Value, error) {
		return secret.New("redis://rotating:" + password + "@" + nodes[0].Address), nil
	}
	made, err := redis.Kind().Build(tg, settings(""), scopes(), brokers.Deps{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	b := made.(*redis.Broker)
	defer b.Close()
	if _, err := b.Revoke(t.Context(), handle(order(t, "read"))); err != nil {
		t.Fatal(err)
	}
	password = "new-4e"
	for _, c := range [][]any{{"ACL", "SETUSER", "rotating", "resetpass", ">" + password}, {"CLIENT", "KILL", "USER", "rotating"}} {
		if err := nodes[0].Client.Do(t.Context(), c...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Revoke(t.Context(), handle(order(t, "read"))); err != nil {
		t.Errorf("after the password changed: %v", err)
	}
}
