package sts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Audit is the log as the pipeline sees it. Append returns nil only when the record is as durable as
// configured. Junk takes what failed before any signature verified: counted, sampled, never waited for.
type Audit interface {
	Append(ctx context.Context, r *audit.Record) error
	Junk(reason string, r *audit.Record)
}

// entry is the record of one attempt while it is being made. It is closed exactly once: by refuse, issued
// or revoked.
type entry struct {
	audit    Audit
	state    *State // one configuration for the whole attempt
	decision string
	now      time.Time // one instant for the whole attempt
	marks    []replay.Key
	by       string          // who revokes, "" for the holder
	wait     time.Duration   // for what lives outside to be seen dead; 0: killWait
	receipts []lease.Receipt // of what lives outside
	limits   *Limits
	verified bool // a signature verified: from here on the attempt belongs in the chain
	position revocation.Position
	rec      audit.Record
}

// open begins the record of an attempt and gives it its decision id.
func (x *Exchanger) open(in Request) *entry {
	e := &entry{audit: x.audit, state: x.state.Load(), decision: x.newID(), now: x.now(), limits: x.limits}
	e.rec = audit.Record{Type: audit.TypeExchange, Time: e.now, Decision: e.decision, Config: e.state.Hash}
	if in.Remote.IsValid() {
		e.rec.Remote = in.Remote.String()
	}
	return e
}

// named gives the attempt an id that was chosen before.
func (e *entry) named(decision string) *entry {
	e.decision, e.rec.Decision = decision, decision
	return e
}

// Limits of what a caller's own words may take up in the record: less than any token is long, since callers
// paste those into the wrong parameter.
const (
	maxWord     = 128 // bytes
	maxReason   = 256 // bytes; a reason may quote what was asked for
	maxReceipts = 100 // in one record
	maxAsked    = 16  // terms of a selector that nothing comes of
)

func (e *entry) requested(r request) {
	e.rec.Requested = &audit.Requested{
		Audience:           words(r.want.Audiences),
		Resource:           words(r.want.Resources),
		Scope:              word(strings.Join(r.want.Scopes, " ")),
		SubjectTokenType:   string(r.subjectTokenType),
		ActorTokenType:     string(r.actorTokenType),
		RequestedTokenType: string(r.requestedType),
	}
}

// identified puts the subject on record, and acting the actor.
func (e *entry) identified(w federation.Workload) { e.presented(w.Token()); name(e.rec.Subject, w) }

func (e *entry) acting(w federation.Workload) {
	e.rec.Actor = described(w.Token())
	name(e.rec.Actor, w)
}

func name(s *audit.Subject, w federation.Workload) {
	s.Workload, s.TrustDomain, s.Issuer = w.ID(), w.TrustDomain(), w.Issuer()
	s.Attributes = map[string]string{}
	for name, v := range w.Attributes() {
		s.Attributes[name] = text(v)
	}
}

// presented puts a token on record whose signature verified.
func (e *entry) presented(t federation.Token) {
	e.verified = true
	e.rec.Subject = described(t)
}

func described(t federation.Token) *audit.Subject {
	return &audit.Subject{
		Actors:      t.Actors(),
		Iss:         t.Issuer(),
		Sub:         t.Subject(),
		TokenID:     t.ID(),
		Fingerprint: t.Fingerprint().String(),
		KeyID:       t.KeyID(),
		Alg:         t.Algorithm(),
		IssuedAt:    t.IssuedAt(),
		Expires:     t.Expires(),
	}
}

func (e *entry) decided(d policy.Decision) {
	e.rec.Reasons = d.Reasons()
	for i, r := range e.rec.Reasons {
		e.rec.Reasons[i] = cut(r, maxReason)
	}
	if near, ok := d.Near(); ok {
		e.rec.Near = &audit.Near{Rule: near.Rule, Claim: near.Claim, Expected: word(near.Expected), Found: word(near.Found)}
	}
}

// lease names what is about to be minted: its id is the decision id; the first exchange of a family gives
// the family its id.
func (e *entry) lease(who parties, g policy.Grant) (brokers.Lease, error) {
	l := brokers.Lease{ID: e.decision, Family: e.decision, Position: e.position.String()}
	if parent := who.subject.Token().Lineage(); !parent.IsZero() {
		l.Family = parent.Family
	}
	if err := who.descend(&l); err != nil {
		return brokers.Lease{}, err
	}
	e.rec.Granted = &audit.Granted{
		Target:          g.Target(),
		Scopes:          g.Scopes(),
		Rule:            g.Rule(),
		LifetimeSeconds: int64(g.Expires().Sub(e.now) / time.Second),
	}
	e.rec.Lease = &audit.Lease{ID: l.ID, Family: l.Family, Ancestors: l.Ancestors, Actors: l.Actors, Position: l.Position}
	return l, nil
}

