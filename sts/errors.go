package sts

import (
	"errors"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// What this package itself refuses. The wire sees only the row of [answerTo].
var (
	ErrForm             = errors.New("request is malformed")
	ErrTooLarge         = errors.New("request is too large")
	ErrMethod           = errors.New("method is not allowed")
	ErrGrantType        = errors.New("grant type is not supported")
	ErrClient           = errors.New("client authentication is not configured")
	ErrScopeSyntax      = errors.New("scope is malformed")
	ErrResourceSyntax   = errors.New("resource is not an absolute URI without fragment")
	ErrTargetDenied     = errors.New("policy refuses the target")
	ErrScopeDenied      = errors.New("policy refuses the scope")
	ErrRevoked          = errors.New("token has been revoked")
	ErrForged           = errors.New("the token is signed with our key, and nobody here minted it: somebody has that key")
	ErrLocked           = errors.New("a lock refuses it")
	ErrWithdrawn        = errors.New("a token was revoked while the exchange ran")
	ErrAmplified        = errors.New("broker made more than was granted")
	ErrCallerUnknown    = errors.New("caller is not authenticated")
	ErrCallerAnonymous  = errors.New("caller presented no bearer token")
	ErrForeignToken     = errors.New("token was not minted here")
	ErrRateLimited      = errors.New("too many requests")
	ErrTargetUnservable = errors.New("granted target has no broker")
)

// answer is what the wire says: one constant per row of the table in design section 5. Nothing of the
// error's own text reaches it.
type answer struct {
	status     int
	code       string
	text       string
	retryAfter string // seconds, "" for none
	challenge  string // WWW-Authenticate, "" for none
}

// Texts have no quotes or backslashes (RFC 6749 section 5.2) and name no rule, key, issuer or domain.
var (
	answerInvalidRequest = answer{status: http.StatusBadRequest, code: string(oidc.InvalidRequest), text: "The request or a token in it was refused."}
	answerGrantType      = answer{status: http.StatusBadRequest, code: string(oidc.UnsupportedGrantType), text: "Only the token exchange grant is supported."}
	answerTarget         = answer{status: http.StatusBadRequest, code: string(oidc.InvalidTarget), text: "The requested target was refused."}
	answerScope          = answer{status: http.StatusBadRequest, code: string(oidc.InvalidScope), text: "The requested scope was refused."}
	answerClient         = answer{status: http.StatusUnauthorized, code: string(oidc.InvalidClient), text: "Client authentication was refused.", challenge: `Basic realm="sallyport"`}
	answerBearer         = answer{status: http.StatusUnauthorized, code: "invalid_token", text: "The caller was refused.", challenge: `Bearer realm="sallyport", error="invalid_token"`}
	answerAnonymous      = answer{status: http.StatusUnauthorized, code: string(oidc.InvalidClient), text: "Client authentication was refused.", challenge: `Bearer realm="sallyport"`} // RFC 6750 section 3.1: no error code
	answerForeign        = answer{status: http.StatusBadRequest, code: "unsupported_token_type", text: "This token cannot be revoked here."}
	answerMethod         = answer{status: http.StatusMethodNotAllowed, code: string(oidc.InvalidRequest), text: "The method is not allowed."}
	answerTooLarge       = answer{status: http.StatusRequestEntityTooLarge, code: string(oidc.InvalidRequest), text: "The request is too large."}
	answerUnavailable    = answer{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", text: "The service cannot answer now. Try again.", retryAfter: "1"}
	answerTooMany        = answer{status: http.StatusTooManyRequests, code: "temporarily_unavailable", text: "Too many requests. Try again later.", retryAfter: "1"}
	answerServerError    = answer{status: http.StatusInternalServerError, code: string(oidc.ServerError), text: "The service failed."}
)

// answers is the one table from error to answer, first match wins. A test walks every exported error of
// the packages below and fails if it is missing here.
var answers = []struct {
	err    error
	answer answer
}{
	{ErrCallerUnknown, answerBearer}, // first: it wraps why, and why must not show
	{ErrCallerAnonymous, answerAnonymous},
	{ErrRateLimited, answerTooMany},
	{ErrForm, answerInvalidRequest},
	{ErrTooLarge, answerTooLarge},
	{ErrMethod, answerMethod},
	{ErrGrantType, answerGrantType},
	{ErrClient, answerClient},
	{ErrScopeSyntax, answerScope},
	{ErrResourceSyntax, answerTarget},
	{ErrTargetDenied, answerTarget},
	{ErrLocked, answerTarget},
	{ErrScopeDenied, answerScope},
	{ErrForged, answerInvalidRequest},
	{ErrRevoked, answerInvalidRequest},
	{ErrWithdrawn, answerInvalidRequest},
	{ErrDelegation, answerInvalidRequest},
	{ErrForeignToken, answerForeign},
	{ErrAmplified, answerServerError},
	{ErrTargetUnservable, answerServerError},

	{federation.ErrKeysUnavailable, answerUnavailable},
	{federation.ErrMalformed, answerInvalidRequest},
	{federation.ErrTokenType, answerInvalidRequest},
	{federation.ErrUntrustedIssuer, answerInvalidRequest},
	{federation.ErrAlgorithm, answerInvalidRequest},
	{federation.ErrSignature, answerInvalidRequest},
	{federation.ErrAudience, answerInvalidRequest},
	{federation.ErrExpired, answerInvalidRequest},
	{federation.ErrNotYetValid, answerInvalidRequest},
	{federation.ErrLifetime, answerInvalidRequest},
	{federation.ErrClaims, answerInvalidRequest},
	{federation.ErrNaming, answerInvalidRequest},
	{federation.ErrID, answerInvalidRequest},

	{keys.ErrKMS, answerUnavailable}, // before what it wraps
	{lease.ErrLimit, answerTooMany},
	{lease.ErrDying, answerInvalidRequest},
	{lease.ErrUnrevocable, answerForeign},
	{lease.ErrPending, answerUnavailable},
	{lease.ErrUnavailable, answerUnavailable},
	{lease.ErrBusy, answerUnavailable},
	{lease.ErrPaused, answerUnavailable},
	{lease.ErrUnknown, answerServerError}, // never on its own
	{brokers.ErrMisconfigured, answerServerError},
	{brokers.ErrTooShort, answerInvalidRequest}, // a fresher token helps
	{brokers.ErrScopes, answerScope},
	{brokers.ErrInput, answerInvalidRequest},
	{brokers.ErrUnavailable, answerUnavailable},
	{brokers.ErrUncertain, answerUnavailable},
	{brokers.ErrZeroOrder, answerServerError},
	{keys.ErrStale, answerUnavailable},
	{keys.ErrInactive, answerUnavailable},
	{revocation.ErrSelector, answerInvalidRequest}, // of operators; never on the wire
	{revocation.ErrUnshared, answerUnavailable},
	{revocation.ErrUnavailable, answerUnavailable},
	{revocation.ErrStale, answerUnavailable},
	{replay.ErrUsed, answerInvalidRequest}, // RFC 8693 section 2.2.2: a replayed token is a bad token
	{replay.ErrUnavailable, answerUnavailable},
	{audit.ErrUnavailable, answerUnavailable},
	{audit.ErrLocked, answerServerError},        // at start
	{audit.ErrContradiction, answerServerError}, // in Health
}

// answerTo returns the row for err. What is in no row is a fault of ours.
func answerTo(err error) answer {
	for _, row := range answers {
		if errors.Is(err, row.err) {
			return row.answer
		}
	}
	return answerServerError
}
