package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-sts/sallyport/brokers"
)

// tie is something in a database that holds up the drop of a role.
type tie struct {
	database string // homeBase for that of the dsn, and for what is in none
	owns     bool   // objects that somebody else must get
	prepared string // a transaction that waits for its second phase, and keeps locks until then; "" for none
}

// findTies asks for what holds up each role, wherever it is.
func findTies(ctx context.Context, c *conn, ds []*doomed) error {
	byOID, oids := map[uint32]*doomed{}, make([]uint32, len(ds))
	for i, d := range ds {
		d.ties = nil
		byOID[d.oid], oids[i] = d, d.oid
	}
	rows, err := c.Query(ctx, ties, oids)
	if err != nil {
		return err
	}
	var oid uint32
	var t tie
	_, err = pgx.ForEachRow(rows, []any{&oid, &t.database, &t.owns, &t.prepared}, func() error {
		if d := byOID[oid]; d != nil {
			d.ties = append(d.ties, t)
		}
		return nil
	})
	return err
}

// untie goes to each database in which one of the roles is held up, and to no other.
func (b *Broker) untie(ctx context.Context, ds []*doomed) {
	held := map[string][]*doomed{}
	for _, d := range ds {
		for _, t := range d.ties {
			if !slices.Contains(held[t.database], d) {
				held[t.database] = append(held[t.database], d)
			}
		}
	}
	for _, database := range slices.Sorted(maps.Keys(held)) {
		err := b.conns.with(ctx, database, func(ctx context.Context, c *conn) error {
			for _, d := range held[database] {
				if d.err != nil {
					continue
				}
				if d.err = b.loosen(ctx, c, d, database); lost(d.err) {
					return d.err
				}
			}
			return nil
		})
		for _, d := range held[database] {
			if d.err == nil {
				d.err = err
			}
		}
	}
}

// loosen removes what holds up one role in the database of a connection.
func (b *Broker) loosen(ctx context.Context, c *conn, d *doomed, database string) error {
	role, owns := ident(d.name), false
	for _, t := range d.ties {
		if t.database != database {
			continue
		}
		owns = owns || t.owns
		if t.prepared == "" {
			continue
		}
		// As with a session that is ended, what it has not committed is undone. Only who prepared it may do that.
		c.stale = true // while it is somebody else
		for _, s := range []string{join(role), "SET ROLE " + role, "ROLLBACK PREPARED " + literal(t.prepared), "RESET ROLE"} {
			if _, err := c.PgConn().Exec(ctx, s).ReadAll(); err != nil && code(err) != codeUndefined {
				return err
			}
		}
	}
	candidates := []string{""}
	if owns {
		rows, err := c.Query(ctx, heirs, d.oid, b.settings.Owner)
		if err != nil {
			return err
		}
		if candidates, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
	}
	err := fmt.Errorf("%w: it owns objects and is a member of no role that could have them", brokers.ErrMisconfigured)
	for _, heir := range candidates {
		if _, err = c.PgConn().Exec(ctx, handOver(role, heir)).ReadAll(); err == nil && heir != "" && !slices.Contains(d.heirs, heir) {
			d.heirs = append(d.heirs, heir)
		}
		if code(err) != codeForbidden {
			break
		}
	}
	return err
}
