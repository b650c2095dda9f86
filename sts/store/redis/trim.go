package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// long is how long an entry has to live for others not to wait for its end: it is appended again, and keeps its place.
const long = 30 * time.Hour

const againTries = 32

// again appends entries that stand before what is trimmed, and returns nil when the stream has all of them anew. An offer that is not
// taken whole, because another replica was faster, is forgotten: whoever catches up finds in the stream what is to be trimmed, and would
// not offer it again.
func (r *Replica) again(ctx context.Context, entries []revocation.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	select {
	case <-r.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { r.turn <- struct{}{} }()
	for range againTries {
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		r.dropped, r.offer = false, append(r.offer, entries...)
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		if !r.dropped {
			return nil
		}
	}
	return errors.New("other replicas append all the time")
}

// Prune implements [revocation.Shared]: it trims the oldest entries that have expired. Those between them that live for
// long are appended again first.
func (r *Replica) Prune(ctx context.Context, now time.Time) error {
	if !r.ever.Load() || r.Fresh() != nil {
		return nil
	}
	for {
		v, err := r.look(ctx, "-", page)
		if err != nil {
			return err
		}
		at, end := v.floor, v.floor // end is behind the last one that has expired
		var kept, carried []revocation.Entry
		for _, m := range v.entries {
			after, e, err := next(r.mac, at, m)
			if err != nil {
				return err
			}
			if now.After(e.Until) {
				end, carried = after, kept
			} else if e.Until.Sub(now) < long {
				break
			} else {
				kept = append(kept, e)
			}
			at = after
		}
		if at = end; at.n == v.floor.n {
			return nil
		}
		if err := r.again(ctx, carried); err != nil {
			return err
		}
		keep := mark{epoch: at.epoch, n: at.n + 1}
		err = r.run(ctx, trim, strconv.FormatUint(v.floor.n, 10), strconv.FormatUint(at.n, 10), at.mac, floorMAC(r.mac, at.n, at.mac), keep.id()).Err()
		if err != nil || at.n-v.floor.n < page {
			return err
		}
	}
}
