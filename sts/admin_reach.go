package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// AdminAsked is the body of POST /admin/v1/reach: a selector, or a token.
type AdminAsked struct {
	Selector []string `json:"selector,omitempty"`
	Token    string   `json:"token,omitempty"` // verified, and neither kept nor recorded
}

// AdminReach is its answer: what could be obtained now. It is about what passes through here; what the platform's credential
// opens by itself is not known.
type AdminReach struct {
	Workload string           `json:"workload,omitempty"` // of a token
	Native   string           `json:"native"`             // always "unknown"
	Reach    []AdminReachable `json:"reach"`
	Warnings []string         `json:"warnings,omitempty"` // names in the selector that the configuration in force does not have
}

// AdminReachable is what one rule would grant.
type AdminReachable struct {
	Rule     string   `json:"rule"`
	Source   string   `json:"source"`
	Target   string   `json:"target"`
	Scopes   []string `json:"scopes,omitempty"`
	Lifetime int64    `json:"lifetime_seconds"` // at most
	From     []string `json:"exchange_from,omitempty"`
	Needs    []string `json:"needs,omitempty"`  // what else has to hold
	Unless   []string `json:"unless,omitempty"` // deny rules that may match
	Locked   string   `json:"locked,omitempty"` // by this lock, which refuses it whatever the rule says
}

// ReachRoute answers POST /admin/v1/reach from the policy in force, and says which of it a lock refuses for certain: of
// somebody who is known by a selector, one may refuse more.
func (x *Exchanger) ReachRoute() AdminRoute {
	return AdminRoute{http.MethodPost, "/reach", operator.Look, func(w http.ResponseWriter, r *http.Request) {
		var ask AdminAsked
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&ask); err != nil || (len(ask.Selector) == 0) == (ask.Token == "") {
			writeJSON(w, http.StatusBadRequest, "", adminError{`the body must be {"selector": ["KEY=VALUE", ...]} or {"token": "..."}`})
			return
		}
		state := x.state.Load()
		out := AdminReach{Native: "unknown", Reach: []AdminReachable{}}
		var known policy.Known
		var locked func(policy.Reachable) (revocation.Entry, bool)
		if ask.Token != "" {
			who, err := state.Trust.Identify(r.Context(), secret.New(ask.Token), x.now())
			if err == nil {
				if err := caller(r).In(operator.Look, who.TrustDomain()); err != nil {
					forbid(w, err)
					return
				}
				err = x.good(r.Context(), who, caller(r))
			}
			if err != nil {
				writeJSON(w, http.StatusBadRequest, "", adminError{"nothing can be obtained with this token: " + word(err.Error()) + "; ask for its workload, by subject="})
				return
			}
			known, out.Workload = policy.KnownOf(who), who.ID()
			locked = x.lockedFor(who, state.Hash)
			about(r, []string{revocation.KeyToken + "=" + who.Token().Fingerprint().String()}, "")
		} else {
			about(r, ask.Selector, "")
			sel, err := revocation.ParseSelector(ask.Selector)
			if err == nil {
				if sel, err = caller(r).Confine(operator.Look, sel); err == nil {
					known, err = knownFrom(sel)
				}
			}
			if errors.Is(err, operator.ErrForbidden) {
				forbid(w, err)
				return
			}
			if err != nil {
				writeJSON(w, http.StatusBadRequest, "", adminError{err.Error()})
				return
			}
			about(r, sel, "")
			out.Warnings, locked = x.strange(sel), x.lockedAmong(sel)
		}
		for _, one := range state.Policy.Reach(known) {
			row := AdminReachable{
				Rule: one.Rule, Source: one.Source, Target: one.Target, Scopes: one.Scopes, Lifetime: int64(one.Lifetime.Seconds()),
				From: one.From, Needs: one.Needs, Unless: one.Unless,
			}
			if lock, ok := locked(one); ok {
				row.Locked = lock.Decision
				if !mine(caller(r), operator.Look, lock.Selector) {
					row.Locked = "another's" // of which not even the id is shown
				}
			}
			out.Reach = append(out.Reach, row)
		}
		writeJSON(w, http.StatusOK, "", out)
	}}
}

