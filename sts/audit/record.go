package audit

import "time"

// Type says what a record is about.
type Type string

// The record types. Callers append the first seven; the log writes the others itself.
const (
	TypeExchange      Type = "exchange"      // one attempt to exchange a token
	TypeIntrospection Type = "introspection" // one question about a token
	TypeRevocation    Type = "revocation"    // a revocation or lock, set or lifted; may use the reserve of disk
	TypeReceipt       Type = "receipt"       // what became of a credential that lived outside
	TypeAdmin         Type = "admin"         // a call of an operator that revoked and lifted nothing
	TypeKeys          Type = "keys"          // our signing keys changed
	TypeConfig        Type = "config"        // another configuration is in force

	TypeOpened    Type = "opened"    // a process began to write
	TypeRecovered Type = "recovered" // what was found, and may be missing, after an unclean end or a failed sync
	TypeSegment   Type = "segment"   // a further segment begins
	TypeClosed    Type = "closed"    // a process ended in order
	TypePruned    Type = "pruned"    // retention removed what stands before a record
	TypeAccepted  Type = "accepted"  // an operator has looked at a contradiction
	TypeJunk      Type = "junk"      // counts of attempts that failed before a signature verified
	TypeHead      Type = "head"      // signed statement about an earlier record
)

// Outcome is how an exchange ended.
type Outcome string

// The outcomes.
const (
	Issued    Outcome = "issued"
	Refused   Outcome = "refused"
	Failed    Outcome = "failed"    // allowed, but a part of ours or a broker failed
	Withdrawn Outcome = "withdrawn" // minted, then taken back before it was returned
)

// Record is one line of the log. Every field is typed and none can hold a token: what is not
// declared here cannot be written. Times are written in UTC.
type Record struct {
	N        uint64    `json:"n,omitzero"` // position in the chain, from 1; set by [Log.Append]
	Type     Type      `json:"type"`
	Time     time.Time `json:"time"`               // zero: set by [Log.Append]
	Decision string    `json:"decision,omitempty"` // decision id
	Outcome  Outcome   `json:"outcome,omitempty"`
	Error    string    `json:"error,omitempty"`   // error code on the wire
	Reason   string    `json:"reason,omitempty"`  // for the operator, never for the caller
	Reasons  []string  `json:"reasons,omitempty"` // of the policy
	Signal   string    `json:"signal,omitempty"`  // of a theft: see the Signal constants
	Near     *Near     `json:"near,omitempty"`
	Config   string    `json:"config,omitempty"` // hash of the loaded configuration
	Remote   string    `json:"remote,omitempty"` // address of the caller

	Subject       *Subject       `json:"subject,omitempty"`
	Actor         *Subject       `json:"actor,omitempty"`
	Requested     *Requested     `json:"requested,omitempty"`
	Granted       *Granted       `json:"granted,omitempty"`
	Lease         *Lease         `json:"lease,omitempty"`
	Introspection *Introspection `json:"introspection,omitempty"`
	Revocation    *Revocation    `json:"revocation,omitempty"`
	Receipt       *Receipt       `json:"receipt,omitempty"`
	Admin         *Admin         `json:"admin,omitempty"`
	Keys          *Keys          `json:"keys,omitempty"`
	Reload        *Reload        `json:"reload,omitempty"`

	Segment   *Segment   `json:"segment,omitempty"` // in the first record of every segment
	Opened    *Opened    `json:"opened,omitempty"`
	Recovered *Recovered `json:"recovered,omitempty"`
	Pruned    *Pruned    `json:"pruned,omitempty"`
	Accepted  *Accepted  `json:"accepted,omitempty"`
	Junk      *Junk      `json:"junk,omitempty"`
	Head      *Head      `json:"head,omitempty"`
}

// SignalReuse means that a token was presented again that may be used once: of the two who have it, one is a thief.
const SignalReuse = "single-use token presented again"

// SignalForged means that a token of ours was presented that no replica minted: somebody has our signing key.
const SignalForged = "signed with our key, minted by nobody"

