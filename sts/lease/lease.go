package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// State says where a lease stands.
type State string

// The states.
const (
	Minting State = "minting" // the intent is recorded; the credential may exist
	Live    State = "live"    // its holder has it
	Dying   State = "dying"   // it is to be killed, and has not been seen dead yet
)

// Lease is one credential that lives outside. Values are not shared: a store returns copies.
type Lease struct {
	ID          string    `json:"id"` // the decision id of its exchange
	Family      string    `json:"family"`
	Ancestors   []string  `json:"ancestors,omitempty"` // leases whose end is its end
	Target      string    `json:"target"`
	Workload    string    `json:"workload"`
	Name        string    `json:"name"` // upstream, see [brokers.ParseName]
	Scopes      []string  `json:"scopes,omitempty"`
	Rule        string    `json:"rule,omitempty"`
	Position    string    `json:"position,omitempty"` // of the revocation log, that its decision saw
	Facts       []string  `json:"facts,omitempty"`    // what revocations can match of it
	State       State     `json:"state"`
	Opened      time.Time `json:"opened"`
	Expires     time.Time `json:"expires"`
	Due         time.Time `json:"due"`                   // when something has to be done about it
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256 of the credential as it was handed out, hex
	Handle      []byte    `json:"handle,omitempty"`      // what its broker needs, sealed
	Why         string    `json:"why,omitempty"`         // why it dies: see the Why constants, or the decision that revoked it
	Returned    bool      `json:"returned,omitempty"`    // by its holder, and wanted dead by nobody else
	Condemned   time.Time `json:"condemned,omitzero"`    // when it came to be dying
	Tries       int       `json:"tries,omitempty"`       // attempts to kill it that failed
	Fault       string    `json:"fault,omitempty"`       // of the last attempt, for operators
	Dies        string    `json:"dies,omitempty"`        // why it cannot be killed, and dies at Due or stays
	Stays       string    `json:"stays,omitempty"`       // why the credential works after Expires, see [brokers.Credential]
}

// Why a lease dies, when no decision says why.
const (
	WhyExpired   = "expired"
	WhyAbandoned = "abandoned" // its mint never ended, or ended unclearly
	WhyWithdrawn = "withdrawn" // minted, and not handed out
	WhyOrphan    = "orphan"    // found upstream, in no ledger
	WhyRevoked   = "revoked"   // found to be so by whoever cleans up, who does not know by what
)

// Limits bound how many leases there are, dying ones included: an upstream has room for so many, and an explosion is
// better refused than cleaned up. 0 means no limit.
type Limits struct {
	Total    int
	Target   int // per target
	Workload int // per workload
}

// Errors of this package.
var (
	// ErrUnavailable means that the ledger could not be read or written. Nothing is minted then.
	ErrUnavailable = errors.New("the ledger of leases is unavailable")
	// ErrLimit means that a limit of leases is reached. Nothing was minted.
	ErrLimit = errors.New("too many credentials are alive")
	// ErrUnknown means that there is no such lease: it never was, or is dead and gone.
	ErrUnknown = errors.New("no such lease")
	// ErrDying means that the lease was revoked while its credential was made. It is killed, and not handed out.
	ErrDying = errors.New("the lease was revoked while its credential was made")
	// ErrPending means that credentials which were to be killed have not been seen dead yet. The attempts go on.
	ErrPending = errors.New("credentials that were to be killed have not been seen dead yet")
	// ErrUnrevocable means that the credential cannot be killed: it ends by itself, or works until it is changed upstream.
	ErrUnrevocable = errors.New("the credential cannot be killed")
	// ErrBusy means that as many mints for the target run as it is allowed to have. Nothing was minted.
	ErrBusy = errors.New("too many mints for the target run already")
	// ErrPaused means that the target's upstream failed several times in a row, and is left alone for a moment. Nothing
	// was minted.
	ErrPaused = errors.New("the target's upstream is given a rest after failing")
)

// Check returns ErrLimit when one lease more, with as many there already, would pass a limit.
func (m Limits) Check(total, target, workload int, l Lease) error {
	for _, of := range []struct {
		what       string
		there, max int
	}{{"the service", total, m.Total}, {"target " + l.Target, target, m.Target}, {"workload " + l.Workload, workload, m.Workload}} {
		if of.max > 0 && of.there >= of.max {
			return fmt.Errorf("%w: %s has %d, which is its limit", ErrLimit, of.what, of.there)
		}
	}
	return nil
}

// Verdict is what a change makes of a lease.
type Verdict int

// The verdicts.
const (
	Leave  Verdict = iota // it stays as it was
	Write                 // the changed lease is kept
	Remove                // it is forgotten
)

// Store keeps leases. Writes are durable when they return. Implementations are safe for concurrent use, also by several
// replicas; their errors wrap ErrUnavailable, but for ErrUnknown and ErrLimit.
type Store interface {
	// Open records a new lease, unless a limit would be passed: then it is ErrLimit.
	Open(ctx context.Context, l Lease, max Limits) error
	// Update changes leases, each atomically, and returns those that were written or removed, as change left them; ids
	// that are gone are passed over. change may be called again with a newer value of the same lease, or for one that is
	// gone in the end, never by two goroutines at once, and must do nothing else than change it: neither id nor target nor
	// workload. After an error some may have been changed all the same;
	// those that are known to be are returned with it.
	Update(ctx context.Context, ids []string, change func(*Lease) Verdict) ([]Lease, error)
	// Find returns the lease of a fingerprint, or ErrUnknown.
	Find(ctx context.Context, fingerprint string) (Lease, error)
	// Below returns the ids of a lease and of all that descend from it, as far as they are kept here.
	Below(ctx context.Context, id string) ([]string, error)
	// Due returns leases of a target whose Due has come, the longest due first.
	Due(ctx context.Context, target string, now time.Time, most int) ([]Lease, error)
	// Counts returns how many leases there are by target.
	Counts(ctx context.Context) (map[string]int, error)
	// Each calls do with every lease, in no order; one that changes meanwhile may be seen before or after.
	Each(ctx context.Context, do func(Lease) error) error
	// Lead reports whether this replica is the one that cleans up, and makes it so if nobody else is. It is asked again
	// and again; of two that both believe it for a moment each does what the other did, which harms nothing.
	Lead(ctx context.Context) (bool, error)
}
