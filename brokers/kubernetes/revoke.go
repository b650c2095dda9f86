package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// How long an API server may take a token after its Secret went.
const (
	// settle is for one that looked the token up a moment before: it remembers that for 10 s, which no flag changes
	// (kubeapiserver's TokenSuccessCacheTTL), and hears of the deletion by a watch, for which 2 s are left.
	settle = 12 * time.Second
	// held is for a Secret that is deleted and stands, since a finalizer keeps it: the token lives on for a minute after
	// the deletion (serviceaccount.Validate, the leeway of its clock).
	heldLife = time.Minute
)

// Reasons of receipts.
const (
	reasonCache     = "until then an API server may take it that did so a moment before; what it keeps open (watch, exec, port-forward) goes on until the API server or the node ends it"
	reasonOffline   = "its Secret is deleted, but services that verify by the cluster's key set never ask; set token_review if all of them do"
	reasonElsewhere = "it was made at another API server than the target names now, and nothing was deleted there"
)

// place is where a credential's Secret is, kept in the handle: settings can change before it dies.
type place struct {
	Server    string `json:"server"`
	Namespace string `json:"namespace"`
}

func (b *Broker) note() secret.Value {
	text, _ := json.Marshal(place{b.api.base, b.namespace}) // two strings
	return secret.New(string(text))
}

func (b *Broker) place(data secret.Value) (place, error) {
	here := place{b.api.base, b.namespace}
	if data.IsZero() {
		return here, nil
	}
	var p place
	if json.Unmarshal([]byte(data.Reveal()), &p) != nil || !isLabel(p.Namespace) {
		return place{}, errors.New("the handle is not one of this broker")
	}
	return p, nil
}

// Revoke implements [brokers.Revoker]: it deletes the Secret and looks whether it is gone.
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	name, err := upstreamName(h.Name)
	if err != nil {
		return brokers.Receipt{}, fmt.Errorf("revoking %q: %w", h.Name, err)
	}
	at, err := b.place(h.Data)
	if err != nil {
		return brokers.Receipt{}, fmt.Errorf("revoking %s: %w", h.Name, err)
	}
	gone, end, err := b.kill(ctx, b.secrets(at.Namespace)+"/"+name)
	if err != nil {
		return brokers.Receipt{}, fmt.Errorf("revoking %s: %w", h.Name, err)
	}
	r := brokers.Receipt{State: brokers.Dead, At: end, Gone: gone, Reason: reasonCache}
	switch now := b.now(); {
	case !h.Expires.IsZero() && !h.Expires.After(now): // its life is over, whoever looks
		r.At, r.Reason = now, ""
	case gone && at.Server != b.api.base:
		r = brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Reason: reasonElsewhere}
	case !b.checked:
		r = brokers.Receipt{State: brokers.DiesAt, At: h.Expires, Gone: gone, Reason: reasonOffline}
	case !h.Expires.IsZero() && h.Expires.Before(end):
		r.At = h.Expires
	}
	return r, nil
}

// kill deletes a Secret and returns when a token bound to it is dead at the latest. gone says that it was not there. A
// Secret that a finalizer keeps is an error until its time is over.
func (b *Broker) kill(ctx context.Context, path string) (gone bool, end time.Time, err error) {
	err = b.api.call(ctx, http.MethodDelete, path, whole, nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return true, b.now().Add(settle), nil
	}
	if err != nil {
		return false, time.Time{}, failed("deleting its Secret", err)
	}
	var left object
	err = b.api.call(ctx, http.MethodGet, path, metadataOnly, nil, &left)
	now := b.now()
	switch {
	case isStatus(err, http.StatusNotFound):
		return false, now.Add(settle), nil
	case err != nil:
		return false, time.Time{}, failed("looking whether its Secret is gone", err)
	case left.Metadata.Deleted.IsZero():
		return false, time.Time{}, fmt.Errorf("%w: its Secret stands after it was deleted", brokers.ErrUnavailable)
	}
	if end = left.Metadata.Deleted.Add(heldLife + settle); end.After(now) {
		return false, time.Time{}, fmt.Errorf("%w: its Secret is deleted, but a finalizer keeps it; the token lives until %s", brokers.ErrUnavailable, end.UTC().Format(time.RFC3339))
	}
	return false, now, nil
}

// failed is an error of a revocation: it is tried again, so that all that counts is whose fault it is.
func failed(what string, err error) error {
	class := classOf(err)
	if class == brokers.ErrUncertain {
		class = brokers.ErrUnavailable
	}
	return fmt.Errorf("%w: %s: %w", class, what, err)
}

// Bounds of a list.
const (
	pageSize = 500
	maxPages = 200
)

// List implements [brokers.Lister]: the Secrets that this service made for this target. One that is being deleted is
// not ours any more.
func (b *Broker) List(ctx context.Context) iter.Seq2[brokers.Handle, error] {
	return func(yield func(brokers.Handle, error) bool) {
		query := url.Values{"labelSelector": {labelManager + "=" + manager + "," + labelTarget + "=" + b.label}, "limit": {fmt.Sprint(pageSize)}}
		for range maxPages {
			var page struct {
				Metadata struct {
					Continue string `json:"continue"`
				} `json:"metadata"`
				Items []object `json:"items"`
			}
			if err := b.api.call(ctx, http.MethodGet, b.secrets(b.namespace)+"?"+query.Encode(), metadataList, nil, &page); err != nil {
				yield(brokers.Handle{}, failed("listing Secrets of namespace "+b.namespace, err))
				return
			}
			for _, s := range page.Items {
				name, expires, ok := ownName(s.Metadata.Name)
				if !ok || !s.Metadata.Deleted.IsZero() {
					continue
				}
				if !yield(brokers.Handle{Name: name, Expires: expires}, nil) {
					return
				}
			}
			if page.Metadata.Continue == "" {
				return
			}
			query.Set("continue", page.Metadata.Continue)
		}
		yield(brokers.Handle{}, fmt.Errorf("%w: the list of Secrets does not end", brokers.ErrUnavailable))
	}
}
