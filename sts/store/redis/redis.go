package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
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
	URL        secret.Value // rediss://, redis:// or unix://, with user and password
	CAFile     string       // PEM certificates that sign the server's; "" for those of the system
	AllowPlain bool         // redis:// to a host that is not this one
	Prefix     string       // of every key, unique for each deployment in one Redis; "" for sallyport
}

// DefaultPrefix is the prefix of keys.
const DefaultPrefix = "sallyport"

// Errors of the URL. None of them repeats it: it holds the password.
var (
	ErrURL   = errors.New("the Redis URL (not repeated here) is not rediss://HOST:PORT/DB, redis://HOST:PORT/DB or unix:///PATH?db=DB")
	ErrPlain = errors.New("the Redis URL (not repeated here) is redis:// to another host: the password would cross the network in the clear; use rediss://, or say allow_plaintext: true for a network that encrypts")
)

// DB is a client of one Redis and the keys of one deployment in it. It is safe for concurrent use. Nothing connects
// before the first command.
type DB struct {
	rdb *redis.Client
	tag string // "{prefix}:": one hash slot, because scripts touch several keys
}

// Open checks the configuration and returns the client. It does not connect.
func Open(c Config) (*DB, error) {
	o, err := Check(c)
	if err != nil {
		return nil, err
	}
	prefix := c.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &DB{rdb: redis.NewClient(o), tag: "{" + prefix + "}:"}, nil
}

// Check reports what is wrong with the configuration, without connecting.
func Check(c Config) (*redis.Options, error) {
	o, err := redis.ParseURL(c.URL.Reveal())
	if err != nil {
		return nil, ErrURL // err may repeat the password
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil && o.Network != "unix" {
		return nil, ErrURL
	}
	if ip := net.ParseIP(host); o.Network != "unix" && o.TLSConfig == nil && !c.AllowPlain && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, ErrPlain
	}
	if o.TLSConfig != nil {
		o.TLSConfig.MinVersion = tls.VersionTLS12
		o.TLSConfig.InsecureSkipVerify = false // ParseURL takes skip_verify from the query
		if c.CAFile != "" {
			pem, err := os.ReadFile(c.CAFile)
			if err != nil {
				return nil, fmt.Errorf("reading ca_file: %w", err)
			}
			o.TLSConfig.RootCAs = x509.NewCertPool()
			if !o.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
				return nil, errors.New("ca_file holds no PEM certificate")
			}
		}
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	o.ContextTimeoutEnabled = true
	o.PoolSize = poolSize
	o.MaxRetries = 1
	o.DialerRetries = 1
	o.Protocol = 2
	o.DisableIdentity = true
	return o, nil
}

// Close closes the connections.
func (d *DB) Close() error { return d.rdb.Close() }

func (d *DB) key(name string) string { return d.tag + name }

// within bounds a command that came without a deadline.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, commandTimeout)
}
