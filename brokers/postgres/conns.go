package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
)

const (
	useLimit  = 10 * time.Second // for one use of a connection, when the caller has more time
	quietFor  = time.Second      // after which a connection is asked whether it still stands, before it is relied on
	maxAge    = 15 * time.Minute // so that a changed password, or roles that have changed, are noticed
	farewell  = 500 * time.Millisecond
	homeBase  = "" // the database of the dsn, for [conns.with]
	noAnswer  = "no answer in time"
	allInUse  = "every connection is in use (max_connections)"
	closedNow = "the target has gone out of use"
)

// conns lends the admin's connections, few and lazily made, each to one user at a time. Those to the database of the dsn
// are kept. It is safe for concurrent use.
type conns struct {
	config func() (*pgx.ConnConfig, error) // reads the dsn anew
	now    func() time.Time
	slots  chan struct{} // one for each connection that may be open

	mu     sync.Mutex
	idle   []*conn // used last, taken first
	closed bool
}

type conn struct {
	*pgx.Conn
	born, used time.Time
	vetted     bool // the roles of the scopes are what they may be
	stale      bool // it is no more as it began, and is not kept
}

func newConns(most int, now func() time.Time, config func() (*pgx.ConnConfig, error)) *conns {
	return &conns{config: config, now: now, slots: make(chan struct{}, most)}
}

// with lends a connection to a database for one use. Its own errors wrap those of brokers, and then nothing was sent;
// those of use are returned as they are, and end the connection.
func (p *conns) with(ctx context.Context, database string, use func(context.Context, *conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, useLimit)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %s", brokers.ErrUnavailable, allInUse)
	}
	defer func() { <-p.slots }()
	c, err := p.take(ctx, database)
	if err != nil {
		return err
	}
	err = use(ctx, c)
	p.giveBack(c, err == nil && database == homeBase && !c.stale)
	if lost(err) {
		p.forget() // the others have most likely broken with it
	}
	return err
}

// take returns a connection that stands.
func (p *conns) take(ctx context.Context, database string) (*conn, error) {
	for database == homeBase {
		c := p.pop()
		if c == nil {
			break
		}
		now := p.now()
		if now.Sub(c.born) > maxAge || now.Sub(c.used) > quietFor && c.PgConn().Ping(ctx) != nil {
			p.giveBack(c, false)
			continue
		}
		return c, nil
	}
	return p.connect(ctx, database)
}

func (p *conns) connect(ctx context.Context, database string) (*conn, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("%w: %s", brokers.ErrUnavailable, closedNow)
	}
	config, err := p.config()
	if err != nil {
		return nil, fmt.Errorf("%w: dsn: %w", brokers.ErrMisconfigured, err)
	}
	if database != homeBase {
		config.Database = database
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fault("connecting to the server", err)
	}
	now := p.now()
	return &conn{Conn: c, born: now, used: now}, nil
}

func (p *conns) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c
}

func (p *conns) giveBack(c *conn, keep bool) {
	if keep && !c.IsClosed() {
		c.used = p.now()
		p.mu.Lock()
		if !p.closed {
			p.idle = append(p.idle, c)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
	end(c)
}

func end(c *conn) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = c.Close(ctx)
}

// Close ends the connections that nobody uses; the others end when they are given back.
func (p *conns) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.forget()
	return nil
}

// forget ends the connections that nobody uses.
func (p *conns) forget() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		end(c)
	}
}
