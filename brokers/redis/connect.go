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

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Errors of a URL. None of them repeats it: it holds the password.
var (
	errURL   = errors.New("the URL (not repeated here) is not rediss://USER:PASSWORD@HOST:PORT, redis://USER:PASSWORD@HOST:PORT or unix://USER:PASSWORD@/PATH, without a database and without parameters")
	errPlain = errors.New("the URL (not repeated here) is redis:// to another host: the password would cross the network in the clear; use rediss://, or say allow_plaintext: true for a network that encrypts")
	errTwice = errors.New("the URL (not repeated here) names a node that another one names, too; each node once")
)

// caError is what is wrong with ca_file.
type caError struct{ error }

// parse reads and checks a URL.
func parse(t brokers.Target, s Settings, ref secret.Ref) (*redis.Options, error) {
	raw, err := t.Secret(ref)
	if err != nil {
		return nil, err
	}
	// Parameters would turn off verification, or what this file sets; users belong to no database.
	u, err := url.Parse(raw.Reveal())
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "unix" && u.Path != "" && u.Path != "/" {
		return nil, errURL
	}
	o, err := redis.ParseURL(raw.Reveal())
	if err != nil {
		return nil, errURL // err may repeat the password
	}
	if o.Network == "unix" {
		return o, nil
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil || u.Hostname() == "" {
		return nil, errURL
	}
	if o.TLSConfig == nil && !s.AllowPlaintext && !local(host) {
		return nil, errPlain
	}
	return o, nil
}

// local reports whether a host is this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// options is how to reach a node. It connects to nothing.
func options(t brokers.Target, s Settings, ref secret.Ref) (*redis.Options, error) {
	o, err := parse(t, s, ref)
	if err != nil {
		return nil, err
	}
	if o.TLSConfig != nil {
		o.TLSConfig.MinVersion = tls.VersionTLS12
		if o.TLSConfig.RootCAs, err = roots(t, s); err != nil {
			return nil, err
		}
	}
	// User and password are read anew for each connection: they may change while the service runs.
	o.CredentialsProviderContext = func(context.Context) (string, string, error) {
		now, err := parse(t, s, ref)
		if err != nil {
			return "", "", configError{err}
		}
		return now.Username, now.Password, nil
	}
	o.Username, o.Password = "", ""
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	o.ContextTimeoutEnabled = true
	o.PoolSize, o.ConnMaxIdleTime, o.ConnMaxLifetime = connections, idleTime, lifeTime
	o.MaxRetries = -1 // what was sent and not answered is not sent again behind our back
	o.DialerRetries = 1
	o.Protocol = 2
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o, nil
}

// configError is what keeps us from connecting at all.
type configError struct{ error }

// roots are the certificates of ca_file, nil for those of the system.
func roots(t brokers.Target, s Settings) (*x509.CertPool, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(t.Path(s.CAFile))
	if err != nil {
		return nil, caError{fmt.Errorf("ca_file cannot be read: %w", bare(err))}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, caError{errors.New("ca_file holds no PEM certificate")}
	}
	return pool, nil
}

// bare drops the path from a file's error; whoever reads the problem knows where it is.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
