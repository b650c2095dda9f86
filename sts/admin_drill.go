package sts

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// drill revokes a family that nothing is of, as it would be in earnest, and says when every replica had applied it, beside
// what would have died. It is on record as what it is, with what it would have been about.
func (x *Exchanger) drill(w http.ResponseWriter, r *http.Request, ask AdminRevocation, out AdminRevoked) {
	e := x.revocationBy(r, caller(r).Name)
	e.rec.Reason = because(ask)
	nothing := revocation.Selector{revocation.KeyFamily + "=" + x.newID()}
	position, _, err := x.revocations.Revoke(r.Context(), revocation.Entry{
		Selector: nothing, Decision: e.decision, At: e.now.UTC(), Until: e.now.UTC().Add(time.Minute), Why: e.rec.Reason, By: e.by,
	})
	if err != nil {
		e.refuse(r.Context(), err)
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"the drill has found something: a revocation would not be durable everywhere it has to be now"})
		return
	}
	durable := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(cmp.Or(ask.Wait, 5))*time.Second)
	defer cancel()
	out.ID, out.Action, out.Position = e.decision, "drill", position.String()
	x.applied(ctx, position, durable, &out)
	e.selected(out, position, nil)
	_ = e.append(r.Context())
	status := http.StatusOK
	if out.Incomplete {
		status = http.StatusAccepted
	}
	writeJSON(w, status, e.decision, out)
}
