package sts_test

import (
	"context"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// slowKeys are keys of an issuer that take a while to come.
type slowKeys struct {
	oidc.KeySet
	during func()
}

func (k *slowKeys) VerifySignature(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	if during := k.during; during != nil {
		k.during = nil
		during()
	}
	return k.KeySet.VerifySignature(ctx, jws)
}

// A subject token that is revoked when it has been found alive, while the keys of the actor token's issuer are awaited, buys
// nothing.
func TestSubjectRevokedWhileItsActorIsVerifiedBuysNothing(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"revoked": "", "locked": `"lock":true`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := new(slowKeys)
			d := deploy(t, delegating, func(w *world) {
				keys.KeySet = w.issuers[1].Keys
				w.issuers[1].Keys = keys
			})
			o, stolen := operate(t, d), d.checkout()
			keys.during = func() { o.does(more, "token="+fingerprint(t, stolen)) }
			a := d.acted(stolen, d.agent("a"), "orders")
			if a.status == 200 {
				t.Errorf("handed out after the revocation; active: %v", d.active(d.gateway(), d.issued(a).token))
			}
		})
	}
}
