package jwt

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Limits of extra claims: tokens travel in headers.
const (
	maxClaims     = 16
	maxClaimName  = 64  // bytes
	maxClaimValue = 256 // bytes
)

// reserved claims mean something to verifiers, or to us, that no constant may say. Those of [claims] are added.
var reserved = []string{
	"nbf", "act", "may_act", "cnf", "nonce", "azp", "acr", "amr", "auth_time", "at_hash", "c_hash", "sid", "events", "txn",
	"authorization_details", "username", "active",
}

// checkForm checks what foreign verifiers may choose.
func checkForm(t brokers.Target, s Settings) []brokers.Problem {
	var out []brokers.Problem
	if s.Algorithm != "" && t.Signing != nil && !slices.Contains(t.Signing, s.Algorithm) {
		out = append(out, brokers.Problem{Path: "algorithm", Message: fmt.Sprintf("algorithm %q is not one of signing.algorithms (%s); add it there, or choose one of them", s.Algorithm, strings.Join(t.Signing, ", "))})
	}
	if s.Type != "" && s.Type != typ && s.Type != "JWT" {
		out = append(out, brokers.Problem{Path: "typ", Message: fmt.Sprintf("typ %q is neither at+jwt nor JWT", s.Type)})
	}
	if len(s.Claims) > maxClaims {
		out = append(out, brokers.Problem{Path: "claims", Message: fmt.Sprintf("more than %d claims; tokens travel in headers", maxClaims)})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		value, message := s.Claims[name], ""
		switch {
		case isReserved(name):
			message = "is a registered claim, or one of ours; only the exchange says what it is: choose another name"
		case name == "" || len(name) > maxClaimName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
			message = fmt.Sprintf("is no name; use 1 to %d printable ASCII characters without spaces", maxClaimName)
		case len(value) > maxClaimValue:
			message = fmt.Sprintf("is longer than %d bytes; tokens travel in headers", maxClaimValue)
		}
		if message != "" {
			out = append(out, brokers.Problem{Path: "claims", Message: fmt.Sprintf("claim %q %s", name, message)})
		}
	}
	return out
}

// isReserved compares without case, as some decoders do.
func isReserved(name string) bool {
	same := func(r string) bool { return strings.EqualFold(r, name) }
	if slices.ContainsFunc(reserved, same) {
		return true
	}
	for f := range reflect.TypeFor[claims]().Fields() {
		if own, _, _ := strings.Cut(f.Tag.Get("json"), ","); same(own) {
			return true
		}
	}
	return false
}

// with returns the claims and what the target adds to them. Nothing that is added can replace one.
func (b *Broker) with(c claims) any {
	if len(b.extra) == 0 {
		return c
	}
	return extended{c, b.extra}
}

type extended struct {
	claims
	extra map[string]string
}

// MarshalJSON writes one object.
func (e extended) MarshalJSON() ([]byte, error) {
	own, err := json.Marshal(e.claims)
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(e.extra)
	if err != nil {
		return nil, err
	}
	return append(append(own[:len(own)-1], ','), more[1:]...), nil
}
