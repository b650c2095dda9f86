package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// request is the body of the call that makes a token. Neither member is ever left out.
type request struct {
	Repositories []int64           `json:"repository_ids"`
	Permissions  map[string]string `json:"permissions"`
}

// answer is what GitHub says of a token that it made.
type answer struct {
	Token        string            `json:"token"`
	Expires      time.Time         `json:"expires_at"`
	Permissions  map[string]string `json:"permissions"`
	Selection    string            `json:"repository_selection"`
	Repositories []struct {
		ID int64 `json:"id"`
	} `json:"repositories"`
}

const maxToken = 4096 // bytes; tokens are opaque, and vary between 40 and some 600

// Mint implements [brokers.Broker]. Whatever GitHub made that is not what was asked is revoked at once, and handed to nobody.
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	asked, err := b.asked(o.Grant().Scopes())
	if err != nil {
		return brokers.Credential{}, err
	}
	login, err := b.login(ctx)
	if err != nil {
		return brokers.Credential{}, err
	}
	text, err := b.api.call(ctx, http.MethodPost, b.path, login, request(asked), http.StatusCreated)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", classOf(err), err)
	}
	var a answer
	if json.Unmarshal(text, &a) != nil || !isToken(a.Token) {
		return brokers.Credential{}, fmt.Errorf("%w: the API's answer is not that of a token", brokers.ErrUncertain)
	}
	token := secret.New(a.Token)
	if err := o.Note(ctx, token); err != nil { // from here on a crash leaves nothing that cannot be revoked
		return brokers.Credential{}, b.drop(ctx, token, err)
	}
	expires, err := b.fits(a, asked, o)
	if err != nil {
		return brokers.Credential{}, b.drop(ctx, token, err)
	}
	return brokers.Credential{
		Type: Type, TokenType: "Bearer", Value: token, Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(), Expires: expires, Data: token,
	}, nil
}

// isToken reports whether a text can stand in a header. More is not known of it.
func isToken(s string) bool {
	return len(s) >= 20 && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// fits compares what was made with what was asked, and returns when the credential ends: with its grant, by our call, or
// before it by itself.
func (b *Broker) fits(a answer, asked Scope, o brokers.Order) (time.Time, error) {
	got := make([]int64, len(a.Repositories))
	for i, r := range a.Repositories {
		got[i] = r.ID
	}
	slices.Sort(got)
	wrong := ""
	switch now := b.now(); {
	case a.Selection != "selected" || !slices.Equal(got, asked.Repositories):
		wrong = "its repositories are not those that were asked for"
	case !samePermissions(a.Permissions, asked.Permissions):
		wrong = "its permissions are not those that were asked for"
	case !a.Expires.After(now) || a.Expires.After(now.Add(upstreamLife+clockSlack)):
		wrong = "its end is not within the hour that such tokens live"
	}
	if wrong != "" {
		return time.Time{}, fmt.Errorf("%w: the API made a token, and %s", brokers.ErrMisconfigured, wrong)
	}
	expires := o.Grant().Expires()
	if a.Expires.Before(expires) {
		expires = a.Expires
	}
	return expires, nil
}

// samePermissions compares what was given with what was asked. Every token may read metadata, asked or not.
func samePermissions(got, asked map[string]string) bool {
	for name, level := range got {
		if asked[name] != level && !(name == "metadata" && level == "read") {
			return false
		}
	}
	for name := range asked {
		if _, ok := got[name]; !ok {
			return false
		}
	}
	return true
}

// drop revokes what is not handed out. If that fails, the ledger has it.
func (b *Broker) drop(ctx context.Context, token secret.Value, why error) error {
	if _, err := b.kill(context.WithoutCancel(ctx), token); err != nil {
		return fmt.Errorf("%w: %w, and it could not be revoked yet", brokers.ErrUncertain, why)
	}
	return why
}

// kill lets a token revoke itself. gone is true for one that was dead already.
func (b *Broker) kill(ctx context.Context, token secret.Value) (gone bool, err error) {
	_, err = b.api.call(ctx, http.MethodDelete, "/installation/token", token.Reveal(), nil, http.StatusNoContent)
	var s *statusError
	if errors.As(err, &s) && s.code == http.StatusUnauthorized {
		return true, nil
	}
	return false, err
}

// Revoke implements [brokers.Revoker]: the token that was kept revokes itself.
func (b *Broker) Revoke(ctx context.Context, h brokers.Handle) (brokers.Receipt, error) {
	now := b.now()
	if h.Data.IsZero() {
		if h.Expires.IsZero() || now.After(h.Expires.Add(upstreamLife)) {
			return brokers.Receipt{State: brokers.Dead, At: now, Gone: true}, nil
		}
		return brokers.Receipt{State: brokers.MayExist, At: h.Expires.Add(upstreamLife), Reason: "the call that makes a token was cut off, and nobody has the token with which it could be revoked; whoever owns the installation can suspend it"}, nil
	}
	gone, err := b.kill(ctx, h.Data)
	if err != nil {
		return brokers.Receipt{}, fmt.Errorf("revoking a token: %w", err)
	}
	return brokers.Receipt{State: brokers.Dead, At: b.now(), Gone: gone, Reason: "what it pushed, and keys and hooks that it made, stay: see the audit log of the organisation"}, nil
}
