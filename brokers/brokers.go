package brokers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// ClientID is the client_id of every token whose holder authenticated by its subject token alone. No
// workload id can equal it (RFC 9068 section 5): those begin with spiffe://.
const ClientID = "workload"

// Broker makes one kind of credential. Implementations are safe for concurrent use. One that holds connections is an
// io.Closer as well; it is closed some time after it went out of use.
type Broker interface {
	// Mint makes the credential that o orders, living no longer than o's grant. It refuses the zero
	// Order with ErrZeroOrder; a fault of the upstream wraps ErrUnavailable, ErrUncertain or ErrMisconfigured, what
	// it can never make ErrTooShort, ErrScopes or ErrInput.
	Mint(ctx context.Context, o Order) (Credential, error)
}

// Revoker is a Broker of credentials that live outside: each is a lease, kept until it is dead upstream. The ledger of
// leases writes the intent before it calls Mint and hands whatever became of it to Revoke.
type Revoker interface {
	Broker
	// Revoke kills the credential, with whatever sessions it has open, and returns what it saw. It is called again
	// until it succeeds, also for what never came to be or is gone already: then the receipt is Dead and Gone. An error
	// means that nothing is known, and is retried; a credential that cannot be killed is no error but a receipt that
	// says DiesAt, or Stays. h.Data is zero when the process died before Mint returned; h.Name is always there.
	Revoke(ctx context.Context, h Handle) (Receipt, error)
}

// BulkRevoker kills many at once, cheaper than one by one. The results are in the order of the handles.
type BulkRevoker interface {
	Revoker
	RevokeAll(ctx context.Context, hs []Handle) []Result
}

// Result is what became of one of many.
type Result struct {
	Receipt Receipt
	Err     error // nothing is known; retried
}

// Lister is a Revoker that can find its credentials upstream by their names, so that they are cleaned up even when
// every record of them is lost.
type Lister interface {
	Revoker
	// List yields what bears a name that [ParseName] takes, and nothing else; the handles have no Data.
	List(ctx context.Context) iter.Seq2[Handle, error]
}

// Errors that brokers return, wrapped with what they were doing. None of them repeats what an upstream said with a
// secret in it.
var (
	ErrZeroOrder = errors.New("order carries no grant")
	// ErrUnavailable means that the upstream could not be asked, or said no, and that nothing was made: the same
	// token may try again. A broker that cannot tell returns ErrUncertain.
	ErrUnavailable = errors.New("the target's upstream is unavailable")
	// ErrUncertain means that the upstream did not say whether it made the credential: one may exist.
	ErrUncertain = errors.New("the target's upstream did not say whether it made the credential")
	// ErrMisconfigured means that the upstream refuses us, not the caller: our own credential, our rights, or a role
	// that is not there. Nothing was made.
	ErrMisconfigured = errors.New("the target's upstream refuses this service")
	// ErrTooShort means that the grant ends before the shortest life that this kind of credential can have. Nothing was
	// made; a fresher subject token, or a rule that opens outlives_subject, helps.
	ErrTooShort = errors.New("the grant is shorter than the shortest life of such a credential")
	// ErrScopes means that no one credential has all of the granted scopes. Nothing was made; one who asks for fewer can
	// be served (RFC 6749 section 3.3).
	ErrScopes = errors.New("the granted scopes cannot be had with one credential")
	// ErrInput means that a parameter which the caller sent with the request, beyond those of the exchange itself, is
	// none that the upstream takes. Nothing was made.
	ErrInput = errors.New("a parameter for the target is not acceptable")
)

// Order is a checked grant with its lease: what a broker needs and nothing more. It exists only after
// the decision; [NewOrder] refuses the zero grant.
type Order struct {
	grant    policy.Grant
	lease    Lease
	issuedAt time.Time
	form     string
	input    map[string]string
	note     func(ctx context.Context, data secret.Value) error
}

// Lease names what is about to exist.
type Lease struct {
	ID        string   // the decision id of this exchange
	Family    string   // the decision id of the family's first exchange
	Ancestors []string // leases whose end is its end, without its own: the subject's line, oldest first, then the actor's
	Depth     int      // tokens on the longest way to it, itself included
	Actors    []string // who acts for the workload, by their ids, the current actor first; nil when nobody does
	Position  string   // revocation log position that the decision saw
	Facts     []string // what revocations can match of it: keyed digests, opaque to brokers
}