// Near is the rule that nearly matched a refused request.
type Near struct {
	Rule     string `json:"rule"`
	Claim    string `json:"claim,omitempty"`
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
}

// Subject is who a verified token names, and which token it was.
type Subject struct {
	Workload    string            `json:"workload,omitempty"` // SPIFFE-shaped id
	TrustDomain string            `json:"trust_domain,omitempty"`
	Issuer      string            `json:"issuer,omitempty"` // configured name
	Iss         string            `json:"iss,omitempty"`
	Sub         string            `json:"sub,omitempty"`
	TokenID     string            `json:"token_id,omitempty"`
	Fingerprint string            `json:"fingerprint,omitempty"` // SHA-256 of the signing input, hex
	KeyID       string            `json:"key_id,omitempty"`
	Alg         string            `json:"alg,omitempty"`
	IssuedAt    time.Time         `json:"issued_at,omitzero"`
	Expires     time.Time         `json:"expires,omitzero"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Actors      []string          `json:"actors,omitempty"` // who acts by the token's own word, current first
}

// Requested is what the caller asked for, in its own words.
type Requested struct {
	Audience           []string `json:"audience,omitempty"`
	Resource           []string `json:"resource,omitempty"`
	Scope              string   `json:"scope,omitempty"`
	SubjectTokenType   string   `json:"subject_token_type,omitempty"`
	ActorTokenType     string   `json:"actor_token_type,omitempty"`
	RequestedTokenType string   `json:"requested_token_type,omitempty"`
}

// Granted is what policy allowed.
type Granted struct {
	Target          string   `json:"target"`
	Scopes          []string `json:"scopes,omitempty"`
	Rule            string   `json:"rule,omitempty"`
	LifetimeSeconds int64    `json:"lifetime_seconds"`
}

// Lease is what was made. For a token of our own this is its ledger entry.
type Lease struct {
	ID          string    `json:"id"`
	Family      string    `json:"family,omitempty"`
	Ancestors   []string  `json:"ancestors,omitempty"` // of the subject token, oldest first, then of the actor's
	Actors      []string  `json:"actors,omitempty"`    // workload ids, current actor first
	Position    string    `json:"position,omitempty"`  // "epoch.n" of the revocation log that the decision saw
	Expires     time.Time `json:"expires,omitzero"`
	Kind        string    `json:"kind,omitempty"` // of the broker
	Audience    string    `json:"audience,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // of the minted token
}

// Introspection is a question about a token.
type Introspection struct {
	Caller      string `json:"caller,omitempty"`      // workload that asked
	Fingerprint string `json:"fingerprint,omitempty"` // of the token asked about
	Lease       string `json:"lease,omitempty"`
	Target      string `json:"target,omitempty"`
	Active      bool   `json:"active"`
}

// Revocation is a revocation or a lock.
type Revocation struct {
	ID       string    `json:"id"`
	Action   string    `json:"action"` // revoke, lock or unlock
	Selector []string  `json:"selector,omitempty"`
	Before   time.Time `json:"before,omitzero"`    // only what was decided before this
	Position string    `json:"position,omitempty"` // "epoch.n"
	Expires  time.Time `json:"expires,omitzero"`   // of a lock
	By       string    `json:"by,omitempty"`       // who ordered it
	Receipts []Receipt `json:"receipts,omitempty"`
}

// Admin is a call of an operator.
type Admin struct {
	By     string `json:"by"`
	Method string `json:"method"`
	Call   string `json:"call"` // path and query, as far as they are short
	Status int    `json:"status"`

	Selector []string `json:"selector,omitempty"` // what it asked to kill, lock, or see die
}

