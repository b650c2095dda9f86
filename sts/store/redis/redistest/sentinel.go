package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// user is what everybody logs in as, on every node of a Failover.
const user = "everybody"

// Failover is a primary and a replica of Redis, watched by three Sentinels. Methods are not for concurrent use.
type Failover struct {
	URL       string // of the Sentinels, for [redis.ParseFailoverURL]
	CAFile    string // "" without TLS
	Nodes     [2]*Server
	sentinels []*exec.Cmd
	addresses []string
	dir       string
	password  string
	tls       *authority
}

// StartFailover runs them, with TLS or without. It returns when the Sentinels know each other and the replica has caught up.
func StartFailover(secure bool) (_ *Failover, err error) {
	f := &Failover{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.dir, err = os.MkdirTemp("", "sentinel-"); err != nil {
		return nil, err
	}
	if secure {
		if f.tls, err = newAuthority(f.dir); err != nil {
			return nil, err
		}
		f.CAFile = f.tls.cert
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range f.Nodes {
		if f.Nodes[i], err = startNode(f.tls, "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0"); err != nil {
			return nil, err
		}
		f.password = f.Nodes[0].Password
		c := f.Nodes[i].Client
		err = errors.Join(
			c.Do(ctx, "ACL", "SETUSER", user, "on", ">"+f.password, "~*", "&*", "+@all").Err(), c.Do(ctx, "ACL", "SAVE").Err(),
			c.ConfigSet(ctx, "masteruser", user).Err(), c.ConfigSet(ctx, "masterauth", f.password).Err(),
		)
		if err != nil {
			return nil, err
		}
	}
	host, port, _ := net.SplitHostPort(f.Nodes[0].Address)
	if err := f.Nodes[1].Client.ReplicaOf(ctx, host, port).Err(); err != nil {
		return nil, err
	}
	for range 3 {
		if err := f.watch(host, port); err != nil {
			return nil, err
		}
	}
	q := url.Values{"master_name": {"m"}, "username": {user}, "password": {f.password}, "addr": f.addresses[1:]}
	f.URL = f.tls.scheme() + "://" + f.addresses[0] + "/0?" + q.Encode()
	return f, f.together(ctx)
}

// watch starts one more Sentinel.
func (f *Failover) watch(host, port string) error {
	own := strconv.Itoa(ports.Port())
	address := net.JoinHostPort("127.0.0.1", own)
	conf := filepath.Join(f.dir, "sentinel-"+own+".conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\ndaemonize no\nlogfile %s.log\nsentinel monitor m %s %s 2\nsentinel auth-user m %s\nsentinel auth-pass m %s\nsentinel down-after-milliseconds m 1000\nsentinel failover-timeout m 6000\n",
		own, f.dir, conf, host, port, user, f.password)
	if f.tls != nil { // the last word on the port counts
		text = strings.Join(f.tls.lines(own), "\n") + "\n" + strings.Replace(text, "port "+own+"\n", "", 1)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("redis-server", conf, "--sentinel")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	f.sentinels, f.addresses = append(f.sentinels, cmd), append(f.addresses, address)
	return nil
}

// together waits until a failover would succeed.
func (f *Failover) together(ctx context.Context) error {
	for {
		ready := 0
		for _, address := range f.addresses {
			o := &redis.Options{Addr: address, Protocol: 2, DisableIdentity: true}
			if f.tls != nil {
				o.TLSConfig = &tls.Config{InsecureSkipVerify: true} // the test's own eyes
			}
			c := redis.NewSentinelClient(o)
			if s, err := c.Master(ctx, "m").Result(); err == nil && s["num-other-sentinels"] == "2" && s["num-slaves"] == "1" && s["flags"] == "master" {
				ready++
			}
			_ = c.Close()
		}
		if ready == len(f.addresses) && f.Nodes[0].Client.Wait(ctx, 1, time.Second).Val() == 1 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d Sentinels know each other and the replica", ready, len(f.addresses))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close ends all of them.
func (f *Failover) Close() error {
	var err error
	for _, s := range f.sentinels {
		_ = s.Process.Kill()
		_ = s.Wait()
	}
	for _, n := range f.Nodes {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return errors.Join(err, os.RemoveAll(f.dir))
}