// NewOrder binds a grant to its lease.
func NewOrder(g policy.Grant, l Lease, issuedAt time.Time) (Order, error) {
	if g.IsZero() {
		return Order{}, ErrZeroOrder
	}
	if l.ID == "" || l.Family == "" {
		return Order{}, fmt.Errorf("order for target %s has no lease id", g.Target())
	}
	return Order{grant: g, lease: l, issuedAt: issuedAt}, nil
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

// Name is what the credential is called upstream, where it can have a name; see [ParseName].
func (o Order) Name() string { return name(o.grant.Expires(), o.lease.ID) }

// Form is the issued_token_type that the caller asked for: one that the broker's [Former] names, or "" for its first.
func (o Order) Form() string { return o.form }

// WithForm returns the order with a form.
func (o Order) WithForm(form string) Order { o.form = form; return o }

// Input returns a parameter that the caller sent for this kind of credential, "" when it sent none. It is nothing but
// the caller's word.
func (o Order) Input(parameter string) string { return o.input[parameter] }

// WithInput returns the order with what the caller sent.
func (o Order) WithInput(input map[string]string) Order { o.input = input; return o }

// Note makes what Mint has learned durable while it still works, so that a crash from here on leaves nothing that
// Revoke could not find: it becomes the Data of the handle. A broker whose names suffice does not call it.
func (o Order) Note(ctx context.Context, data secret.Value) error {
	if o.note == nil {
		return nil
	}
	return o.note(ctx, data)
}

// WithNote returns the order with where its notes go. It is for the ledger of leases.
func (o Order) WithNote(note func(context.Context, secret.Value) error) Order {
	o.note = note
	return o
}

// Credential is what a broker made.
type Credential struct {
	Type        string       // issued_token_type, a URI
	TokenType   string       // "Bearer", or "N_A" when it is no OAuth access token
	Value       secret.Value // what access_token says
	Audience    string       // what the credential is good for, as the audit record names it
	Scopes      []string
	Expires     time.Time
	Fingerprint string       // SHA-256 of the signing input in hex, for a JWT of ours; "" otherwise
	Data        secret.Value // what a Revoker needs besides the name; kept sealed. Zero where the name suffices
	Stays       string       // for operators: why it works after Expires, and until when; "" for what ends then
}

// Former is a broker that says what forms its credentials come in, by their issued_token_type, the default first. From
// any other broker a caller can ask for none by name.
type Former interface{ Forms() []string }

// Taker is a broker that takes parameters of its own with a request, by their names.
type Taker interface{ Parameters() []string }

// Handle is what a Revoker needs to find a credential.
type Handle struct {
	Lease   string       // its lease id; "" when it was found upstream
	Name    string       // see [Order.Name]
	Expires time.Time    // when it was to end
	Data    secret.Value // see [Credential.Data]
	// Returned says that its holder gave it back, and that nobody else wants it dead. Where an upstream has room for few, a holder
	// must not be able to take all of it.
	Returned bool
}

// State is what became of a credential.
type State int

// The states. The zero State is none.
const (
	Dead     State = iota + 1 // it works no more, and no session that it opened does but what Reason tells of
	DiesAt                    // it cannot be killed, and ends by itself
	MayExist                  // nobody can tell whether it was ever made; if it was, it ends by itself
	Stays                     // it cannot be killed and does not end: it works until somebody changes it upstream
)

// String returns the state as receipts spell it.
func (s State) String() string {
	switch s {
	case Dead:
		return "dead"
	case DiesAt:
		return "dies"
	case MayExist:
		return "may_exist"
	case Stays:
		return "stays"
	default:
		return "unknown"
	}
}

// Receipt says what a Revoker saw.
type Receipt struct {
	State State
	// At is when it was seen dead, or when it dies; zero for what Stays. Of what is Dead it lies some seconds ahead where the upstream was seen
	// to have lost the credential, and is known to answer from memory for no longer than that.
	At     time.Time
	Gone   bool   // it was dead already, or never came to be
	Again  bool   // of what dies by itself: more could be done, and could not now; it is tried again
	Reason string // why it cannot be killed, who can, or what it leaves behind; for operators, never a word of the upstream that may hold a secret
}

// Header is what a broker chooses of a token's header. Algorithm "" is the deployment's default.
type Header = struct{ Algorithm, Type string }

// KMS signs with keys that live in a key management service and never leave it.
type KMS interface {
	// SignWith signs with a key by its name, NAME:VERSION, and returns the signature as a JWS has it (RFC 7518).
	SignWith(ctx context.Context, name string, alg jose.SignatureAlgorithm, input []byte) ([]byte, error)
}

// Signer signs claims as a compact JWS with one of our keys. What it may not sign now wraps an error of its own.
type Signer interface {
	Sign(ctx context.Context, h Header, claims any) (string, error)
}
