package federation

import "errors"

// Why a token was refused. Each is wrapped in a [RejectedError]; test with errors.Is.
var (
	ErrMalformed       = errors.New("token is malformed")
	ErrTokenType       = errors.New("token type is not accepted")
	ErrUntrustedIssuer = errors.New("issuer is not trusted")
	ErrAlgorithm       = errors.New("algorithm is not allowed for this issuer")
	ErrSignature       = errors.New("signature does not verify")
	ErrAudience        = errors.New("audience does not name this service")
	ErrExpired         = errors.New("token has expired")
	ErrNotYetValid     = errors.New("token is not valid yet")
	ErrLifetime        = errors.New("token lives longer than the issuer allows")
	ErrClaims          = errors.New("a required claim is missing or of the wrong type")
	ErrNaming          = errors.New("token does not name a workload")
	// ErrKeysUnavailable means that no key of the issuer could be had: the one failure that is not the
	// token's fault, and the one that a caller should retry.
	ErrKeysUnavailable = errors.New("issuer keys are unavailable")
)

// RejectedError says why a token was refused, for the audit record and the operator, never for the
// caller (RFC 8693 section 2.2.2). It holds no token and no claim that the issuer did not sign.
type RejectedError struct {
	Reason      error // one of the sentinels above
	TrustDomain string
	Issuer      string // configured issuer name, "" when none was matched
	KeyID       string
	Fingerprint Fingerprint // zero when the token could not be split
	Verified    bool        // the signature had verified before the refusal
	Detail      string      // expected against found, without secrets
}

// Error implements error.
func (e *RejectedError) Error() string {
	s := e.Reason.Error()
	if e.TrustDomain != "" {
		s = e.TrustDomain + "/" + e.Issuer + ": " + s
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns the reason.
func (e *RejectedError) Unwrap() error { return e.Reason }