// Keys is a change of our signing keys.
type Keys struct {
	Serial      uint64   `json:"serial"`              // of the change
	Published   []string `json:"published,omitempty"` // SET/KID
	Removed     []string `json:"removed,omitempty"`   // SET/KID: nobody here believes them any more
	By          string   `json:"by"`                  // "plan", or whoever ordered it
	Now         bool     `json:"now,omitempty"`       // the new ones sign at once
	Compromised bool     `json:"compromised,omitempty"`
	Missed      uint64   `json:"missed,omitempty"` // changes right before it that are on no record here: there were too many while it did not run
}

// Reload is another configuration that came into force; the record's Config names it.
type Reload struct {
	Before string   `json:"before"`          // hash of the one before
	Waits  []string `json:"waits,omitempty"` // settings of sallyport.yaml that take a restart
}

// Receipt is what became of one credential.
type Receipt struct {
	Lease  string    `json:"lease"`
	Target string    `json:"target,omitempty"`
	State  string    `json:"state"` // dead, dies, may_exist, stays or pending
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// Segment ties the first record of a segment to what stands before it, so that a segment can be
// checked when retention has removed its predecessors.
type Segment struct {
	Log        string     `json:"log"`            // id of the log: 128 random bits, hex
	Prev       string     `json:"prev,omitempty"` // hash of the record before, hex; "" before record 1
	Durability Durability `json:"durability"`     // of what follows
}

// Opened is written when a process begins.
type Opened struct {
	Key string `json:"key"` // id of the key that signs from here on
}

// Recovered says what was found when the log could not simply be continued. It is the first record of
// a new segment; old bytes are never rewritten.
type Recovered struct {
	Cause    string `json:"cause"`                 // see the Cause constants
	Last     Mark   `json:"last"`                  // the record that the chain goes on from
	Head     Mark   `json:"head"`                  // newest signed head that was found
	Unsigned uint64 `json:"unsigned,omitempty"`    // records between Head and Last: chained, not yet signed
	Void     []Void `json:"void,omitempty"`        // bytes that are no part of the log
	Rewrote  int    `json:"rewrote,omitempty"`     // acknowledged records of Void that follow again, under new numbers
	MayMiss  int64  `json:"may_miss_ms"`           // records acknowledged in so many last milliseconds may be missing
	Missing  uint64 `json:"missing,omitempty"`     // records that a signed head covers and that are not there
	Conflict string `json:"contradicts,omitempty"` // how the log contradicts its head; "" = it does not
}

// Why a segment begins with a recovered record.
const (
	CauseUnclean = "unclean end"  // a process ended without closing: kill, crash, power cut
	CauseSync    = "failed sync"  // the operating system could not say what reached the disk
	CauseWrite   = "failed write" // half a line could not be taken back
)

// Mark names a record of the chain.
type Mark struct {
	N    uint64    `json:"n"`
	Hash string    `json:"hash,omitempty"` // hex
	Time time.Time `json:"time,omitzero"`
}

// Void is a range of bytes, from Offset to the end of a segment, that is kept but is no part of the log.
type Void struct {
	Segment uint64 `json:"segment"`          // first number of the segment
	Offset  int64  `json:"offset"`           // bytes
	Bytes   int64  `json:"bytes"`            // -1: could not be read
	SHA256  string `json:"sha256,omitempty"` // hex
}

// Pruned says that retention removed every record before First. It is signed by itself, so that it
// cannot be forged in the last unsigned milliseconds.
type Pruned struct {
	First    uint64 `json:"first"`    // first record kept
	Prev     string `json:"prev"`     // hash of the record before it
	Segments int    `json:"segments"` // how many files
	Bytes    int64  `json:"bytes"`
	Key      string `json:"key"`
	Sig      string `json:"sig"` // base64, Ed25519
}

// Accepted says that an operator has looked at a contradiction and goes on.
type Accepted struct {
	Recovered uint64 `json:"recovered"` // number of the recovered record
	By        string `json:"by"`
}

// Junk counts attempts that failed before a signature verified.
type Junk struct {
	Since   time.Time         `json:"since"`
	Counts  map[string]uint64 `json:"counts"`  // by reason, exact
	Sampled uint64            `json:"sampled"` // of them written to the samples
}
