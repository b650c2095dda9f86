package sts

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

// IntrospectionTarget is the built-in target whose tokens authenticate the callers of /introspect. A rule
// must grant it like any other target.
const IntrospectionTarget = "introspection"

// introspection is RFC 7662 section 2.2, with the fields an RFC 9068 token has.
type introspection struct {
	Active    bool                     `json:"active"`
	Issuer    string                   `json:"iss,omitempty"`
	Subject   string                   `json:"sub,omitempty"`
	Audience  []string                 `json:"aud,omitempty"`
	Expires   int64                    `json:"exp,omitempty"`
	IssuedAt  int64                    `json:"iat,omitempty"`
	ID        string                   `json:"jti,omitempty"`
	ClientID  string                   `json:"client_id,omitempty"`
	Scope     oidc.SpaceDelimitedArray `json:"scope,omitempty"`
	TokenType string                   `json:"token_type,omitempty"`
	Actor     *actor                   `json:"act,omitempty"`
	Family    string                   `json:"sallyport_family,omitempty"`
}

// actor is one link of the chain of delegation, as the token has it (RFC 8693 section 4.1).
type actor struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Before  *actor `json:"act,omitempty"`
}

func actors(t federation.Token) *actor {
	var out *actor
	for _, id := range slices.Backward(t.Actors()) {
		out = &actor{t.Issuer(), id, out}
	}
	return out
}

// serveIntrospect answers RFC 7662. A caller that is not authenticated gets 401; an authenticated one gets
// {"active":false} for every token it may not see, whatever the reason.
func (x *Exchanger) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	state, now := x.state.Load(), x.now()
	err := x.revocations.Fresh() // before anybody is called alive, the caller or a token
	var caller federation.Workload
	if err == nil {
		caller, err = x.caller(r, state, now)
	}
	var token string
	if err == nil {
		token, err = question(w, r)
	}
	var answer introspection
	if err == nil {
		answer = x.introspect(r, state, caller, secret.New(token), now)
		err = x.revocations.Fresh() // once more: asking others who minted it may have taken long
	}
	if err != nil {
		e := x.open(Request{Remote: remote(r)})
		e.rec.Type = audit.TypeIntrospection
		e.refuse(r.Context(), err).write(w)
		return
	}
	writeJSON(w, http.StatusOK, "", answer)
}

// question reads the form (RFC 7662 section 2.1). A token_type_hint would change nothing.
func question(w http.ResponseWriter, r *http.Request) (string, error) {
	form, err := readForm(w, r)
	if err != nil {
		return "", err
	}
	token, err := single(form, "token")
	if err == nil && token == "" {
		err = fmt.Errorf("%w: token is missing", ErrForm)
	}
	return token, err
}

// caller is the workload behind the bearer token of the request: one of ours, for the introspection target,
// alive now. Everything else is one error.
func (x *Exchanger) caller(r *http.Request, s *State, now time.Time) (federation.Workload, error) {
	scheme, bearer, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if n := len(r.Header.Values("Authorization")); n == 0 || n == 1 && !strings.EqualFold(scheme, "Bearer") {
		return federation.Workload{}, ErrCallerAnonymous
	} else if !ok || n > 1 {
		return federation.Workload{}, fmt.Errorf("%w: no bearer token", ErrCallerUnknown)
	}
	who, err := x.alive(r, s, secret.New(bearer), now)
	if err != nil {
		return federation.Workload{}, fmt.Errorf("%w: %w", ErrCallerUnknown, err)
	}
	if t := who.Token().Lineage().Target; t != IntrospectionTarget {
		return federation.Workload{}, fmt.Errorf("%w: its token is for target %s", ErrCallerUnknown, t)
	}
	return who, nil
}

// alive verifies one of our own tokens and asks whether it was minted and whether it is dead: all checks, now.
func (x *Exchanger) alive(r *http.Request, s *State, token secret.Value, now time.Time) (federation.Workload, error) {
	who, _, err := s.Trust.VerifyOwn(r.Context(), token, now)
	if err != nil {
		return federation.Workload{}, err
	}
	if err := x.genuine(r.Context(), who.Token()); err != nil {
		return federation.Workload{}, err
	}
	if dead, ok := x.revocations.Dead(x.asks(who)); ok {
		return federation.Workload{}, fmt.Errorf("%w: %s", ErrRevoked, by(dead))
	}
	return who, nil
}

func (x *Exchanger) introspect(r *http.Request, s *State, caller federation.Workload, token secret.Value, now time.Time) introspection {
	who, err := x.alive(r, s, token, now)
	if err != nil {
		return introspection{}
	}
	t, lineage := who.Token(), who.Token().Lineage()
	target, ok := s.Policy.Target(lineage.Target)
	if !ok || !serves(target, caller.ID()) {
		return introspection{}
	}
	return introspection{
		Active:    true,
		Issuer:    t.Issuer(),
		Subject:   t.Subject(),
		Audience:  t.Audiences(),
		Expires:   t.Expires().Unix(),
		IssuedAt:  t.IssuedAt().Unix(),
		ID:        t.ID(),
		ClientID:  brokers.ClientID,
		Scope:     lineage.Scopes,
		TokenType: "Bearer",
		Actor:     actors(t),
		Family:    lineage.Family,
	}
}

// serves reports whether a workload is one of the target's resource servers.
func serves(t policy.Target, id string) bool {
	for _, rs := range t.ResourceServers {
		if below, ok := strings.CutSuffix(rs, "/*"); ok && strings.HasPrefix(id, below+"/") || rs == id {
			return true
		}
	}
	return false
}
