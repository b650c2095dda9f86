package aws

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// Reasons of receipts.
const (
	reasonAlive      = "AWS takes no session back, and the target has no revoker. An administrator ends it before by a deny on aws:PrincipalTag/" + tagSession + "; roles that were chained from it are not covered. What it made stays: look in CloudTrail for its source identity"
	reasonHandedOver = "whoever has it exchanges it at AWS for sessions that nobody here knows of, which live as long as the role allows, twelve hours at most"
	reasonStore      = "the store takes no session back; an administrator ends it before by taking the policy away"
)

// Revoke implements [brokers.Revoker].
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	r := b.RevokeAll(ctx, []brokers.Handle{h})[0]
	return r.Receipt, r.Err
}

// RevokeAll implements [brokers.BulkRevoker]. It promises no death: AWS takes no session back, but refuses what a denied one asks, as
// soon as the denial is everywhere.
func (b *Broker) RevokeAll(ctx context.Context, hs []brokers.Handle) []brokers.Result {
	out := make([]brokers.Result, len(hs))
	now := b.deps.Now()
	var alive []int
	for i, h := range hs {
		switch {
		case b.settings.HandOver:
			out[i].Receipt = upstream.DiesAt(h, h.Expires.Add(longestLife), reasonHandedOver, now)
		case !h.Expires.IsZero() && !h.Expires.After(now):
			out[i].Receipt = brokers.Receipt{State: brokers.Dead, At: now, Gone: true}
		case b.settings.Compatible:
			out[i].Receipt = brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: reasonStore}
		case b.iam == nil:
			out[i].Receipt = brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: reasonAlive}
		default:
			alive = append(alive, i)
		}
	}
	if len(alive) == 0 {
		return out
	}
	returned := func(at int) bool { return hs[at].Returned }
	slices.SortStableFunc(alive, func(i, j int) int { // what its holder gave back comes after what is wanted dead
		switch {
		case returned(i) == returned(j):
			return 0
		case returned(i):
			return 1
		}
		return -1
	})
	d, err := b.denier(ctx, now)
	for len(alive) > 0 {
		batch := alive[:min(len(alive), maxBatch)]
		if i := slices.IndexFunc(batch, func(at int) bool { return returned(at) != returned(batch[0]) }); i > 0 {
			batch = batch[:i]
		}
		alive = alive[len(batch):]
		names := make([]string, len(batch))
		for i, at := range batch {
			names[i] = hs[at].Name
		}
		var done denied
		if err == nil {
			done, err = d.deny(ctx, names, returned(batch[0]))
		}
		for _, at := range batch {
			if err != nil {
				out[at].Err = err
			} else {
				out[at].Receipt = brokers.Receipt{State: brokers.DiesAt, At: hs[at].Expires, Reason: done.reason, Again: done.again}
			}
		}
	}
	return out
}

// reasonDenied says what a denial is worth.
func (b *Broker) reasonDenied(policy string, now time.Time) string {
	return fmt.Sprintf("denied on the role %s by its inline policy %s, written %s: AWS promises no time until that is everywhere, and it takes seconds as a rule; roles that were chained from it are not covered. What it made stays: look in CloudTrail for its source identity",
		b.role.name, policy, now.UTC().Format(time.RFC3339))
}

// reasonReturned says why what its holder gave back is not denied.
func (b *Broker) reasonReturned() string {
	return fmt.Sprintf("not denied yet: holders gave back more sessions of the role %s than they have room for, and the rest is for operators; it is tried again, and an operator's revocation of it is not held back", b.role.name)
}

// reasonFull asks for what is never done unasked: to end everybody's sessions of the role.
func (b *Broker) reasonFull(now time.Time) string {
	return fmt.Sprintf("not denied: the inline policies of the role %s are full; it is tried again when some have ended. This ends every session of the role until now, also those of others, and is yours to decide: aws iam put-role-policy --role-name %s --policy-name %sall --policy-document '%s'",
		b.role.name, b.role.name, policyPrefix, strings.ReplaceAll(denyAll, "TIME", now.UTC().Format(time.RFC3339)))
}

const denyAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"TIME"}}}]}`
