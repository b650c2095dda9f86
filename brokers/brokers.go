package brokers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// ClientID is the client_id of every token whose holder authenticated by its subject token alone. No
// workload id can equal it (RFC 9068 section 5): those begin with spiffe://.
const ClientID = "workload"

// Broker makes one kind of credential. Implementations are safe for concurrent use.
type Broker interface {
	// Mint makes the credential that o orders, living no longer than o's grant. It refuses the zero
	// Order with ErrZeroOrder; a fault of the upstream wraps ErrUnavailable or ErrUncertain.
	Mint(ctx context.Context, o Order) (Credential, error)
}

// Errors that brokers return, wrapped with what they were doing.
var (
	ErrZeroOrder = errors.New("order carries no grant")
	// ErrUnavailable means that the upstream could not be asked, or said no, and that nothing was made: the same
	// token may try again. A broker that cannot tell returns ErrUncertain.
	ErrUnavailable = errors.New("the target's upstream is unavailable")
	// ErrUncertain means that the upstream did not say whether it made the credential: one may exist.
	ErrUncertain = errors.New("the target's upstream did not say whether it made the credential")
)

// Order is a checked grant with its lease: what a broker needs and nothing more. It exists only after
// the decision; [NewOrder] refuses the zero grant.
type Order struct {
	grant    policy.Grant
	lease    Lease
	issuedAt time.Time
}

// Lease names what is about to exist.
type Lease struct {
	ID        string   // the decision id of this exchange
	Family    string   // the decision id of the family's first exchange
	Ancestors []string // leases whose end is its end, without its own: the subject's line, oldest first, then the actor's
	Depth     int      // tokens on the longest way to it, itself included
	Actors    []string // who acts for the workload, by their ids, the current actor first; nil when nobody does
	Position  string   // revocation log position that the decision saw
}

// NewOrder binds a grant to its lease.
func NewOrder(g policy.Grant, l Lease, issuedAt time.Time) (Order, error) {
	if g.IsZero() {
		return Order{}, ErrZeroOrder
	}
	if l.ID == "" || l.Family == "" {
		return Order{}, fmt.Errorf("order for target %s has no lease id", g.Target())
	}
	return Order{g, l, issuedAt}, nil
}

// Grant returns the grant.
func (o Order) Grant() policy.Grant { return o.grant }

// Lease returns the lease.
func (o Order) Lease() Lease {
	l := o.lease
	l.Ancestors, l.Actors = slices.Clone(l.Ancestors), slices.Clone(l.Actors)
	return l
}

// IssuedAt returns the instant of the decision, whole seconds.
func (o Order) IssuedAt() time.Time { return o.issuedAt }

// IsZero reports whether the order carries no grant.
func (o Order) IsZero() bool { return o.grant.IsZero() }

// Credential is what a broker made.
type Credential struct {
	Type        string       // issued_token_type, a URI
	TokenType   string       // "Bearer", or "N_A" when it is no OAuth access token
	Value       secret.Value // what access_token says
	Audience    string       // what the credential is good for, as the audit record names it
	Scopes      []string
	Expires     time.Time
	Fingerprint string // SHA-256 of the signing input in hex, for a JWT; "" otherwise
}

// Header is what a broker chooses of a token's header. Algorithm "" is the deployment's default.
type Header = struct{ Algorithm, Type string }

// Signer signs claims as a compact JWS with one of our keys. What it may not sign now wraps an error of its own.
type Signer interface {
	Sign(ctx context.Context, h Header, claims any) (string, error)
}
