package main

import (
	"context"
	"errors"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

const (
	// drainTime is how long connections are still accepted after SIGTERM, while /readyz says so and every answer ends
	// its connection. Callers that are at it thereby leave between two requests; closing their idle connections
	// right away would meet some while they send.
	drainTime = 500 * time.Millisecond
	// shutdownTimeout is how long what was accepted may take after that: as long as any request.
	shutdownTimeout = requestTimeout
)

var (
	errShuttingDown = errors.New("shutting down")
	errHurried      = errors.New("ended at a second signal: not everything that was accepted was finished")
)

// drain says whether the service is about to end.
type drain struct{ begun atomic.Bool }

// check is the reason in /readyz.
func (d *drain) check() error {
	if d.begun.Load() {
		return errShuttingDown
	}
	return nil
}

// handler ends the connection with each answer once the service is about to end.
func (d *drain) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// finish lets what was accepted end, in the order of servers: the one that answers /readyz last. A second signal, or a
// request that takes too long, cuts what is left.
func finish(d *drain, servers []*http.Server, log zerolog.Logger) error {
	hurry, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.Info().Msg("finishing what was accepted")
	d.begun.Store(true)
	select {
	case <-time.After(drainTime):
	case <-hurry.Done():
	}
	grace, cancel := context.WithTimeout(hurry, shutdownTimeout)
	defer cancel()
	var errs []error
	for _, s := range servers {
		if err := s.Shutdown(grace); err != nil {
			errs = append(errs, err, s.Close())
		}
	}
	if hurry.Err() != nil {
		return errHurried
	}
	return errors.Join(errs...)
}
