package sts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
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

func (x *Exchanger) revoke(ctx context.Context, token secret.Value, e *entry) error {
	minted, err := e.state.Trust.Minted(ctx, token)
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
	e.presented(minted)
	e.rec.Subject.Workload = minted.Subject()
	lease := minted.ID()
	position, news, err := x.revocations.Revoke(ctx, revocation.Entry{
		Lease:    lease,
		Decision: e.decision,
		At:       e.now.UTC(),
		Until:    minted.Expires().Add(deadForSure),
	})
	if err != nil {
		return err
	}
	if !news { // already on record: a dead token must not be able to fill the log, or the reserve of disk
		e.audit.Junk("token was dead already", &e.rec)
		return nil
	}
	// The kill is durable and in force. A record that cannot be written must not make the caller believe
	// otherwise: the revocation log itself is the evidence, and it names this decision.
	_ = e.revoked(ctx, lease, position)
	return nil
}
