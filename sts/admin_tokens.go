package sts

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// AdminTokens is what of the tokens minted by this replica matches and has not expired.
type AdminTokens struct {
	Living    int            `json:"living"`           // those that are dead already too
	Workloads map[string]int `json:"workloads"`        // tokens by workload, the hundred with the most
	Targets   map[string]int `json:"targets"`          // tokens by target
	Rules     map[string]int `json:"rules"`            // tokens by the rule that granted them
	Others    bool           `json:"others,omitempty"` // there are other replicas: what they minted, and what came of that here, is not counted
}

// wouldDie is a dry run: what a revocation of sel would kill now.
func (x *Exchanger) wouldDie(ctx context.Context, sel revocation.Selector, ask AdminRevocation, scan scan) (AdminRevoked, error) {
	out := AdminRevoked{Action: "revoke", Selector: sel, Before: ask.Before, Counts: map[string]int{}, Warnings: x.strange(sel), Confined: ask.confined}
	if ask.Lock {
		out.Action = "lock"
	}
	if x.leases != nil {
		err := x.leases.Store.Each(ctx, func(l lease.Lease) error {
			if FactsOf(x.revocations.Hasher(), l).MatchesBefore(x.revocations.Hasher(), sel, ask.Before) {
				out.Counts[string(l.State)]++
				if len(out.Receipts) < maxReceipts {
					out.Receipts = append(out.Receipts, AdminReceipt{Lease: l.ID, Target: l.Target, Workload: l.Workload, State: string(l.State), At: l.Expires, Reason: l.Stays})
				}
			}
			return nil
		})
		if err != nil { // whoever responds sees the rest
			out.Incomplete = true
			out.Warnings = append(out.Warnings, "what lives outside is not shown, because the ledger of leases cannot be read: ask again when the store is back. A revocation can be made meanwhile")
		}
	}
	if sel.Value(revocation.KeySigningKey) != "" {
		out.Warnings = append(out.Warnings, "which tokens a key of ours signed is not in the log: it is all that were signed with it, of every target and domain, those with which resource servers introspect too")
		return out, nil
	}
	tokens, err := x.tokens(ctx, sel, ask.Before, scan)
	out.Tokens = &tokens
	if err == nil && out.nothing() {
		out.Warnings = append(out.Warnings, nothingLives)
	}
	return out, err
}

// tokens counts what this replica minted, matches, and has not expired. A record says what its exchange can be selected by,
// and which leases it descends from: a token dies with each of them.
func (x *Exchanger) tokens(ctx context.Context, sel revocation.Selector, before time.Time, scan scan) (AdminTokens, error) {
	out := AdminTokens{Workloads: map[string]int{}, Targets: map[string]int{}, Rules: map[string]int{}, Others: x.revocations.IsShared()}
	now, matched := x.now(), map[string]bool{}
	err := scan(now.Add(-longestLife), func(r audit.Record) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.Type != audit.TypeExchange || r.Outcome != audit.Issued || r.Lease == nil || r.Granted == nil || r.Subject == nil {
			return nil
		}
		hit := recordMatches(r, sel) && (before.IsZero() || !r.Time.After(before) || len(r.Lease.Ancestors) == 0 && !r.Subject.IssuedAt.After(before)) || slices.ContainsFunc(r.Lease.Ancestors, func(a string) bool { return matched[a] })
		if !hit {
			return nil
		}
		matched[r.Lease.ID] = true
		if r.Lease.Kind != accessToken || !now.Before(r.Lease.Expires) {
			return nil
		}
		out.Living++
		out.Workloads[r.Subject.Workload]++
		out.Targets[r.Granted.Target]++
		out.Rules[r.Granted.Rule]++
		return nil
	})
	most := func(m map[string]int) map[string]int {
		if len(m) <= maxReceipts {
			return m
		}
		names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(m[b]-m[a], strings.Compare(a, b)) })
		cut := map[string]int{}
		for _, n := range names[:maxReceipts] {
			cut[n] = m[n]
		}
		return cut
	}
	out.Workloads = most(out.Workloads)
	return out, err
}

// accessToken is the kind of what we mint ourselves.
const accessToken = "urn:ietf:params:oauth:token-type:access_token"

// recordMatches reports whether all terms hold of the exchange that a record is of, without its ancestors.
func recordMatches(r audit.Record, sel revocation.Selector) bool {
	return slices.ContainsFunc([]*audit.Subject{r.Subject, r.Actor}, func(s *audit.Subject) bool {
		if s == nil {
			return false
		}
		for _, term := range sel {
			key, value, _ := strings.Cut(term, "=")
			if !recordHas(r, s, key, value) {
				return false
			}
		}
		return true
	})
}

func recordHas(r audit.Record, s *audit.Subject, key, value string) bool {
	issuer := s.TrustDomain + "/" + s.Issuer
	switch key {
	case revocation.KeyLease:
		return r.Lease.ID == value || slices.Contains(r.Lease.Ancestors, value)
	case revocation.KeyFamily:
		return r.Lease.Family == value
	case revocation.KeyToken:
		return s.Fingerprint == value || r.Lease.Fingerprint == value
	case revocation.KeyJTI:
		return s.Iss+"/"+s.TokenID == value
	case revocation.KeySubject:
		return s.Workload == value
	case revocation.KeyActor:
		return slices.Contains(r.Lease.Actors, value)
	case revocation.KeyIssuer:
		return issuer == value
	case revocation.KeyKey:
		return issuer+"/"+s.KeyID == value
	case revocation.KeyTrustDomain:
		return s.TrustDomain == value
	case revocation.KeyTarget:
		return r.Granted.Target == value
	case revocation.KeyRule:
		return r.Granted.Rule == value
	case revocation.KeyPolicy:
		return r.Config == value
	}
	name, ok := strings.CutPrefix(key, "attr.")
	have, there := s.Attributes[name]
	return ok && there && (have == value || slices.Contains(strings.Fields(have), value))
}