// issued puts the lease on record. Only after it returns nil may the credential leave.
func (e *entry) issued(ctx context.Context, c brokers.Credential) error {
	e.rec.Outcome = audit.Issued
	e.rec.Lease.Kind = c.Type
	e.rec.Lease.Audience = c.Audience
	e.rec.Lease.Expires = c.Expires
	e.rec.Lease.Fingerprint = c.Fingerprint
	return e.append(ctx)
}

// revoking describes a revocation that is already in force, and what became of what lives outside.
func (e *entry) revoking(id string, p revocation.Position, receipts []lease.Receipt) {
	e.rec.Revocation = &audit.Revocation{
		ID: e.decision, Action: "revoke", Selector: []string{"lease=" + id}, Position: p.String(), By: cmp.Or(e.by, "holder"),
	}
	e.recordReceipts(receipts)
}

func (e *entry) recordReceipts(receipts []lease.Receipt) {
	e.receipts = receipts
	for i, r := range receipts {
		if i == maxReceipts {
			break // each has a record of its own when it is dead
		}
		e.rec.Revocation.Receipts = append(e.rec.Revocation.Receipts, audit.Receipt{Lease: r.Lease, Target: r.Target, State: r.State, At: r.At, Reason: cut(r.Reason, maxReason)})
	}
}

// refuse puts the refusal on record and returns what the caller is told. A refusal that cannot be recorded
// is answered like any other failure of the log.
func (e *entry) refuse(ctx context.Context, err error) *Refusal {
	err = e.sparing(err)
	a := answerTo(err)
	if !errors.Is(err, audit.ErrUnavailable) { // else this record has just failed to be written
		if recordErr := e.recordRefusal(ctx, err, a); recordErr != nil {
			a = answerTo(recordErr)
		}
	}
	return &Refusal{Decision: e.decision, answer: a}
}

func (e *entry) recordRefusal(ctx context.Context, err error, a answer) error {
	e.rec.Error, e.rec.Reason = a.code, err.Error()
	if errors.Is(err, replay.ErrUsed) {
		e.rec.Signal = audit.SignalReuse
	}
	switch {
	case errors.Is(err, ErrWithdrawn):
		e.rec.Outcome = audit.Withdrawn
	case a.status >= 500:
		e.rec.Outcome = audit.Failed
	default:
		e.rec.Outcome = audit.Refused
	}
	if e.rec.Outcome != audit.Withdrawn && !errors.Is(err, brokers.ErrUncertain) {
		e.rec.Lease = nil // nothing was minted, or nothing that left
	}
	if rejected := (*federation.RejectedError)(nil); errors.As(err, &rejected) && e.rec.Subject != nil {
		e.rec.Actor = suspect(rejected)
	} else if rejected != nil {
		// An expired token proves nothing any more, and lies around in logs of others: whoever has one must not
		// be able to fill ours.
		e.verified = rejected.Verified && !errors.Is(err, federation.ErrExpired)
		e.rec.Subject = suspect(rejected)
	}
	if !e.verified || errors.Is(err, ErrRateLimited) {
		e.audit.Junk(junkReason(err), &e.rec)
		return nil
	}
	return e.append(ctx)
}

// suspect is what may be said of a token that was refused.
func suspect(r *federation.RejectedError) *audit.Subject {
	s := &audit.Subject{TrustDomain: r.TrustDomain, Issuer: r.Issuer, KeyID: r.KeyID}
	if r.Fingerprint != (federation.Fingerprint{}) {
		s.Fingerprint = r.Fingerprint.String()
	}
	return s
}

// panicked is deferred: it puts an attempt on record that a panic ended, keeping the lease, of which something may
// exist, and lets the panic go on under the attempt's decision id.
func (e *entry) panicked(ctx context.Context) {
	v := recover()
	if v == nil {
		return
	}
	e.rec.Outcome, e.rec.Error, e.rec.Reason = audit.Failed, answerServerError.code, "the exchange panicked; the server's log has the place"
	if e.verified {
		_ = e.append(ctx)
	} else {
		e.audit.Junk("panic", &e.rec)
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	panic(&panicked{e.decision})
}

// panicked is what is left of a panic's value, which may hold anything.
type panicked struct{ decision string }

// junkReason is the row's sentinel: a handful of constants, so that counts stay few.
func junkReason(err error) string {
	for _, row := range answers {
		if errors.Is(err, row.err) {
			return row.err.Error()
		}
	}
	return "other"
}

// append writes the record although the caller may have hung up: an attempt that got this far is on record.
func (e *entry) append(ctx context.Context) error {
	if err := e.audit.Append(context.WithoutCancel(ctx), &e.rec); err != nil {
		return fmt.Errorf("recording decision %s: %w", e.decision, err)
	}
	return nil
}

// word keeps a caller's words from flooding the record or an operator's terminal.
func word(s string) string { return cut(s, maxWord) }

func cut(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func words(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = word(s)
	}
	return out
}

func text(v federation.Value) string {
	switch x := v.Any().(type) {
	case string:
		return x
	case []string:
		return strings.Join(x, " ")
	case bool:
		return strconv.FormatBool(x)
	case int64:
		return strconv.FormatInt(x, 10)
	default:
		return ""
	}
}
