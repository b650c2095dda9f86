package verify

import (
	"errors"

	"github.com/sallyport-sts/sallyport/federation"
)

// Why a token was refused; test with errors.Is. No error holds the token, nor what it says before its signature
// was verified. They are for the operator: a caller is told no more than the constant text of [Verifier.Middleware].
var (
	ErrMalformed   = errors.New("token is malformed")
	ErrType        = errors.New("token is no access token: typ is not at+jwt")
	ErrIssuer      = errors.New("token is of another issuer")
	ErrAlgorithm   = errors.New("algorithm is not allowed")
	ErrSignature   = errors.New("signature does not verify")
	ErrAudience    = errors.New("token is for another audience")
	ErrExpired     = errors.New("token has expired")
	ErrNotYetValid = errors.New("token is not valid yet")
	ErrClaims      = errors.New("a claim is missing or wrong")
	// ErrInactive means that the deployment was asked and does not call the token active: it was revoked, or its
	// target does not list this resource server.
	ErrInactive = errors.New("token is not active")
	// ErrUnavailable means that nobody can say: the issuer's keys, or the answer to introspection, could not be had.
	// It is the one failure that is not the token's fault, and the one that is worth a retry.
	ErrUnavailable = errors.New("token cannot be checked now")
)

// What [Verifier.Middleware] and [Verifier.RequireScope] refuse beyond tokens.
var (
	ErrNoToken = errors.New("request has no bearer token")
	ErrRequest = errors.New("request presents a token in a wrong way")
	ErrScope   = errors.New("token lacks the scope")
)

// reasons says which error of this package stands for one of door one. A test walks those.
var reasons = []struct{ of, is error }{
	{federation.ErrKeysUnavailable, ErrUnavailable},
	{federation.ErrMalformed, ErrMalformed},
	{federation.ErrTokenType, ErrType},
	{federation.ErrUntrustedIssuer, ErrIssuer},
	{federation.ErrAlgorithm, ErrAlgorithm},
	{federation.ErrSignature, ErrSignature},
	{federation.ErrAudience, ErrAudience},
	{federation.ErrExpired, ErrExpired},
	{federation.ErrNotYetValid, ErrNotYetValid},
	{federation.ErrLifetime, ErrClaims},
	{federation.ErrClaims, ErrClaims},
	{federation.ErrNaming, ErrClaims},
}

// refusedError is a reason with constant or signed words beside it.
type refusedError struct {
	reason error
	detail string
}

func (e *refusedError) Error() string {
	if e.detail == "" {
		return e.reason.Error()
	}
	return e.reason.Error() + ": " + e.detail
}

func (e *refusedError) Unwrap() error { return e.reason }

// reasonOf turns a refusal of door one into one of ours.
func reasonOf(err error) error {
	var rejected *federation.RejectedError
	if !errors.As(err, &rejected) {
		return &refusedError{reason: ErrMalformed}
	}
	for _, r := range reasons {
		if !errors.Is(err, r.of) {
			continue
		}
		out := &refusedError{r.is, rejected.Detail}
		if r.is == ErrIssuer || r.is == ErrAudience { // it quotes what nobody has signed
			out.detail = ""
		}
		return out
	}
	return &refusedError{reason: ErrMalformed}
}
