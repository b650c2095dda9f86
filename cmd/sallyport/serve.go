package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"

	"github.com/sallyport-sts/sallyport/sts/config"
)

func newServe() *cobra.Command {
	var pretty bool
	var dataDir string
	c := &cobra.Command{
		Use:     "serve DIR",
		Short:   "Run the service from a configuration directory",
		Example: "sallyport serve /etc/sallyport",
		Long: `Run the service from a configuration directory (see: sallyport init).

A directory that check refuses does not start. SIGHUP, or a change of a file, reloads it: a set that is
broken is refused as a whole and the old one keeps running. SIGTERM or SIGINT finishes what was accepted,
seals the audit log and ends; a second one cuts what is not finished.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			log := zerolog.New(os.Stderr).With().Timestamp().Logger()
			if pretty {
				log = log.Output(zerolog.ConsoleWriter{Out: os.Stderr})
			}
			slog.SetDefault(slog.New(zerolog.NewSlogHandler(log))) // zitadel/oidc logs there
			goredis.SetLogger(redisLog{log})
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return serve(ctx, args[0], dataDir, log)
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "directory for this replica's state, in place of data_dir")
	c.Flags().BoolVar(&pretty, "pretty", isTerminal(os.Stderr), "write logs for people instead of JSON lines")
	return c
}

// redisLog is where the client of Redis writes what it tries; what came of it is said by whoever asked.
type redisLog struct{ zerolog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.Debug().Msg(fmt.Sprintf(format, v...))
}

// Server limits: an anonymous peer may hold a connection, not a handler.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
	maxConnections = 8192 // of the workload listener, so that strangers cannot take the file descriptors of the others
	maxOperators   = 256  // connections of the operators' listener
	pruneEvery     = time.Minute

	certificateEvery = 5 * time.Second // between looks for a new certificate
)

func serve(ctx context.Context, dir, dataDir string, log zerolog.Logger) error {
	k, err := kinds()
	if err != nil {
		return err
	}
	set, err := config.Load(dir, k)
	if err != nil {
		return fmt.Errorf("%s is refused:\n%w", dir, err)
	}
	if err := ownData(&set.Server, dataDir); err != nil {
		return err
	}
	svc, err := newService(ctx, dir, set, log)
	if err != nil {
		return err
	}
	svc.dataDir = dataDir
	defer svc.close()

	workload, err := listen(set.Server.Listen.Workload, "listen.workload")
	if err != nil {
		return err
	}
	defer workload.Close()
	workload = netutil.LimitListener(workload, maxConnections)
	ops, err := listen(set.Server.Listen.Ops, "listen.ops")
	if err != nil {
		return err
	}
	defer ops.Close()

	debug.FreeOSMemory() // loading left a lot behind
	collect := newCollector()
	servers := []*http.Server{newServer(svc.drain.handler(svc.workload), log)}
	servers[0].RegisterOnShutdown(svc.exchanger.CloseFeeds)
	listeners := []net.Listener{workload}
	if !set.Server.TLS.Off {
		servers[0].TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: svc.certificate}
		listeners[0] = tls.NewListener(workload, servers[0].TLSConfig)
	}
	if path := set.Server.Listen.Admin; path != "" {
		l, err := listenAdmin(path)
		if err != nil {
			return err
		}
		defer l.Close()
		s := newServer(svc.drain.handler(svc.admin), log)
		s.ConnContext = withOperator
		servers, listeners = append(servers, s), append(listeners, l)
	}
	if address := set.Server.Listen.Operators; address != "" {
		pool, err := clientAuthorities(set.Operators.ClientCAFile)
		if err != nil {
			return err
		}
		l, err := listen(address, "listen.operators")
		if err != nil {
			return err
		}
		defer l.Close()
		s := newServer(svc.drain.handler(svc.remoteAdmin()), log)
		servers, listeners = append(servers, s), append(listeners, tls.NewListener(netutil.LimitListener(l, maxOperators), svc.operatorsTLS(pool)))
	}
	servers, listeners = append(servers, newServer(svc.ops, log)), append(listeners, ops) // last: see finish
	failed := make(chan error, len(servers))
	for i, l := range listeners {
		go func() { failed <- servers[i].Serve(l) }()
	}
	defer svc.reloadOnChange(ctx, k)()
	go svc.prune(ctx, collect)
	go svc.followKeys(ctx)
	svc.follow(context.WithoutCancel(ctx)) // until close: what was accepted is finished first
	svc.tellMinted(context.WithoutCancel(ctx))
	svc.keepLeases(context.WithoutCancel(ctx))

	log.Info().Str("issuer", set.Server.Issuer).Str("workload", workload.Addr().String()).
		Str("ops", ops.Addr().String()).Str("config", set.Hash).Msg("serving")
	select {
	case err := <-failed:
		return fmt.Errorf("listener: %w", err)
	case <-ctx.Done():
	}
	err = finish(&svc.drain, servers, log)
	signal.Reset(syscall.SIGTERM, syscall.SIGINT) // from here on, a further one ends the process in the kernel's way
	err = errors.Join(err, svc.close())
	log.Info().Msg("ended")
	return err
}

func listen(addr, key string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; choose another address in sallyport.yaml or stop what uses it", key, err)
	}
	return l, nil
}

// connectionLog keeps what strangers can make net/http say (a failed handshake each) to a few lines a minute.
func connectionLog(log zerolog.Logger) zerolog.Logger {
	return log.Level(zerolog.DebugLevel).Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Minute})
}

func newServer(h http.Handler, log zerolog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          stdlog.New(connectionLog(log), "", 0),
	}
}

// isTerminal reports whether f is a character device, where a person may be looking.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
