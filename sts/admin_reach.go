package sts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

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
}

// ReachRoute answers POST /admin/v1/reach from the policy in force. Locks are not looked at: see /admin/v1/locks.
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
		if ask.Token != "" {
			who, err := state.Trust.Identify(r.Context(), secret.New(ask.Token), x.now())
			if err == nil {
				if dead, ok := x.revocations.Dead(x.asks(who)); ok {
					err = fmt.Errorf("%w: %s", ErrRevoked, by(dead))
				}
			}
			if err != nil {
				writeJSON(w, http.StatusBadRequest, "", adminError{"nothing can be obtained with this token: " + word(err.Error()) + "; ask for its workload, by subject="})
				return
			}
			if err := caller(r).In(operator.Look, who.TrustDomain()); err != nil {
				forbid(w, err)
				return
			}
			known, out.Workload = policy.KnownOf(who), who.ID()
		} else {
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
		}
		for _, one := range state.Policy.Reach(known) {
			out.Reach = append(out.Reach, AdminReachable{
				Rule: one.Rule, Source: one.Source, Target: one.Target, Scopes: one.Scopes, Lifetime: int64(one.Lifetime.Seconds()),
				From: one.From, Needs: one.Needs, Unless: one.Unless,
			})
		}
		writeJSON(w, http.StatusOK, "", out)
	}}
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
