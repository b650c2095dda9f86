package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// batch is how many accounts one statement drops.
const batch = 100

// Pauses between two looks at what still ends; a session that rolls back a long transaction takes its time.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

var (
	errForeign = errors.New("no lease has this name, or an account of the name is at a host that is not written so; it is not touched")
	errEnding  = errors.New("not every session of the account has ended yet")
)

func neverSent(err error) bool { return errors.Is(err, driver.ErrBadConn) }

// Revoke implements [brokers.Revoker].
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	r := b.RevokeAll(ctx, []brokers.Handle{h})[0]
	return r.Receipt, r.Err
}

// RevokeAll implements [brokers.BulkRevoker].
func (b *Broker) RevokeAll(ctx context.Context, hs []brokers.Handle) []brokers.Result {
	ctx, cancel := within(ctx)
	defer cancel()
	out := make([]brokers.Result, len(hs))
	places := map[string][]int{} // of each name
	var names []string
	for i, h := range hs {
		if _, ok := brokers.ParseName(h.Name); !ok {
			out[i].Err = fmt.Errorf("revoking at target %s: %w", b.target, errForeign)
			continue
		}
		if places[h.Name] == nil {
			names = append(names, h.Name)
		}
		places[h.Name] = append(places[h.Name], i)
	}
	for len(names) > 0 {
		n := min(batch, len(names))
		for name, r := range b.revoke(ctx, names[:n]) {
			for _, i := range places[name] {
				out[i] = r
			}
		}
		names = names[n:]
	}
	return out
}

// revoke kills names together, and each by itself when the server refuses that: one that cannot be dropped must not keep
// the others.
func (b *Broker) revoke(ctx context.Context, names []string) map[string]brokers.Result {
	dead, err := b.kill(ctx, names)
	out := make(map[string]brokers.Result, len(names))
	for _, name := range names {
		if gone, ok := dead[name]; ok {
			out[name] = brokers.Result{Receipt: brokers.Receipt{State: brokers.Dead, At: b.now(), Gone: gone}}
		} else if len(names) > 1 && !errors.Is(err, errEnding) && !errors.Is(err, brokers.ErrUnavailable) && ctx.Err() == nil {
			out[name] = b.revoke(ctx, []string{name})[name]
		} else {
			out[name] = brokers.Result{Err: err}
		}
	}
	return out
}

// kill locks, ends and drops until it has looked and there is nothing. It returns those of names that are dead, and
// whether there was nothing of them to begin with; when some are not among them, an error says why.
func (b *Broker) kill(ctx context.Context, names []string) (dead map[string]bool, err error) {
	dead = make(map[string]bool, len(names))
	s, err := b.session(ctx)
	if err != nil {
		return dead, err
	}
	defer s.Close()
	pause, locked := firstPause, map[account]bool{}
	for first := true; ; first = false {
		found, err := s.look(ctx, names)
		if err != nil {
			return dead, b.failed("looking for an account", err, false)
		}
		names = found.left(names, func(name string) { dead[name] = first })
		if len(names) == 0 {
			return dead, nil
		}
		for _, statement := range s.end(found, names, locked) {
			if err := s.run(ctx, statement); err != nil && !numbered(err, erNoSuchThread) {
				return dead, b.failed("ending an account", err, false)
			}
		}
		if !first {
			select {
			case <-ctx.Done():
				return dead, fmt.Errorf("revoking at target %s: %w", b.target, errEnding)
			case <-time.After(pause):
				pause = min(2*pause, lastPause)
			}
		}
	}
}

// sight is what stands at the server of some names.
type sight struct {
	accounts map[string][]account
	roles    map[string]bool // of leases, see [dialect.mint]
	threads  map[string][]thread
}

// look asks the server.
func (s session) look(ctx context.Context, names []string) (sight, error) {
	out := sight{map[string][]account{}, map[string]bool{}, map[string][]thread{}}
	var name, host, isRole string
	err := s.each(ctx, s.accountsOf(names), []any{&name, &host, &isRole}, func() error {
		if isRole == "Y" {
			out.roles[name] = true
			return nil
		}
		a, err := newAccount(name, host)
		out.accounts[name] = append(out.accounts[name], a)
		return err
	})
	if err != nil {
		return sight{}, err
	}
	var id uint64
	var user, statement string
	err = s.each(ctx, s.sessionsOf(names), []any{&id, &user, &statement}, func() error {
		for _, n := range names {
			if user == n {
				out.threads[n] = append(out.threads[n], thread{id, n})
			} else if strings.Contains(statement, n) {
				out.threads[n] = append(out.threads[n], thread{id, ""})
			}
		}
		return nil
	})
	return out, err
}

// each runs a query and scans every row into fields.
func (s session) each(ctx context.Context, query string, fields []any, row func() error) error {
	rows, err := s.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(fields...); err != nil {
			return errors.New("the server answers with columns of another kind")
		}
		if err := row(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// left returns the names of which there is something, and tells of the others.
func (f sight) left(names []string, nothing func(string)) []string {
	var out []string
	for _, n := range names {
		if len(f.accounts[n])+len(f.threads[n]) > 0 || f.roles[n] {
			out = append(out, n)
		} else {
			nothing(n)
		}
	}
	return out
}

// end lists the statements that bring names nearer to their end: no login, no session, no account, in this order. A
// session that opens before the lock is seen at the next look, also when its account is dropped by then. Each account is
// locked once.
func (d dialect) end(f sight, names []string, locked map[account]bool) []string {
	var lock, drop, kill, roles []string
	for _, n := range names {
		var accounts []string
		for _, a := range f.accounts[n] {
			accounts = append(accounts, a.String())
			if !locked[a] {
				locked[a] = true
				lock = append(lock, a.String())
			}
		}
		killed := map[string]bool{}
		for _, t := range f.threads[n] {
			if k := d.kill(t); !killed[k] {
				killed[k] = true
				kill = append(kill, k)
			}
		}
		if len(f.threads[n]) > 0 {
			continue // dropped when they are gone
		}
		drop = append(drop, accounts...)
		if f.roles[n] {
			roles = append(roles, quote(role(n)))
		}
	}
	var out []string
	add := func(what []string, before, after string) {
		if len(what) > 0 {
			out = append(out, before+strings.Join(what, ", ")+after)
		}
	}
	add(lock, "ALTER USER IF EXISTS ", " ACCOUNT LOCK")
	out = append(out, kill...)
	add(drop, "DROP USER IF EXISTS ", "")
	add(roles, "DROP ROLE IF EXISTS ", "")
	return out
}

// List implements [brokers.Lister].
func (b *Broker) List(ctx context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) {
		names, err := b.list(ctx)
		if err != nil {
			yield(brokers.Handle{}, err)
			return
		}
		for _, name := range names {
			if expires, ok := brokers.ParseName(name); ok && !yield(brokers.Handle{Name: name, Expires: expires}, nil) {
				return
			}
		}
	}
}

// list collects before anything is done with a name: who lists revokes, and needs a connection for it.
func (b *Broker) list(ctx context.Context) ([]string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	s, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var out []string
	var name string
	for _, query := range s.all() {
		if err := s.each(ctx, query, []any{&name}, func() error { out = append(out, name); return nil }); err != nil {
			return nil, b.failed("listing accounts", err, false)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
