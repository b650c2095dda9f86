package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Time limits of one command. A replica that waits longer is better off saying that it cannot answer.
const (
	dialTimeout    = 2 * time.Second
	commandTimeout = 2 * time.Second
	poolSize       = 16 // connections; the hot path uses none
)

// Config says where the Redis is.
type Config struct {
	URL        secret.Value // rediss://, redis:// or unix://, with user and password; with master_name in its query it is of a Sentinel, with cluster=true of a node of a cluster
	CAFile     string       // PEM certificates that sign the server's; "" for those of the system
	AllowPlain bool         // redis:// to a host that is not this one
	Prefix     string       // of every key, unique for each deployment in one Redis; "" for sallyport
}

// DefaultPrefix is the prefix of keys.
const DefaultPrefix = "sallyport"

// Errors of the URL. None of them repeats it: it holds the password.
var (
	ErrURL   = errors.New("the Redis URL (not repeated here) is not rediss://HOST:PORT/DB, redis://HOST:PORT/DB or unix:///PATH?db=DB, nor that of a Sentinel, redis://HOST:PORT/DB?master_name=NAME&addr=HOST:PORT&username=USER&password=PASSWORD, nor that of a cluster, redis://HOST:PORT?cluster=true&addr=HOST:PORT")
	ErrPlain = errors.New("the Redis URL (not repeated here) is redis:// to another host: the password would cross the network in the clear; use rediss://, or say allow_plaintext: true for a network that encrypts")
)

// DB is a client of one Redis and the keys of one deployment in it. It is safe for concurrent use. Nothing connects
// before the first command.
type DB struct {
	rdb redis.UniversalClient
	tag string // "{prefix}:": one hash slot, because scripts touch several keys
}

// Open checks the configuration and returns the client. It does not connect.
func Open(c Config) (*DB, error) {
	rdb, err := newClient(c)
	if err != nil {
		return nil, err
	}
	prefix := c.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &DB{rdb: rdb, tag: "{" + prefix + "}:"}, nil
}

// Check reports what is wrong with the configuration, without connecting.
func Check(c Config) error {
	rdb, err := newClient(c)
	if err != nil {
		return err
	}
	return rdb.Close()
}

// newClient returns a client of one Redis, of the one that Sentinels name, or of a cluster.
func newClient(c Config) (redis.UniversalClient, error) {
	if u, err := url.Parse(c.URL.Reveal()); err == nil {
		switch q := u.Query(); {
		case q.Has("master_name"):
			return newFailover(c)
		case q.Has("cluster"):
			return newCluster(c, u)
		}
	}
	o, err := redis.ParseURL(c.URL.Reveal())
	if err != nil {
		return nil, ErrURL // err may repeat the password
	}
	if _, _, err := net.SplitHostPort(o.Addr); err != nil && o.Network != "unix" {
		return nil, ErrURL
	}
	if o.Network != "unix" && o.TLSConfig == nil && !c.AllowPlain && !local(o.Addr) {
		return nil, ErrPlain
	}
	if err := c.secure(o.TLSConfig); err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	o.ContextTimeoutEnabled, o.PoolSize, o.MaxRetries, o.DialerRetries, o.Protocol, o.DisableIdentity = true, poolSize, 1, 1, 2, true
	return redis.NewClient(o), nil
}

// newFailover returns a client of the primary that Sentinels name. After a failover the Redis has another run id, and all
// that follows from that (see the package comment).
func newFailover(c Config) (redis.UniversalClient, error) {
	o, err := redis.ParseFailoverURL(c.URL.Reveal())
	if err != nil || o.MasterName == "" {
		return nil, ErrURL
	}
	for _, addr := range o.SentinelAddrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, ErrURL
		}
		if o.TLSConfig == nil && !c.AllowPlain && !local(addr) {
			return nil, ErrPlain
		}
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // each server by its own name
	} else if !c.AllowPlain {
		o.Dialer = dialLocal // wherever a Sentinel says that the primary is
	}
	if err := c.secure(o.TLSConfig); err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	o.ContextTimeoutEnabled, o.PoolSize, o.MaxRetries, o.DialerRetries, o.Protocol, o.DisableIdentity = true, poolSize, 1, 1, 2, true
	o.ReplicaOnly, o.RouteByLatency, o.RouteRandomly, o.UseDisconnectedReplicas = false, false, false, false
	return redis.NewFailoverClient(o), nil
}

// newCluster returns a client of a cluster. All keys of a deployment stand in one slot, and so on one node and what replicates it;
// when another takes that over, the Redis has another run id, as after a failover.
func newCluster(c Config, u *url.URL) (redis.UniversalClient, error) {
	q := u.Query()
	if q.Get("cluster") != "true" || u.Path != "" && u.Path != "/" && u.Path != "/0" {
		return nil, ErrURL
	}
	q.Del("cluster")
	stripped := *u
	stripped.Path, stripped.RawQuery = "", q.Encode()
	o, err := redis.ParseClusterURL(stripped.String())
	if err != nil {
		return nil, ErrURL
	}
	for _, addr := range o.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, ErrURL
		}
		if o.TLSConfig == nil && !c.AllowPlain && !local(addr) {
			return nil, ErrPlain
		}
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // each node by its own name
	} else if !c.AllowPlain {
		o.Dialer = dialLocal // wherever a node says that another is
	}
	if err := c.secure(o.TLSConfig); err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	o.ContextTimeoutEnabled, o.PoolSize, o.MaxRetries, o.DialerRetries, o.Protocol, o.DisableIdentity = true, poolSize, 1, 1, 2, true
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false        // a replica may not have what was confirmed
	o.ClusterStateReloadInterval, o.DisableRoutingPolicies = time.Second, true // who took over is found within a beat or two
	return redis.NewClusterClient(o), nil
}

// node returns the client of the one Redis that has our keys, for commands that name none.
func (d *DB) node(ctx context.Context) (*redis.Client, error) {
	switch c := d.rdb.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, d.key("head"))
	case *redis.Client:
		return c, nil
	}
	return nil, errors.New("no client of Redis")
}

// secure makes t verify what it connects to, by ca_file if there is one. nil is a connection without TLS.
func (c Config) secure(t *tls.Config) error {
	if t == nil {
		return nil
	}
	t.MinVersion = tls.VersionTLS12
	t.InsecureSkipVerify = false // the URL's query can ask for it
	if c.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return fmt.Errorf("reading ca_file: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return errors.New("ca_file holds no PEM certificate")
	}
	return nil
}

// local reports whether an address is of this machine, by what it says.
func local(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// dialLocal refuses to send a password in the clear to where somebody else says.
func dialLocal(ctx context.Context, network, addr string) (net.Conn, error) {
	if !local(addr) {
		return nil, ErrPlain
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
}

// Close closes the connections.
func (d *DB) Close() error { return d.rdb.Close() }

func (d *DB) key(name string) string { return d.tag + name }

// within bounds a command that came without a deadline.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, commandTimeout)
}
