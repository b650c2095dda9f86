package lease

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Bounds of one attempt.
const (
	oneByOne       = 4                // at once, where a broker kills one by one
	attemptTimeout = 10 * time.Second // for one lease, or one batch where the broker takes many
)

// Faults of an attempt that are ours.
var (
	errNoBroker  = errors.New("the target is not configured any more; put it back until its leases are dead")
	errNoReceipt = errors.New("the broker returned neither a receipt nor an error")
	errUntried   = errors.New("not tried: the target did not answer for another lease")
	errPanic     = errors.New("the broker panicked")
)

// attempt asks the broker to kill. Results are in the order of the list; each without an error has a receipt.
func (k *Keeper) attempt(ctx context.Context, target string, list []Lease) []brokers.Result {
	b, ok := k.Brokers(target)
	if !ok {
		return failed(len(list), errNoBroker)
	}
	handles := make([]brokers.Handle, len(list))
	for i, l := range list {
		data, err := k.Seal.open(l.ID, l.Handle)
		if err != nil { // it is tried by its name alone
			k.Log.Error().Err(err).Str("lease", l.ID).Str("target", target).Msg("killing a credential by its name alone")
		}
		handles[i] = brokers.Handle{Lease: l.ID, Name: l.Name, Expires: l.Expires, Data: data, Returned: l.Returned}
	}
	var results []brokers.Result
	if bulk, ok := b.(brokers.BulkRevoker); ok {
		results = k.revokeAll(ctx, target, bulk, handles)
	} else {
		results = k.revokeEach(ctx, target, b, handles)
	}
	for i, r := range results {
		if r.Err == nil && (r.Receipt.State < brokers.Dead || r.Receipt.State > brokers.Stays) {
			results[i].Err = errNoReceipt
		}
	}
	return results
}

func failed(n int, err error) []brokers.Result {
	out := make([]brokers.Result, n)
	for i := range out {
		out[i].Err = err
	}
	return out
}

func (k *Keeper) revokeAll(ctx context.Context, target string, b brokers.BulkRevoker, handles []brokers.Handle) (out []brokers.Result) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			out = failed(len(handles), k.panicked(target, p))
		}
	}()
	if out = b.RevokeAll(ctx, handles); len(out) != len(handles) {
		return failed(len(handles), errNoReceipt)
	}
	return out
}

// revokeEach kills one by one. One that takes its whole time stands for all that have not begun.
func (k *Keeper) revokeEach(ctx context.Context, target string, b brokers.Revoker, handles []brokers.Handle) []brokers.Result {
	results := make([]brokers.Result, len(handles))
	var all sync.WaitGroup
	var silent atomic.Bool
	slots := make(chan struct{}, oneByOne)
	for i, h := range handles {
		slots <- struct{}{}
		if silent.Load() || ctx.Err() != nil {
			results[i].Err = errUntried
			<-slots
			continue
		}
		all.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
			defer cancel()
			results[i] = k.revoke(ctx, target, b, h)
			if ctx.Err() != nil {
				silent.Store(true)
			}
		})
	}
	all.Wait()
	return results
}

func (k *Keeper) revoke(ctx context.Context, target string, b brokers.Revoker, h brokers.Handle) (out brokers.Result) {
	defer func() {
		if p := recover(); p != nil {
			out = brokers.Result{Err: k.panicked(target, p)}
		}
	}()
	r, err := b.Revoke(ctx, h)
	return brokers.Result{Receipt: r, Err: err}
}

// panicked keeps a broker's fault from ending the process, and with it the killing for every other target. The value is not
// told: it may hold a secret.
func (k *Keeper) panicked(target string, value any) error {
	k.Log.Error().Str("target", target).Str("type", fmt.Sprintf("%T", value)).Bytes("stack", debug.Stack()).Msg("a broker panicked")
	return errPanic
}

// maxFault is how much of an error is kept, in bytes.
const maxFault = 256

func faultOf(err error) string {
	s := err.Error()
	if len(s) > maxFault {
		s = s[:maxFault]
	}
	return s
}
