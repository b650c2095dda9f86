package redis_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// tap passes everything on to a node and keeps what went by, both ways.
type tap struct {
	net.Listener
	mu   sync.Mutex
	seen bytes.Buffer
}

func newTap(t testing.TB, upstream string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &tap{Listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(io.MultiWriter(u, out), c); _ = u.Close() }()
			go func() { _, _ = io.Copy(io.MultiWriter(c, out), u); _ = c.Close() }()
		}
	}()
	return out
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.Write(p)
}

func (t *tap) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.String()
}

func TestPasswordIsNeverSentAndNeverWritten(t *testing.T) {
	tapped := newTap(t, nodes[0].Address)
	urls := []string{adminURL(tapped.Addr().String())}
	s := settings(urls...)
	s.Save = true
	b := build(t, s, scopes(), urls...)
	o := order(t, "read")
	l := mint(t, b, o)
	if out := l.cli(t, nodes[0], "GET", "app:1"); out != "v" {
		t.Errorf("GET says %q", out)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(l.Password)))
	if sent := tapped.String(); !strings.Contains(sent, sum) || strings.Contains(sent, l.Password) {
		t.Errorf("what was sent has the hash: %v, and the password: %v", strings.Contains(sent, sum), strings.Contains(sent, l.Password))
	}
	for _, file := range []string{nodes[0].LogFile(), nodes[0].ACLFile()} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), l.Password) {
			t.Errorf("%s has the password", filepath.Base(file))
		}
	}
}

