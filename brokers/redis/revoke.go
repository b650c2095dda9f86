package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/brokers"
)

// batch is how many commands are sent before an answer is read; the server goes through its connections for each.
const batch = 500

var errForeign = errors.New("no lease has this name; what bears it is not touched")

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
	var names []string
	var places []int
	for i, h := range hs {
		if _, ok := brokers.ParseName(h.Name); !ok {
			out[i].Err = fmt.Errorf("revoking at target %s: %w", b.target, errForeign)
			continue
		}
		names, places = append(names, h.Name), append(places, i)
	}
	for i, r := range b.delete(ctx, names) {
		out[places[i]] = r
	}
	return out
}

// delete deletes users on all nodes. Deleting a user ends its connections in the same step. A result is one when every
// node has answered: a node that was not heard may go on letting the user in.
func (b *Broker) delete(ctx context.Context, names []string) []brokers.Result {
	deleted := make([][]bool, len(b.nodes)) // by node and name
	err := b.first("deleting a user", b.each(func(i int, n *redis.Client) (err error) {
		deleted[i], err = b.deleteAt(ctx, n, names)
		return err
	}), false)
	out := make([]brokers.Result, len(names))
	for j := range names {
		gone := true
		for i := range b.nodes {
			if j >= len(deleted[i]) {
				out[j].Err = err
				break
			}
			gone = gone && !deleted[i][j]
		}
		if out[j].Err == nil {
			out[j].Receipt = brokers.Receipt{State: brokers.Dead, At: b.now(), Gone: gone}
		}
	}
	return out
}

// deleteAt deletes users at one node, and returns whether each was there, for as many as are surely gone.
func (b *Broker) deleteAt(ctx context.Context, n *redis.Client, names []string) ([]bool, error) {
	var out []bool
	for part := range slices.Chunk(names, batch) {
		pipe := n.Pipeline()
		answers := make([]*redis.Cmd, len(part))
		for i, name := range part {
			answers[i] = pipe.Do(ctx, "ACL", "DELUSER", name)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return out, err
		}
		if b.save { // also when nobody was there: an earlier attempt may have failed at this
			if err := n.Do(ctx, "ACL", "SAVE").Err(); err != nil {
				return out, err
			}
		}
		for _, a := range answers {
			count, err := a.Int()
			if err != nil {
				return out, err
			}
			out = append(out, count > 0)
		}
	}
	return out, nil
}

// List implements [brokers.Lister]: what any node has. A node that does not answer is an error behind what the others have.
func (b *Broker) List(ctx context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) {
		names, err := b.list(ctx)
		for _, name := range names {
			if expires, ok := brokers.ParseName(name); ok && !yield(brokers.Handle{Name: name, Expires: expires}, nil) {
				return
			}
		}
		if err != nil {
			yield(brokers.Handle{}, err)
		}
	}
}

func (b *Broker) list(ctx context.Context) ([]string, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	found := make([][]string, len(b.nodes))
	errs := b.each(func(i int, n *redis.Client) (err error) {
		found[i], err = n.Do(ctx, "ACL", "USERS").StringSlice()
		return err
	})
	all := slices.Concat(found...)
	slices.Sort(all)
	return slices.Compact(all), b.first("listing users", errs, false)
}
