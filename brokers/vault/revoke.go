package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// The sorts of credential, as notes say them.
const (
	sortToken  = "token"
	sortLease  = "lease"  // the engine takes it back
	sortSecret = "secret" // leased, and the engine cannot take it back
	sortStatic = "static"
	sortCert   = "certificate"
	sortBatch  = "batch"
)

func (s Scope) sort() string {
	switch {
	case s.Static:
		return sortStatic
	case s.PKI != nil:
		return sortCert
	case s.Batch:
		return sortBatch
	case s.TakesBack:
		return sortLease
	case s.Read != "":
		return sortSecret
	default:
		return sortToken
	}
}

// note is the data of a handle. Nothing in it opens anything.
type note struct {
	Sort     string `json:"sort"`
	Accessor string `json:"accessor,omitempty"` // of the login
	Lease    string `json:"lease,omitempty"`    // id of the secret's lease
	Wrapping string `json:"wrapping,omitempty"` // accessor of the wrapping token
	Serial   string `json:"serial,omitempty"`   // of the certificate, hexadecimal
}

func (n note) seal() secret.Value {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings
	}
	return secret.New(string(b))
}

// why says what cannot be killed, by its sort; "" when it can.
func (n note) why() string {
	switch n.Sort {
	case sortBatch:
		return "a batch token, which Vault cannot revoke"
	case sortSecret:
		return "the engine that made the secret does not take it back"
	case sortStatic:
		return "a stored secret: it works until somebody changes it in Vault, whatever becomes of this lease"
	case sortCert:
		return "certificate " + n.Serial + " is good until it ends, where nobody looks at a revocation list"
	default:
		return ""
	}
}

// Revoke implements [brokers.Revoker].
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	r := b.RevokeAll(ctx, []brokers.Handle{h})[0]
	return r.Receipt, r.Err
}

// RevokeAll implements [brokers.BulkRevoker]: one login for all.
func (b *Broker) RevokeAll(ctx context.Context, hs []brokers.Handle) []brokers.Result {
	out := make([]brokers.Result, len(hs))
	notes := make([]note, len(hs))
	work := false
	for i, h := range hs {
		var done bool
		notes[i], out[i], done = b.settled(h)
		work = work || !done
		if done {
			notes[i] = note{}
		}
	}
	if !work {
		return out
	}
	t, err := b.login(ctx, b.settings.RevokeRole, hs[0].Lease, origin{Lease: hs[0].Lease}, true)
	for i, h := range hs {
		switch {
		case notes[i].Sort == "": // settled
		case err != nil:
			out[i].Err = fmt.Errorf("vault, target %s: revoking: %w", b.target.Name, err)
		default:
			out[i].Receipt, out[i].Err = b.kill(ctx, t, h, notes[i])
		}
	}
	return out
}

// settled answers for what Vault need not be asked about.
func (b *Broker) settled(h brokers.Handle) (note, brokers.Result, bool) {
	if h.Data.IsZero() {
		return note{}, brokers.Result{Receipt: brokers.Receipt{State: brokers.MayExist, At: h.Expires,
			Reason: "no answer to the login was recorded; a token that Vault made then is known to nobody"}}, true
	}
	var n note
	if err := json.Unmarshal([]byte(h.Data.Reveal()), &n); err != nil || n.Sort == "" {
		return note{}, brokers.Result{Err: errors.New("vault: the handle's data is none of ours")}, true
	}
	switch {
	case n.Sort == sortBatch:
	case !b.settings.revocable():
		if n.why() == "" {
			return n, dies(h, "the target says revocable: false"), true
		}
	case n.Accessor == "":
		return note{}, brokers.Result{Err: errors.New("vault: the handle names no accessor")}, true
	default:
		return n, brokers.Result{}, false
	}
	return n, n.survives(h), true
}

func dies(h brokers.Handle, why string) brokers.Result {
	return brokers.Result{Receipt: brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: why}}
}

// survives is the receipt of what cannot be killed.
func (n note) survives(h brokers.Handle) brokers.Result {
	if n.Sort == sortStatic {
		return brokers.Result{Receipt: brokers.Receipt{State: brokers.Stays, Reason: n.why()}}
	}
	return dies(h, n.why())
}

// kill revokes the login's token, and all that was made under it, and makes sure that it is gone.
func (b *Broker) kill(ctx context.Context, revoker token, h brokers.Handle, n note) (brokers.Receipt, error) {
	fail := func(err error) (brokers.Receipt, error) {
		return brokers.Receipt{}, fmt.Errorf("vault, target %s: revoking %s: %w", b.target.Name, h.Name, err)
	}
	unclaimed := false
	if n.Wrapping != "" {
		known, err := b.revokeAccessor(ctx, revoker, n.Wrapping)
		if err != nil {
			return fail(err)
		}
		unclaimed = known
	}
	known, err := b.revokeAccessor(ctx, revoker, n.Accessor)
	if err != nil {
		return fail(err)
	}
	if err := b.confirm(ctx, revoker, n.Accessor); err != nil {
		return fail(err)
	}
	if n.Lease != "" && n.Sort == sortLease {
		if err := b.takeBack(ctx, revoker, n.Lease); err != nil {
			return fail(err)
		}
	}
	switch {
	case unclaimed: // nobody has seen what was in it
	case n.why() != "":
		return n.survives(h).Receipt, nil
	case n.Wrapping != "" && n.Sort == sortLease:
		return brokers.Receipt{State: brokers.MayExist, At: h.Expires,
			Reason: "Vault was told to take the secret back, and does so in the background; it was wrapped, so its lease is not known here"}, nil
	}
	return brokers.Receipt{State: brokers.Dead, At: b.deps.Now(), Gone: !known}, nil
}

// What Vault and OpenBao say of an accessor that is of no token, or of one that is being revoked. The status alone does
// not tell that from a revoker without rights.
const (
	invalidAccessor = "invalid accessor"
	badToken        = "bad token"
	tokenNotFound   = "token not found"
)

// revokeAccessor reports whether the accessor was that of a token. Vault answers 204 then, and 200 with a warning when there was none.
func (b *Broker) revokeAccessor(ctx context.Context, revoker token, accessor string) (known bool, err error) {
	a, err := b.vault.do(ctx, call{what: "revoking the token", path: "auth/token/revoke-accessor", token: revoker.value, body: map[string]string{"accessor": accessor}})
	if unknown(err) {
		return false, nil
	}
	return err == nil && a.status == http.StatusNoContent, err
}

// confirm returns nil when no token has the accessor.
func (b *Broker) confirm(ctx context.Context, revoker token, accessor string) error {
	_, err := b.vault.do(ctx, call{what: "looking for the token", path: "auth/token/lookup-accessor", token: revoker.value, body: map[string]string{"accessor": accessor}})
	switch {
	case unknown(err):
		return nil
	case err != nil:
		return err
	default:
		return errors.New("the token was revoked, by Vault's word, and is still there")
	}
}

// takeBack has Vault revoke a lease while we wait. The token's end has begun it; a database that is down leaves it for
// later, and that is no death to report.
func (b *Broker) takeBack(ctx context.Context, revoker token, lease string) error {
	_, err := b.vault.do(ctx, call{what: "taking the secret back", path: "sys/leases/revoke/" + lease, token: revoker.value, body: map[string]bool{"sync": true}})
	return err
}

func unknown(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.status == 400 || r.status == 403 || r.status == 404) && (r.says(invalidAccessor) || r.says(badToken) || r.says(tokenNotFound))
}
