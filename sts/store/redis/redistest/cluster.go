package redistest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// Cluster is a Redis Cluster: three primaries, and a replica of each. Methods are not for concurrent use.
type Cluster struct {
	URL    string // with cluster=true
	CAFile string // "" without TLS
	Nodes  []*Server
	dir    string
}

// StartCluster runs one, with TLS or without. rules are the ACL rules of the user that URL has; "" for all. It returns when every
// slot is served and every replica has caught up.
func StartCluster(secure bool, rules ...string) (_ *Cluster, err error) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		return nil, errors.New("redis-cli is missing; install it with: apt-get install -y redis-tools")
	}
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return nil, err
	}
	var tls *authority
	if secure {
		if tls, err = newAuthority(c.dir); err != nil {
			return nil, err
		}
		c.CAFile = tls.cert
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	var addresses []string
	password := ""
	for range 6 {
		lines := []string{"cluster-enabled yes", fmt.Sprintf("cluster-port %d", ports.Port()), "cluster-node-timeout 1000", "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0", "cluster-replica-validity-factor 0"}
		n, err := startNode(tls, lines...)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
		if password == "" {
			password = n.Password
		}
		allowed := []any{"~*", "&*", "+@all"}
		if len(rules) > 0 {
			allowed = nil
			for _, r := range rules {
				allowed = append(allowed, r)
			}
		}
		err = errors.Join(
			n.Client.Do(ctx, "ACL", "SETUSER", "default", ">"+password).Err(),
			n.Client.Do(ctx, append([]any{"ACL", "SETUSER", user, "on", ">" + password}, allowed...)...).Err(),
			n.Client.ConfigSet(ctx, "masteruser", "default").Err(), n.Client.ConfigSet(ctx, "masterauth", password).Err(),
		)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, n.Address)
	}
	args := append([]string{"--cluster", "create"}, addresses...)
	args = append(args, "--cluster-replicas", "1", "--cluster-yes", "--no-auth-warning")
	if secure {
		args = append(args, "--tls", "--cacert", tls.cert)
	}
	cmd := exec.CommandContext(ctx, "redis-cli", args...)
	cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("redis-cli --cluster create: %w\n%s", err, out)
	}
	q := url.Values{"cluster": {"true"}, "addr": addresses[1:3]}
	c.URL = tls.scheme() + "://" + user + ":" + password + "@" + addresses[0] + "?" + q.Encode()
	return c, c.together(ctx)
}

// together waits until the cluster serves and a failover of any primary would succeed.
func (c *Cluster) together(ctx context.Context) error {
	for {
		ready := 0
		for _, n := range c.Nodes {
			info := n.Client.ClusterInfo(ctx).Val()
			role := n.Client.Info(ctx, "replication").Val()
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:6") &&
				(strings.Contains(role, "master_link_status:up") || strings.Contains(role, "connected_slaves:1")) {
				ready++
			}
		}
		if ready == len(c.Nodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d nodes are ready", ready, len(c.Nodes))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Holder returns the primary that has a key.
func (c *Cluster) Holder(ctx context.Context, key string) (*Server, error) {
	for _, n := range c.Nodes {
		if err := n.Client.Get(ctx, key).Err(); err == nil || !strings.Contains(err.Error(), "MOVED") && !strings.Contains(err.Error(), "CLUSTERDOWN") {
			if strings.Contains(n.Client.Info(ctx, "replication").Val(), "role:master") {
				return n, nil
			}
		}
	}
	return nil, errors.New("no primary has the key")
}

// Close ends all of them.
func (c *Cluster) Close() error {
	var err error
	for _, n := range c.Nodes {
		err = errors.Join(err, n.Close())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
