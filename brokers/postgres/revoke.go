package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
)

const (
	bulk   = 200 // roles in one message: each takes locks, and the server has some thousands
	rounds = 3   // of handing over and dropping, when something came in between
)

// Revoke implements [brokers.Revoker].
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	r := b.revoke(ctx, []brokers.Handle{h})[0]
	return r.Receipt, r.Err
}

// RevokeAll implements [brokers.BulkRevoker].
func (b *Broker) RevokeAll(ctx context.Context, hs []brokers.Handle) []brokers.Result {
	out := make([]brokers.Result, 0, len(hs))
	for part := range slices.Chunk(hs, bulk) {
		out = append(out, b.revoke(ctx, part)...)
	}
	return out
}

// doomed is a role on its way out.
type doomed struct {
	name    string
	oid     uint32 // 0: it was never seen
	gone    bool   // there was none
	dropped bool
	ties    []tie    // what holds it up
	heirs   []string // who has got what it owned
	err     error    // why it goes no further now
}

// standing are those that there is something left to do for.
func standing(ds []*doomed) []*doomed {
	return keep(ds, func(d *doomed) bool { return !d.gone && !d.dropped && d.err == nil })
}

// missing are those of whom there is no role.
func missing(ds []*doomed) []*doomed {
	return keep(ds, func(d *doomed) bool { return d.gone && d.err == nil })
}

// past are those whose name is gone, and whose sessions may not be.
func past(ds []*doomed) []*doomed {
	return keep(ds, func(d *doomed) bool { return (d.gone || d.dropped) && d.oid != 0 && d.err == nil })
}

func keep(ds []*doomed, ok func(*doomed) bool) []*doomed {
	return slices.DeleteFunc(slices.Clone(ds), func(d *doomed) bool { return !ok(d) })
}

func (b *Broker) revoke(ctx context.Context, hs []brokers.Handle) []brokers.Result {
	byName := map[string]*doomed{}
	for _, h := range hs {
		d := byName[h.Name]
		if d == nil {
			d = &doomed{name: h.Name}
			byName[h.Name] = d
		}
		if _, ok := brokers.ParseName(h.Name); !ok { // somebody else's
			d.err = fmt.Errorf("%w: that is no name of a lease", brokers.ErrMisconfigured)
		}
		if oid, err := strconv.ParseUint(h.Data.Reveal(), 10, 32); err == nil {
			d.oid = uint32(oid)
		}
	}
	ds := make([]*doomed, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) { // everybody's order, so that nobody waits in a circle
		ds = append(ds, byName[name])
	}
	err := b.kill(ctx, ds)
	out, at := make([]brokers.Result, len(hs)), b.now()
	for i, h := range hs {
		d := byName[h.Name]
		if why := cmp.Or(d.err, err); why != nil {
			out[i].Err = fault(fmt.Sprintf("dropping role %.40q of target %s", d.name, b.target), why)
			continue
		}
		out[i].Receipt = brokers.Receipt{State: brokers.Dead, At: at, Gone: d.gone}
		if len(d.heirs) > 0 {
			out[i].Receipt.Reason = fmt.Sprintf("what it had made stays, and belongs to %q now", d.heirs)
		}
	}
	return out
}

// kill takes the steps in the only order that leaves no gap: nobody new gets in, who is in is gone, nothing of the role
// is left, and only then its name.
func (b *Broker) kill(ctx context.Context, ds []*doomed) error {
	if err := b.steps(ctx, ds, standing, seek); err != nil {
		return err
	}
	if err := b.steps(ctx, ds, missing, seekAgain); err != nil {
		return err
	}
	if err := b.steps(ctx, ds, standing, lockOut, hangUpAll, findTies); err != nil {
		return err
	}
	for round := 1; ; round++ {
		b.untie(ctx, standing(ds))
		if err := b.steps(ctx, ds, standing, dropAll); err != nil {
			return err
		}
		if round == rounds || !revive(ds) {
			return b.steps(ctx, ds, past, hangUpAll)
		}
		if err := b.steps(ctx, ds, standing, findTies); err != nil {
			return err
		}
	}
}

