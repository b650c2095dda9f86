package sts

import (
	"errors"
	"net/http"
	"net/netip"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/limit"
)

// Limits is how fast callers may ask. There is none by the issuer that a token claims before its signature verified:
// strangers could use it up for those whom that issuer vouches for.
type Limits struct {
	address  *limit.Limiter[netip.Prefix]
	workload *limit.Limiter[string]
	token    *limit.Limiter[federation.Fingerprint] // verified, but of no workload that could be named
}

// NewLimits returns limits for each address (an IPv6 network of 64 bits counts as one), and for each verified
// workload; a zero rate limits nothing.
func NewLimits(address, workload limit.Rate) *Limits {
	return &Limits{
		address:  limit.New[netip.Prefix](address),
		workload: limit.New[string](workload),
		token:    limit.New[federation.Fingerprint](workload),
	}
}

// Refused returns how many requests were refused, by what limit.
func (l *Limits) Refused() map[string]uint64 {
	return map[string]uint64{"address": l.address.Refused(), "workload": l.workload.Refused() + l.token.Refused()}
}

// Limit sets the limits. It is called once, before anything is served.
func (x *Exchanger) Limit(l *Limits) { x.limits = l }

// limited asks for the address before anything else is done for the request, the reading of its body included.
func (x *Exchanger) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if from := remote(r); !x.limits.allowAddress(from, x) {
			x.open(Request{Remote: from}).refuse(r.Context(), ErrRateLimited).write(w)
			return
		}
		next(w, r)
	}
}

func (l *Limits) allowAddress(a netip.Addr, x *Exchanger) bool {
	return l == nil || l.address.Allow(network(a), x.now())
}

// network is what counts as one caller: an IPv4 address, or the 64 bits that one IPv6 subscriber has at least.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all of those share one bucket
	}
	return p
}

// limited asks for a workload once it is identified: whoever holds one live token cannot fill the audit log.
func (e *entry) limited(who federation.Workload) error {
	if e.limits == nil || e.limits.workload.Allow(who.ID(), e.now) {
		return nil
	}
	return ErrRateLimited
}

// sparing asks for a token that verified and was refused all the same, before a workload was named: it is on record,
// like all that verifies, and must not fill the log either.
func (e *entry) sparing(err error) error {
	rejected := (*federation.RejectedError)(nil)
	if e.limits == nil || e.rec.Subject != nil || !errors.As(err, &rejected) || !rejected.Verified ||
		e.limits.token.Allow(rejected.Fingerprint, e.now) {
		return err
	}
	return ErrRateLimited
}