// good says why a verified token buys nothing, whatever policy says: nobody minted it, or it is dead. A lock of which an
// operator sees nothing else is not named.
func (x *Exchanger) good(ctx context.Context, who federation.Workload, o operator.Operator) error {
	if !who.Token().Lineage().IsZero() {
		if err := x.genuine(ctx, who.Token()); err != nil {
			return err
		}
	}
	dead, ok := x.revocations.Dead(x.asks(who))
	switch {
	case !ok:
		return nil
	case dead.Lock && !mine(o, operator.Look, dead.Selector):
		return ErrLocked
	}
	return fmt.Errorf("%w: %s", lockedOr(dead, ErrRevoked), by(dead))
}

// lockedFor says which lock refuses what a workload would obtain.
func (x *Exchanger) lockedFor(who federation.Workload, config string) func(policy.Reachable) (revocation.Entry, bool) {
	asks := x.asks(who)
	return func(one policy.Reachable) (revocation.Entry, bool) {
		own := terms{Hasher: x.revocations.Hasher()}
		own.identity(who)
		own.add(revocation.KeyTarget, one.Target)
		own.add(revocation.KeyRule, one.Rule)
		own.add(revocation.KeyPolicy, config)
		e, ok := x.revocations.Dead(revocation.Facts{Parts: append([]revocation.Part{{At: x.revocations.Position(), Decided: x.now(), Terms: own.list}}, asks.Parts...)})
		return e, ok && e.Lock
	}
}

// lockedAmong says which lock refuses what everybody would obtain of whom a selector holds.
func (x *Exchanger) lockedAmong(sel revocation.Selector) func(policy.Reachable) (revocation.Entry, bool) {
	known := slices.Clone(sel)
	for _, term := range sel {
		key, value, _ := strings.Cut(term, "=")
		parts := strings.Split(strings.TrimPrefix(value, "spiffe://"), "/")
		if key == revocation.KeySubject || key == revocation.KeyIssuer || key == revocation.KeyKey {
			known = append(known, revocation.KeyTrustDomain+"="+parts[0], revocation.KeyIssuer+"="+parts[0]+"/"+parts[min(1, len(parts)-1)])
		}
	}
	locks := x.revocations.Locks(x.now())
	return func(one policy.Reachable) (revocation.Entry, bool) {
		has := append(slices.Clone(known), revocation.KeyTarget+"="+one.Target, revocation.KeyRule+"="+one.Rule)
		i := slices.IndexFunc(locks, func(e revocation.Entry) bool {
			return !slices.ContainsFunc(e.Selector, func(term string) bool { return !slices.Contains(has, term) })
		})
		if i < 0 {
			return revocation.Entry{}, false
		}
		return locks[i], true
	}
}

var errReach = errors.New("reach is about whoever asks: choose subject, issuer, key, trust_domain, attr.NAME, target or rule, or a token")

// knownFrom is what a selector says of whoever asks.
func knownFrom(sel revocation.Selector) (policy.Known, error) {
	k := policy.Known{Attributes: map[string][]string{}}
	place := func(domain, issuer string) error {
		if k.TrustDomain != "" && k.TrustDomain != domain || k.Issuer != "" && issuer != "" && k.Issuer != issuer {
			return fmt.Errorf("%w: its terms name two trust domains or issuers", revocation.ErrSelector)
		}
		k.TrustDomain = domain
		if issuer != "" {
			k.Issuer = issuer
		}
		return nil
	}
	for _, term := range sel {
		key, value, _ := strings.Cut(term, "=")
		name, attr := strings.CutPrefix(key, "attr.")
		var err error
		switch {
		case attr:
			k.Attributes[name] = append(k.Attributes[name], value)
		case key == revocation.KeySubject:
			parts := strings.SplitN(strings.TrimPrefix(value, "spiffe://"), "/", 3)
			if len(parts) < 3 {
				return k, fmt.Errorf("%w: subject is no workload id, spiffe://TRUST-DOMAIN/ISSUER/PATH", revocation.ErrSelector)
			}
			err = place(parts[0], parts[1])
		case key == revocation.KeyIssuer, key == revocation.KeyKey:
			parts := strings.SplitN(value, "/", 3)
			if len(parts) < 2 {
				return k, fmt.Errorf("%w: %s begins with TRUST-DOMAIN/NAME", revocation.ErrSelector, key)
			}
			err = place(parts[0], parts[1])
		case key == revocation.KeyTrustDomain:
			err = place(value, "")
		case key == revocation.KeyTarget:
			k.Target = value
		case key == revocation.KeyRule:
			k.Rule = value
		default:
			return k, errReach
		}
		if err != nil {
			return k, err
		}
	}
	return k, nil
}
