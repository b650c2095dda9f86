package sts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// serveRevoke answers RFC 7009: whoever holds a token may kill it, with everything exchanged from it. A token
// that is dead, expired or none of ours is 200 as well (section 2.2): the caller's aim is met. Only a token
// that another issuer minted is refused, because answering 200 would leave it alive.
func (x *Exchanger) serveRevoke(w http.ResponseWriter, r *http.Request) {
	e := x.open(Request{Remote: remote(r)})
	e.rec.Type = audit.TypeRevocation
	form, err := readForm(w, r)
	var p params
	if err == nil {
		p = params{form: form}
		p.single("token_type_hint") // never changes the outcome (section 2.1), but must not repeat
		// Blanks around a token are no part of it. Elsewhere they make it malformed; here that would be
		// answered with 200 (RFC 7009 section 2.2) while the token that was meant lives on.
		token := strings.TrimSpace(p.single("token"))
		if err = p.err; err == nil && token == "" {
			err = fmt.Errorf("%w: token is missing", ErrForm)
		}
		if err == nil {
			err = x.revoke(r.Context(), secret.New(token), e)
		}
	}
	if err != nil {
		e.refuse(r.Context(), err).write(w)
		return
	}
	noStore(w.Header())
	w.Header().Set(decisionHeader, e.decision)
	w.WriteHeader(http.StatusOK)
}

// deadForSure is how long after its exp a token is still worth killing, and its revocation worth keeping: a clock
// that was ahead is set back.
const deadForSure = time.Hour

// killWait is how long the holder waits for what lives outside to be seen dead. What takes longer is 503, and goes on.
const killWait = 5 * time.Second

func (x *Exchanger) revoke(ctx context.Context, token secret.Value, e *entry) error {
	minted, err := e.state.Trust.Minted(ctx, token)
	if err != nil && x.leases != nil { // a credential of another form is known by all of its bytes
		l, unknown := x.leases.Find(ctx, token)
		switch {
		case unknown == nil:
			e.verified = true
			e.rec.Subject = &audit.Subject{Workload: l.Workload}
			return x.kill(ctx, l.ID, l.Expires, e)
		case !errors.Is(unknown, lease.ErrUnknown):
			return unknown
		}
	}
	switch {
	case errors.Is(err, federation.ErrUntrustedIssuer):
		return ErrForeignToken
	case errors.Is(err, federation.ErrKeysUnavailable):
		return err
	case err != nil:
		e.audit.Junk(junkReason(err), &e.rec)
		return nil // no token of ours: nothing lives
	case e.now.After(minted.Expires().Add(deadForSure)):
		e.audit.Junk(federation.ErrExpired.Error(), &e.rec)
		return nil
	}
	if e.now.Before(minted.Expires()) && x.genuine(ctx, minted) != nil { // it is dead and on record, by its fingerprint: its id may be a victim's
		e.audit.Junk(ErrForged.Error(), &e.rec)
		return nil
	}
	e.presented(minted)
	e.rec.Subject.Workload = minted.Subject()
	return x.kill(ctx, minted.ID(), minted.Expires(), e)
}

// end says when what cannot be killed ends.
func end(r lease.Receipt) string {
	if r.At.IsZero() {
		return " and does not end"
	}
	return " and ends at " + r.At.UTC().Format(time.RFC3339)
}

// kill makes the lease dead, durably, with everything that descends from it, and then whatever of that lives outside.
// It is nil only when all of it was seen dead, or will die by itself at a time that is on record.
func (x *Exchanger) kill(ctx context.Context, id string, expires time.Time, e *entry) error {
	position, news, err := x.revocations.Revoke(ctx, revocation.Entry{
		Lease:    id,
		Decision: e.decision,
		At:       e.now.UTC(),
		Until:    expires.Add(deadForSure),
	})
	if err != nil {
		return err
	}
	receipts, err := x.killOutside(ctx, id, e)
	if !news && len(receipts) == 0 && err == nil { // on record already: a dead token must not be able to fill the log, or the reserve of disk
		e.audit.Junk("token was dead already", &e.rec)
		return nil
	}
	e.revoking(id, position, receipts)
	if err == nil {
		err = outcome(id, receipts)
	}
	if err != nil {
		return err // recorded with what is known
	}
	// The kill is durable and in force. A record that cannot be written must not make the caller believe
	// otherwise: the revocation log itself is the evidence, and it names this decision.
	_ = e.append(ctx)
	return nil
}

func (x *Exchanger) killOutside(ctx context.Context, id string, e *entry) ([]lease.Receipt, error) {
	if x.leases == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.wait, killWait))
	defer cancel()
	return x.leases.Kill(ctx, id, e.decision)
}

// outcome never calls dead what was not seen dead.
func outcome(id string, receipts []lease.Receipt) error {
	pending := 0
	for _, r := range receipts {
		if r.State == lease.Pending {
			pending++
		}
	}
	if pending > 0 {
		return fmt.Errorf("%w: %d of %d", lease.ErrPending, pending, len(receipts))
	}
	for _, r := range receipts {
		if r.Lease == id && r.State != brokers.Dead.String() {
			return fmt.Errorf("%w%s: %s", lease.ErrUnrevocable, end(r), r.Reason)
		}
	}
	return nil
}
