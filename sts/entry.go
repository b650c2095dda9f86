package sts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/audit"
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
	verified bool      // a signature verified: from here on the attempt belongs in the chain
	position revocation.Position
	rec      audit.Record
}

// open begins the record of an attempt and gives it its decision id.
func (x *Exchanger) open(in Request) *entry {
	e := &entry{audit: x.audit, state: x.state.Load(), decision: x.newID(), now: x.now()}
	e.rec = audit.Record{Type: audit.TypeExchange, Time: e.now, Decision: e.decision, Config: e.state.Hash}
	if in.Remote.IsValid() {
		e.rec.Remote = in.Remote.String()
	}
	return e
}

// Limits of what a caller's own words may take up in the record: less than any token is long, since callers
// paste those into the wrong parameter.
const (
	maxWord   = 128 // bytes
	maxReason = 256 // bytes; a reason may quote what was asked for
)

func (e *entry) requested(r request) {
	e.rec.Requested = &audit.Requested{
		Audience:           words(r.want.Audiences),
		Resource:           words(r.want.Resources),
		Scope:              word(strings.Join(r.want.Scopes, " ")),
		SubjectTokenType:   string(r.subjectTokenType),
		RequestedTokenType: string(r.requestedType),
	}
}

func (e *entry) identified(w federation.Workload) {
	e.presented(w.Token())
	s := e.rec.Subject
	s.Workload, s.TrustDomain, s.Issuer = w.ID(), w.TrustDomain(), w.Issuer()
	s.Attributes = map[string]string{}
	for name, v := range w.Attributes() {
		s.Attributes[name] = text(v)
	}
}

// presented puts a token on record whose signature verified.
func (e *entry) presented(t federation.Token) {
	e.verified = true
	e.rec.Subject = &audit.Subject{
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
func (e *entry) lease(g policy.Grant) brokers.Lease {
	parent := g.Workload().Token().Lineage()
	l := brokers.Lease{ID: e.decision, Family: e.decision, Position: e.position.String()}
	if !parent.IsZero() {
		l.Family = parent.Family
		l.Ancestors = append(slices.Clone(parent.Ancestors), parent.Lease)
	}
	e.rec.Granted = &audit.Granted{
		Target:          g.Target(),
		Scopes:          g.Scopes(),
		Rule:            g.Rule(),
		LifetimeSeconds: int64(g.Expires().Sub(e.now) / time.Second),
	}
	e.rec.Lease = &audit.Lease{ID: l.ID, Family: l.Family, Ancestors: l.Ancestors, Position: l.Position}
	return l
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

// revoked puts a revocation that is already in force on record.
func (e *entry) revoked(ctx context.Context, lease string, p revocation.Position) error {
	e.rec.Revocation = &audit.Revocation{
		ID: e.decision, Action: "revoke", Selector: []string{"lease=" + lease}, Position: p.String(), By: "holder",
	}
	return e.append(ctx)
}

// refuse puts the refusal on record and returns what the caller is told. A refusal that cannot be recorded
// is answered like any other failure of the log.
func (e *entry) refuse(ctx context.Context, err error) *Refusal {
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
	switch {
	case errors.Is(err, ErrWithdrawn):
		e.rec.Outcome = audit.Withdrawn
	case a.status >= 500:
		e.rec.Outcome = audit.Failed
	default:
		e.rec.Outcome = audit.Refused
	}
	if e.rec.Outcome != audit.Withdrawn {
		e.rec.Lease = nil // nothing was minted, or nothing that left
	}
	if rejected := (*federation.RejectedError)(nil); errors.As(err, &rejected) && e.rec.Subject == nil {
		// An expired token proves nothing any more, and lies around in logs of others: whoever has one must not
		// be able to fill ours.
		e.verified = rejected.Verified && !errors.Is(err, federation.ErrExpired)
		e.rec.Subject = &audit.Subject{TrustDomain: rejected.TrustDomain, Issuer: rejected.Issuer, KeyID: rejected.KeyID}
		if rejected.Fingerprint != (federation.Fingerprint{}) {
			e.rec.Subject.Fingerprint = rejected.Fingerprint.String()
		}
	}
	if !e.verified {
		e.audit.Junk(junkReason(err), &e.rec)
		return nil
	}
	return e.append(ctx)
}

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
