// Package redis is the broker of logins at Redis 7 and Valkey: an ACL user for each lease, named by it, on every node,
// with a selector for each granted scope.
//
// The password is drawn here and only its SHA-256 is sent. ACL users are neither replicated nor do they expire: each node
// is told, and a revocation is one when every node has said that the user is gone, with its connections. Rules are
// arguments of a command, not a text; what stands in them is from the configuration, and passed a strict check.
package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Type is the issued_token_type of a login.
const Type = brokers.TypePrefix + "redis"

// Settings is the `redis:` block of a target file.
type Settings struct {
	URLs           []secret.Ref `yaml:"urls" json:"urls" jsonschema:"minItems=1" jsonschema_description:"References to the URLs of every node, with the user that makes users: rediss://USER:PASSWORD@HOST:PORT, redis:// on this machine, or unix:///PATH. Required. Every primary and replica, each by itself: a node that is missing here knows no user, and keeps those that it has. docs/brokers/redis.md has the rights it needs; it can do whatever the default user can."`
	Endpoints      []string     `yaml:"endpoints" json:"endpoints" jsonschema:"minItems=1" jsonschema_description:"URLs that workloads connect to, without user and password: rediss://HOST:PORT/DB, or redis:// to this machine. Required."`
	Save           bool         `yaml:"save,omitempty" json:"save,omitempty" jsonschema_description:"Write the users to each node's aclfile after every change (ACL SAVE), so that they outlive a restart. Default: false: a restarted node knows no user, and workloads ask for new credentials. Say true where anybody else runs ACL SAVE or CONFIG REWRITE, else a restart brings revoked users back until the reaper finds them."`
	CAFile         string       `yaml:"ca_file,omitempty" json:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign those of the nodes, for our own connections; relative paths start at the configuration directory. Default: those of the system."`
	AllowPlaintext bool         `yaml:"allow_plaintext,omitempty" json:"allow_plaintext,omitempty" jsonschema_description:"Accept redis:// to another machine, for a network that encrypts by itself. Default: false. With it, whoever reads the network learns the passwords."`
}

// Scope is what a scope means at the nodes: one selector.
type Scope struct {
	Keys      []string `yaml:"keys,omitempty" json:"keys,omitempty" jsonschema:"minItems=1" jsonschema_description:"Glob patterns of keys; [\"*\"] for all. Default: no keys. Patterns hold in every database of the node."`
	Channels  []string `yaml:"channels,omitempty" json:"channels,omitempty" jsonschema:"minItems=1" jsonschema_description:"Glob patterns of Pub/Sub channels; [\"*\"] for all. Default: no channels."`
	Commands  []string `yaml:"commands" json:"commands" jsonschema:"minItems=1" jsonschema_description:"What may be done, as ACL rules: categories first (+@read, -@slow), then commands (+info, -get, +client|id). Required. A word that a node does not know makes every exchange fail. What categories bring of @admin, @dangerous and @scripting is taken away again, unless dangerous is true."`
	Dangerous bool     `yaml:"dangerous,omitempty" json:"dangerous,omitempty" jsonschema_description:"Accept commands that reach beyond keys and channels: over the server, its users and its configuration, or with code that stays. Default: false. Such a credential can make others that outlive it."`
}

// Times and sizes.
const (
	callTimeout    = 10 * time.Second // of a call that came without a deadline
	dialTimeout    = 2 * time.Second
	commandTimeout = 5 * time.Second // the server answers others while it saves
	connections    = 4               // of each node
	idleTime       = time.Minute
	lifeTime       = 10 * time.Minute // a changed password is in force after it
)

// Broker makes users on all nodes. It connects when it is first used.
type Broker struct {
	target    string
	endpoints []string
	save      bool
	selectors map[string]string // by scope
	nodes     []*redis.Client
	now       func() time.Time
}

var (
	_ brokers.BulkRevoker = (*Broker)(nil)
	_ brokers.Lister      = (*Broker)(nil)
	_ brokers.Former      = (*Broker)(nil)
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("redis", brokers.Capabilities{Credentials: map[string]any{Type: login{}}}, check, build)
}

// Forms implements [brokers.Former].
func (*Broker) Forms() []string { return []string{Type} }

func build(t brokers.Target, s Settings, scopes map[string]Scope, d brokers.Deps) (brokers.Broker, error) {
	if d.Now == nil || t.Secret == nil || t.Path == nil {
		return nil, fmt.Errorf("redis broker of target %s needs a clock, secrets and paths", t.Name)
	}
	b := &Broker{target: t.Name, endpoints: s.Endpoints, save: s.Save, selectors: make(map[string]string, len(scopes)), now: d.Now}
	for name, scope := range scopes {
		if flaws := scope.check(); len(flaws) > 0 {
			return nil, fmt.Errorf("scope %s of target %s: %s", name, t.Name, flaws[0].text)
		}
		b.selectors[name] = scope.selector()
	}
	for i, ref := range s.URLs {
		o, err := options(t, s, ref)
		if err != nil {
			return nil, fmt.Errorf("urls[%d] of target %s: %w", i, t.Name, err)
		}
		b.nodes = append(b.nodes, redis.NewClient(o))
	}
	if len(b.nodes) == 0 {
		return nil, fmt.Errorf("target %s names no node", t.Name)
	}
	return b, nil
}

// Close implements [io.Closer].
func (b *Broker) Close() error {
	var errs []error
	for _, n := range b.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// each asks every node at once, and returns what each one says.
func (b *Broker) each(ask func(i int, n *redis.Client) error) []error {
	errs := make([]error, len(b.nodes))
	var wg sync.WaitGroup
	for i, n := range b.nodes {
		wg.Go(func() { errs[i] = ask(i, n) })
	}
	wg.Wait()
	return errs
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}