// hostile is what an attacker writes wherever a string of theirs could reach a rule.
var hostile = []string{
	"*", "~*", "&*", "+@all", "-@all", "nopass", "on", "off", "reset", "resetpass", "allkeys", "allcommands", "allchannels", "resetkeys",
	">password", "<password", "#" + strings.Repeat("0", 64), "!" + strings.Repeat("0", 64), "default", "sallyport", "default on nopass ~* +@all",
	"x y", "x\ty", "x\ny", "x\r\nACL SETUSER evil on nopass ~* +@all\r\n", "x\x00y", "(+@all)", ")", "(", "x) (~* +@all", `"`, "'", `\`, "%RW~*", "%R~*", "é", "", " ", strings.Repeat("a", 300),
	"+@all|x", "+ACL", "+acl|setuser", "+config|get", "+@admin", "+@dangerous", "+@scripting", "+get ~*", "+@read nopass", "sanitize-payload", "clearselectors",
}

// Claims, leases, names of targets and scopes: nothing of them is in a rule but the generated name.
func TestNothingThatACallerSaysReachesARule(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	before := users(t)
	for i, h := range hostile {
		tg := targetOf(urls...)
		tg.Name = h
		scope := h
		if scope == "" || strings.ContainsAny(scope, " \t\r\n\x00\"\\é") || len(scope) > 200 {
			scope = "read" // no word that a caller can ask for (RFC 6749 section 3.3)
		}
		made, err := redis.Kind().Build(tg, settings(urls...), map[string]any{scope: scopes()["read"]}, brokers.Deps{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		b := made.(*redis.Broker)
		defer b.Close()
		o := brokertest.NewOrder(t, time.Now().Truncate(time.Second), brokertest.Spec{
			Target: policy.Target{Name: "sessions-redis", Scopes: []string{scope}}, Scopes: []string{scope}, Lifetime: time.Minute,
			Lease: brokers.Lease{ID: h, Family: h, Ancestors: []string{h}, Actors: []string{h}, Position: h},
		}).WithInput(map[string]string{h: h}).WithForm(h)
		c, err := b.Mint(t.Context(), o)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if l := loginOf(t, c); l.User != o.Name() {
			t.Errorf("%d: the user is called %q", i, l.User)
		}
		rules, err := nodes[0].Client.Do(t.Context(), "ACL", "LIST").StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(rules, func(r string) bool { return strings.HasPrefix(r, "user "+o.Name()+" ") })
		if at < 0 || strings.Contains(rules[at], "nopass") || strings.Contains(rules[at], "~* ") || strings.Contains(rules[at], "+@all") || !strings.Contains(rules[at], "(~app:* resetchannels -@all +@read") {
			t.Errorf("%d: the rules are %q", i, rules)
		}
		if r, err := b.Revoke(t.Context(), brokers.Handle{Lease: h, Name: o.Name(), Data: secret.New(h)}); err != nil || r.Gone {
			t.Errorf("%d: %+v, %v", i, r, err)
		}
		for _, name := range []string{h, o.Name() + h + "x", "x" + h + o.Name()} {
			if r, err := b.Revoke(t.Context(), brokers.Handle{Name: name}); err == nil {
				t.Errorf("%q was revoked: %+v", name, r)
			}
		}
	}
	if after := users(t); after != before {
		t.Errorf("users were\n%s\nand are\n%s", before, after)
	}
}

// users is who may do what at the first node.
func users(t testing.TB) string {
	t.Helper()
	rules, err := nodes[0].Client.Do(t.Context(), "ACL", "LIST").StringSlice()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rules)
	return strings.Join(rules, "\n")
}

func TestScopesThatReachTooFarAreRefused(t *testing.T) {
	t.Parallel()
	urls := []string{adminURL(nodes[0].Address)}
	problems := func(s redis.Scope) []brokers.Problem {
		return redis.Kind().Check(targetOf(urls...), settings(urls...), map[string]any{"read": &s})
	}
	for _, h := range hostile {
		if found := problems(redis.Scope{Keys: []string{"app:*"}, Commands: []string{"+@read", h}}); len(found) == 0 && h != "-@all" {
			t.Errorf("commands with %q load", h)
		}
		found := problems(redis.Scope{Keys: []string{h}, Channels: []string{h}, Commands: []string{"+@read"}})
		if bad := strings.ContainsAny(h, " \t\r\n\x00()\"'é") || h == "" || len(h) > 256; bad != (len(found) == 2) {
			t.Errorf("patterns %q: %v", h, found)
		}
	}
	for _, tc := range []struct {
		commands string
		loads    bool
	}{
		{"+@read", true}, {"+@read +@write -@slow +info +keys +sort +client|id +acl|whoami +cluster|slots +json.get +eval +evalsha -get", true},
		{"+get", true}, {"-@all +get", true}, {"+@read -@read", true}, {"+select|0", true}, {"+function", false}, {"+script|load", false}, {"+function|load", false},
		{"+get +@read", false}, {"+@all", false}, {"+@all -@admin", false}, {"+client", false}, {"+client|kill", false}, {"+acl", false}, {"+cluster", false}, {"+cluster|meet", false},
		{"+config", false}, {"+debug", false}, {"+module", false}, {"+replicaof", false}, {"+shutdown", false}, {"+monitor", false}, {"+flushall", false}, {"+migrate", false},
		{"+@read|x", false}, {"@read", false}, {"+", false}, {"+@", false}, {"+GET", false}, {"+get|", false}, {"+acl|setuser|whoami", false}, {"+acl|whoami|setuser", false},
	} {
		words := strings.Fields(tc.commands)
		if found := problems(redis.Scope{Commands: words}); (len(found) == 0) != tc.loads {
			t.Errorf("%s: %v, loads should be %v", tc.commands, found, tc.loads)
		}
		if found := problems(redis.Scope{Commands: words, Dangerous: true}); (len(found) == 0) != (tc.loads || strings.HasPrefix(tc.commands, "+@all") || word.MatchString(tc.commands)) {
			t.Errorf("%s, with dangerous: true: %v", tc.commands, found)
		}
	}
	if found := problems(redis.Scope{Keys: []string{"*"}}); len(found) != 1 || found[0].Path != "scopes.read.commands" {
		t.Errorf("a scope without commands: %v", found)
	}
}

// What reaches beyond keys and channels, by this server's own word, is either known to us as a power or harmless by name.
func TestEveryPowerOfTheServerIsKnown(t *testing.T) {
	harmless := []string{"info", "keys", "sort", "sort_ro", "role", "lastsave", "eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"}
	urls := []string{adminURL(nodes[0].Address)}
	seen := 0
	for _, category := range []string{"admin", "dangerous", "scripting"} {
		commands, err := nodes[0].Client.Do(t.Context(), "ACL", "CAT", category).StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commands {
			seen++
			if slices.Contains(harmless, c) || strings.HasPrefix(c, "cluster|") && strings.HasSuffix(c, "|nodes") {
				continue
			}
			found := redis.Kind().Check(targetOf(urls...), settings(urls...), map[string]any{"read": &redis.Scope{Commands: []string{"+" + c}}})
			if len(found) == 0 {
				t.Errorf("+%s loads without dangerous: true", c)
			}
		}
	}
	if seen < 80 {
		t.Errorf("%d commands were seen", seen)
	}
}

// Whatever the categories are that a scope names, the server denies what is protected, by its own check.
func TestCategoriesBringNothingProtected(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	categories, err := nodes[0].Client.Do(t.Context(), "ACL", "CAT").StringSlice()
	if err != nil {
		t.Fatal(err)
	}
	scope := redis.Scope{Keys: []string{"*"}, Channels: []string{"*"}}
	for _, c := range categories {
		if !slices.Contains([]string{"admin", "dangerous", "scripting"}, c) {
			scope.Commands = append(scope.Commands, "+@"+c)
		}
	}
	scope.Commands = append(scope.Commands, "+info")
	l := mint(t, build(t, settings(urls...), map[string]any{"read": &scope}, urls...), order(t, "read"))
	allowed := func(command string) bool {
		args := []any{"ACL", "DRYRUN", l.User}
		for _, part := range strings.Split(command, "|") {
			args = append(args, part)
		}
		for range 8 { // arity is checked first
			out, err := nodes[0].Client.Do(t.Context(), args...).Text()
			if err != nil && strings.Contains(err.Error(), "wrong number of arguments") {
				args = append(args, "1")
				continue
			}
			return err != nil || !strings.Contains(out, "has no permissions to run")
		}
		t.Fatalf("%s takes no number of arguments", command)
		return true
	}
	denied := 0
	for _, category := range []string{"admin", "dangerous", "scripting"} {
		commands, err := nodes[0].Client.Do(t.Context(), "ACL", "CAT", category).StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commands {
			switch ok := allowed(c); {
			case c == "info":
				if !ok {
					t.Error("info was named and is denied")
				}
			case ok:
				t.Errorf("%s is allowed", c)
			default:
				denied++
			}
		}
	}
	if !allowed("get") || !allowed("set") || !allowed("publish") || denied < 80 {
		t.Errorf("%d commands were denied, or too many", denied)
	}
}

func TestDangerousIsWhatItSays(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	b := build(t, settings(urls...), map[string]any{"read": &redis.Scope{Commands: []string{"+@admin", "+config|get"}, Dangerous: true}}, urls...)
	l := mint(t, b, order(t, "read"))
	if out := l.cli(t, nodes[0], "ACL", "WHOAMI"); !strings.Contains(out, "NOPERM") {
		t.Errorf("ACL WHOAMI says %q", out) // it is in no category that was named
	}
	if out := l.cli(t, nodes[0], "CONFIG", "GET", "maxclients"); !strings.Contains(out, "maxclients") {
		t.Errorf("CONFIG GET says %q", out)
	}
}

func TestWordThatTheServerDoesNotKnowIsToldAndLeavesNothing(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address), adminURL(nodes[1].Address)}
	for _, word := range []string{"+@bogus", "+bogus", "+get|bogus|x"} {
		s := map[string]any{"read": &redis.Scope{Commands: []string{word}}}
		if len(redis.Kind().Check(targetOf(urls...), settings(urls...), s)) > 0 {
			continue // refused when it is loaded
		}
		_, err := build(t, settings(urls...), s, urls...).Mint(t.Context(), order(t, "read"))
		if !errors.Is(err, brokers.ErrMisconfigured) || errors.Is(err, brokers.ErrUncertain) || !strings.Contains(err.Error(), "commands of a scope") {
			t.Errorf("%s: got %v, want ErrMisconfigured", word, err)
		}
	}
	if left := ours(t); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}

// Each right of the sample is needed.
func TestRightsOfTheSampleAreAllNeeded(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	for right, use := range map[string]func(*redis.Broker, brokers.Order) error{
		"ping":        func(b *redis.Broker, o brokers.Order) error { _, err := b.Mint(t.Context(), o); return err },
		"acl|setuser": func(b *redis.Broker, o brokers.Order) error { _, err := b.Mint(t.Context(), o); return err },
		"acl|save":    func(b *redis.Broker, o brokers.Order) error { _, err := b.Mint(t.Context(), o); return err },
		"acl|deluser": func(b *redis.Broker, o brokers.Order) error { _, err := b.Revoke(t.Context(), handle(o)); return err },
		"acl|users": func(b *redis.Broker, _ brokers.Order) (err error) {
			for _, err = range b.List(t.Context()) {
			}
			return err
		},
	} {
		s := settings(urls...)
		s.Save = true
		b := build(t, s, scopes(), urls...)
		o := order(t, "read")
		if err := use(b, o); err != nil {
			t.Errorf("with %s: %v", right, err)
		}
		if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "-"+right).Err(); err != nil {
			t.Fatal(err)
		}
		err := use(b, o)
		if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "+"+right).Err(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(err, brokers.ErrMisconfigured) || !strings.Contains(err.Error(), "docs/brokers/redis.md") {
			t.Errorf("without %s: %v, want ErrMisconfigured and where to read on", right, err)
		}
		if _, err := b.Revoke(t.Context(), handle(o)); err != nil {
			t.Error(err)
		}
	}
}

// restart kills a node and starts it on what its aclfile has.
func restart(t testing.TB, n *redistest.Server) {
	t.Helper()
	n.Kill()
	if err := n.Run(); err != nil {
		t.Fatal(err)
	}
	if err := n.Client.MSet(t.Context(), "app:1", "v", "other:1", "w").Err(); err != nil { // it keeps no keys
		t.Fatal(err)
	}
}

func TestWhatSurvivesARestart(t *testing.T) {
	n := nodes[0]
	urls := []string{adminURL(n.Address)}
	saving := settings(urls...)
	saving.Save = true
	for _, tc := range []struct {
		name     string
		settings *redis.Settings
		lives    bool
	}{{"without save", settings(urls...), false}, {"with save", saving, true}} {
		b := build(t, tc.settings, scopes(), urls...)
		o := order(t, "read")
		l := mint(t, b, o)
		restart(t, n)
		if out := l.cli(t, n, "GET", "app:1"); (out == "v") != tc.lives {
			t.Errorf("%s: after a restart GET says %q", tc.name, out)
		}
		if r, err := b.Revoke(t.Context(), handle(o)); err != nil || r.Gone == tc.lives {
			t.Errorf("%s: %+v, %v", tc.name, r, err)
		}
		restart(t, n)
		if out := l.cli(t, n, "GET", "app:1"); !refused(out) {
			t.Errorf("%s: revoked, and after a restart GET says %q", tc.name, out)
		}
	}
}

// The trap of the manual: somebody else saves, a restart brings the revoked user back, and the list finds it.
func TestUserThatSomebodyElseSavedIsFoundAgain(t *testing.T) {
	n := nodes[0]
	urls := []string{adminURL(n.Address)}
	b := build(t, settings(urls...), scopes(), urls...)
	o := order(t, "read")
	l := mint(t, b, o)
	if err := n.Client.Do(t.Context(), "ACL", "SAVE").Err(); err != nil {
		t.Fatal(err)
	}
	defer n.Client.Do(context.Background(), "ACL", "SAVE")
	if _, err := b.Revoke(t.Context(), handle(o)); err != nil {
		t.Fatal(err)
	}
	restart(t, n)
	if out := l.cli(t, n, "GET", "app:1"); out != "v" {
		t.Fatalf("the trap is gone: GET says %q", out)
	}
	found := 0
	for h, err := range b.List(t.Context()) {
		if err != nil || h.Name != o.Name() {
			t.Errorf("it lists %+v, %v", h, err)
		}
		if r, err := b.Revoke(t.Context(), h); err != nil || r.Gone {
			t.Errorf("%+v, %v", r, err)
		}
		found++
	}
	if out := l.cli(t, n, "GET", "app:1"); found != 1 || !refused(out) {
		t.Errorf("%d were found, and GET says %q", found, out)
	}
}

// A revocation whose ACL SAVE failed is none, also when it is asked again and the user is gone from memory.
func TestRevocationThatWasNotSavedIsNone(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	s := settings(urls...)
	s.Save = true
	b := build(t, s, scopes(), urls...)
	o := order(t, "read")
	mint(t, b, o)
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "-acl|save").Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err := b.Revoke(t.Context(), handle(o)); err == nil {
			t.Errorf("not saved, and the receipt says %+v", r)
		}
	}
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", "sallyport", "+acl|save").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Revoke(t.Context(), handle(o)); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(nodes[0].ACLFile())
	if err != nil || strings.Contains(string(raw), o.Name()) {
		t.Errorf("the aclfile still has the user (%v)", err)
	}
}

// late stands between a broker and a node. The first command that makes a user is held back, and its connection cut.
type late struct {
	net.Listener
	held chan func() // lets go
}

func newLate(t testing.TB, upstream string) *late {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &late{l, make(chan func(), 1)}
	t.Cleanup(func() { _ = l.Close() })
	var once sync.Once
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(c, u); _ = c.Close() }()
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						_ = u.Close()
						return
					}
					hold := false
					if bytes.Contains(buf[:n], []byte("SETUSER")) {
						once.Do(func() { hold = true })
					}
					if hold {
						_ = c.Close()
						out.held <- func() { _, _ = u.Write(buf[:n]) }
						return
					}
					_, _ = u.Write(buf[:n])
				}
			}()
		}
	}()
	return out
}

// A command that makes the user may arrive after the one that deletes it. So a mint whose answer was lost is uncertain even
// when the deletion was confirmed, and the user is found by its name.
func TestCommandThatComesTooLateIsFoundByItsName(t *testing.T) {
	p := newLate(t, nodes[0].Address)
	urls := []string{adminURL(p.Addr().String())}
	b := build(t, settings(urls...), scopes(), urls...)
	o := order(t, "read")
	if _, err := b.Mint(t.Context(), o); !errors.Is(err, brokers.ErrUncertain) {
		t.Errorf("an answer was lost: %v, want ErrUncertain", err)
	}
	if r, err := b.Revoke(t.Context(), handle(o)); err != nil || !r.Gone {
		t.Errorf("%+v, %v", r, err)
	}
	(<-p.held)()
	for end := time.Now().Add(10 * time.Second); len(ours(t)) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command never came")
		}
	}
	for h, err := range b.List(t.Context()) {
		if err != nil || h.Name != o.Name() {
			t.Errorf("it lists %+v, %v", h, err)
		}
		if _, err := b.Revoke(t.Context(), h); err != nil {
			t.Error(err)
		}
	}
	if left := ours(t); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}

// Whatever a user of this name may do already, it may not after.
func TestUserIsMadeFromNothing(t *testing.T) {
	urls := []string{adminURL(nodes[0].Address)}
	b := build(t, settings(urls...), scopes(), urls...)
	o := order(t, "read")
	if err := nodes[0].Client.Do(t.Context(), "ACL", "SETUSER", o.Name(), "on", "nopass", "~*", "&*", "+@all", "(~* +@all)").Err(); err != nil {
		t.Fatal(err)
	}
	l := mint(t, b, o)
	for _, command := range [][]string{{"GET", "other:1"}, {"CONFIG", "GET", "*"}, {"SET", "app:1", "x"}} {
		if out := l.cli(t, nodes[0], command...); !strings.Contains(out, "NOPERM") {
			t.Errorf("%v says %q", command, out)
		}
	}
	l.Password = "anything"
	if out := l.cli(t, nodes[0], "GET", "app:1"); !refused(out) {
		t.Errorf("with another password: %q", out)
	}
}