// revive lets those go on that something has come to depend on since they were looked at, and reports whether there are any.
func revive(ds []*doomed) bool {
	any := false
	for _, d := range ds {
		if code(d.err) == codeDependent {
			d.err, any = nil, true
		}
	}
	return any
}

// step does one thing to all of some roles, or fails.
type step func(context.Context, *conn, []*doomed) error

// steps takes steps from the database of the dsn, each with those that whom picks by then.
func (b *Broker) steps(ctx context.Context, ds []*doomed, whom func([]*doomed) []*doomed, steps ...step) error {
	if len(whom(ds)) == 0 {
		return nil
	}
	take := func(ctx context.Context, c *conn) error {
		for _, s := range steps {
			if err := together(ctx, c, whom(ds), s); err != nil {
				return err
			}
		}
		return nil
	}
	err := b.conns.with(ctx, homeBase, take)
	if lost(err) && ctx.Err() == nil { // a connection that was kept had broken; every step can be taken again
		err = b.conns.with(ctx, homeBase, take)
	}
	return err
}

// together takes a step for all at once and, when the server refuses that, for each alone, so that one bad role does
// not hold up the others. It fails when nobody knows what came of it.
func together(ctx context.Context, c *conn, ds []*doomed, s step) error {
	if len(ds) == 0 {
		return nil
	}
	err := s(ctx, c, ds)
	if err == nil || lost(err) {
		return err
	}
	if len(ds) == 1 && !passing(err) {
		ds[0].err = err
		return nil
	}
	if len(ds) > 1 { // who waits for a lock has had its chance
		if _, err := c.Exec(ctx, "SET lock_timeout = "+literal(lockTimeoutAlone)); err != nil {
			return err
		}
		defer func() { c.stale = true }()
	}
	ds = slices.Clone(ds)
	rand.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] }) // when time runs out, others are left than the last time
	for _, d := range ds {
		if err := alone(ctx, c, d, s); err != nil {
			if lost(err) {
				return err
			}
			d.err = err
		}
	}
	return nil
}

// alone takes a step for one, several times if what stands in the way passes.
func alone(ctx context.Context, c *conn, d *doomed, s step) error {
	for try := 1; ; try++ {
		err := s(ctx, c, []*doomed{d})
		if !passing(err) || try == tries {
			return err
		}
	}
}

// seek finds out who is there.
func seek(ctx context.Context, c *conn, ds []*doomed) error {
	rs, err := c.PgConn().Exec(ctx, find(ds)).ReadAll()
	if err != nil {
		return err
	}
	found := map[string]uint32{}
	for _, row := range rs[0].Rows {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return err
		}
		found[string(row[1])] = uint32(oid)
	}
	for _, d := range ds {
		oid, ok := found[d.name]
		if ok {
			d.oid = oid
		}
		d.gone = !ok
	}
	return nil
}

// seekAgain makes sure that who is not there will not be there in a moment.
func seekAgain(ctx context.Context, c *conn, ds []*doomed) error {
	err := forEach(ctx, c, ds, absent)
	if duplicate(err) && len(ds) == 1 { // made just now
		return seek(ctx, c, ds)
	}
	return err
}

// lockOut lets nobody in any more. It is committed before anybody is looked for. Who is in can keep its own role locked,
// as by changing its password in a transaction that it does not end: then it is out first, with us next in line.
func lockOut(ctx context.Context, c *conn, ds []*doomed) error {
	err := forEach(ctx, c, ds, noLogin)
	if len(ds) > 1 {
		return err
	}
	switch code(err) {
	case codeUndefined: // somebody else was faster
		ds[0].gone, err = true, nil
	case codeLocked:
		_, err = c.PgConn().Exec(ctx, hangUp(ds)+";"+noLogin(ident(ds[0].name))).ReadAll()
	}
	return err
}

func dropAll(ctx context.Context, c *conn, ds []*doomed) error {
	if err := forEach(ctx, c, ds, drop); err != nil {
		return err
	}
	for _, d := range ds {
		d.dropped = true
	}
	return nil
}

// forEach runs a statement for each role, in one message and one transaction.
func forEach(ctx context.Context, c *conn, ds []*doomed, statement func(role string) string) error {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString(statement(ident(d.name)))
	}
	_, err := c.PgConn().Exec(ctx, b.String()).ReadAll()
	return err
}
