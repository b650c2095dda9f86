package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

const (
	patience = 2 * time.Second // for sessions to end; a process that is stuck is left for later, and the others go on
	maxPause = 50 * time.Millisecond
)

// hangUpAll ends the sessions of roles and waits until they are gone, with those that were at the door when the role was
// locked out. Roles of which one is left wait for another attempt.
func hangUpAll(ctx context.Context, c *conn, ds []*doomed) error {
	statement := look(ds)
	var door map[string]bool // processes that may turn out to be sessions of these roles
	pause, late := time.Millisecond, time.After(patience)
	for {
		rs, err := c.PgConn().Exec(ctx, statement).ReadAll()
		if err != nil {
			return err
		}
		entering, left := map[string]bool{}, map[uint32]bool{}
		for _, row := range rs[0].Rows {
			entering[string(row[0])] = true
		}
		for _, row := range rs[1].Rows {
			delete(entering, string(row[0])) // is a session
			oid, err := strconv.ParseUint(string(row[1]), 10, 32)
			if err != nil {
				return err
			}
			if oid != 0 {
				left[uint32(oid)] = true
			}
		}
		if door == nil {
			door = entering // who comes later finds the role locked
		}
		for pid := range door {
			if !entering[pid] {
				delete(door, pid)
			}
		}
		if len(left) == 0 && len(door) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			for _, d := range ds {
				switch {
				case left[d.oid]:
					d.err = fmt.Errorf("%w: a session of it does not end", brokers.ErrUnavailable)
				case len(door) > 0:
					d.err = fmt.Errorf("%w: logins hang, and one may be of it", brokers.ErrUnavailable)
				}
			}
			return nil
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}
