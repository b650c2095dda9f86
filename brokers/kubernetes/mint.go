package kubernetes

import (
	"context"
	"encoding/base64"
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

// meta is what we read and write of an object's metadata (meta/v1).
type meta struct {
	Name        string            `json:"name,omitempty"`
	UID         string            `json:"uid,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Created     time.Time         `json:"creationTimestamp,omitzero"` // whole seconds, rounded down
	Deleted     time.Time         `json:"deletionTimestamp,omitzero"` // when something keeps it from going
}

// object is an object of which nothing but the metadata matters. As a Secret it is empty, and stays so.
type object struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Metadata   meta   `json:"metadata"`
	Type       string `json:"type,omitempty"`
	Immutable  bool   `json:"immutable,omitempty"`
}

// hold makes the Secret that the token will be bound to.
func (b *Broker) hold(ctx context.Context, o brokers.Order) (object, error) {
	name, err := upstreamName(o.Name())
	if err != nil {
		return object{}, err
	}
	want := object{APIVersion: "v1", Kind: "Secret", Type: ours + "lease", Immutable: true, Metadata: meta{
		Name:   name,
		Labels: map[string]string{labelManager: manager, labelTarget: b.label},
		Annotations: map[string]string{
			noteTarget: b.target, noteLease: o.Lease().ID, noteExpires: o.Grant().Expires().UTC().Format(time.RFC3339),
		},
	}}
	var got object
	err = b.api.call(ctx, http.MethodPost, b.secrets(b.namespace), metadataOnly, want, &got)
	switch {
	case isStatus(err, http.StatusConflict): // an attempt before this one made it, and perhaps a token
		return object{}, fmt.Errorf("%w: making a Secret of namespace %s: %w", brokers.ErrUncertain, b.namespace, err)
	case err != nil:
		return object{}, fmt.Errorf("%w: making a Secret of namespace %s: %w", classOf(err), b.namespace, err)
	case got.Metadata.Name != name || got.Metadata.UID == "":
		// Without its uid a token could be bound to another Secret of that name, and outlive this one.
		return object{}, b.drop(ctx, name, fmt.Errorf("making a Secret of namespace %s: %w: it lacks its name or its uid", b.namespace, errNonsense))
	}
	return got, nil
}

// seconds returns how long a token may live that is requested now. created is by the API server's clock, which is the
// one that counts for the token: of both clocks the one ahead is believed. The zero time says nothing of it.
func (b *Broker) seconds(o brokers.Order, created time.Time) (int64, error) {
	now := b.now()
	if c := created.Add(time.Second); c.After(now) {
		now = c
	}
	left := o.Grant().Expires().Sub(now) - slack
	if left < leastLife {
		return 0, fmt.Errorf("%w: %s, and a token lives at least %s", errTooLate, left.Round(time.Second), leastLife)
	}
	return int64(left / time.Second), nil
}

// tokenRequest is the TokenRequest of authentication.k8s.io/v1.
type tokenRequest struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   meta        `json:"metadata"`
	Spec       requestSpec `json:"spec"`
	Status     struct {
		Token   string    `json:"token,omitempty"`
		Expires time.Time `json:"expirationTimestamp,omitzero"`
	} `json:"status,omitzero"`
}

type requestSpec struct {
	Audiences []string  `json:"audiences,omitempty"`
	Seconds   int64     `json:"expirationSeconds"`
	Bound     reference `json:"boundObjectRef"`
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// request asks for the token and looks at what came.
func (b *Broker) request(ctx context.Context, o brokers.Order, account Scope, held object) (secret.Value, time.Time, error) {
	seconds, err := b.seconds(o, held.Metadata.Created)
	if err != nil {
		return secret.Value{}, time.Time{}, err
	}
	want := tokenRequest{
		APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest",
		Metadata: meta{UID: account.UID}, // 409 when the account is another by now
		Spec: requestSpec{Audiences: b.audiences, Seconds: seconds,
			Bound: reference{"v1", "Secret", held.Metadata.Name, held.Metadata.UID}},
	}
	var got tokenRequest
	path := "/api/v1/namespaces/" + b.namespace + "/serviceaccounts/" + account.ServiceAccount + "/token"
	if err := b.api.call(ctx, http.MethodPost, path, whole, want, &got); err != nil {
		return secret.Value{}, time.Time{}, fmt.Errorf("requesting a token of service account %s: %w", account.ServiceAccount, err)
	}
	token := secret.New(got.Status.Token)
	expires, err := b.believe(o, account, held, token)
	if err == nil && got.Status.Expires.After(o.Grant().Expires()) {
		err = errOutlives
	}
	if err != nil {
		return secret.Value{}, time.Time{}, fmt.Errorf("requesting a token of service account %s: %w: %w", account.ServiceAccount, errNonsense, err)
	}
	return token, expires, nil
}

// claims are what a service-account token says of itself, as Kubernetes writes it since 1.21.
type claims struct {
	Subject    string          `json:"sub"`
	Audience   json.RawMessage `json:"aud"`
	Expires    int64           `json:"exp"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount meta   `json:"serviceaccount"`
		Secret         meta   `json:"secret"`
		WarnAfter      any    `json:"warnafter"`
	} `json:"kubernetes.io"`
}

// Why a token is not believed. The texts say nothing that the token says.
var (
	errNoToken  = errors.New("it has no token that can be read")
	errAccount  = errors.New("the token is another service account's")
	errUnbound  = errors.New("the token is not bound to its Secret, and could not be revoked")
	errAudience = errors.New("the token has other audiences")
	errOutlives = errors.New("the token outlives its grant")
)

// believe returns the end of a token, if it says that it is what was ordered. status.expirationTimestamp alone would
// not do: a server that stretches tokens (--service-account-extend-token-expiration) says there what was asked for,
// and in the token a year.
func (b *Broker) believe(o brokers.Order, account Scope, held object, token secret.Value) (time.Time, error) {
	var c claims
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return time.Time{}, errNoToken
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &c) != nil {
		return time.Time{}, errNoToken
	}
	k := c.Kubernetes
	expires := time.Unix(c.Expires, 0)
	switch {
	case c.Subject != "system:serviceaccount:"+b.namespace+":"+account.ServiceAccount,
		k.Namespace != b.namespace, k.ServiceAccount.Name != account.ServiceAccount,
		account.UID != "" && k.ServiceAccount.UID != account.UID: // before 1.34 the server does not compare it
		return time.Time{}, errAccount
	case k.Secret.Name != held.Metadata.Name || k.Secret.UID != held.Metadata.UID:
		return time.Time{}, errUnbound
	case !b.agrees(c.Audience):
		return time.Time{}, errAudience
	case expires.After(o.Grant().Expires()) || k.WarnAfter != nil:
		return time.Time{}, errOutlives
	}
	return expires, nil
}

// agrees reports whether a token has exactly the audiences asked for; of the API server's own, that it has any.
func (b *Broker) agrees(raw json.RawMessage) bool {
	var got []string
	if json.Unmarshal(raw, &got) != nil {
		got = make([]string, 1)
		if json.Unmarshal(raw, &got[0]) != nil {
			return false
		}
	}
	if b.audiences == nil {
		return len(got) > 0 && !slices.Contains(got, "")
	}
	slices.Sort(got)
	return slices.Equal(got, slices.Sorted(slices.Values(b.audiences)))
}

// drop takes back what a mint made that failed with err, and returns what callers are to know. While the Secret stands a
// token may stand that nobody has.
func (b *Broker) drop(ctx context.Context, name string, err error) error {
	class := classOf(err)
	gone := b.api.call(ctx, http.MethodDelete, b.secrets(b.namespace)+"/"+name, whole, nil, nil)
	switch {
	case gone != nil && !isStatus(gone, http.StatusNotFound):
		return fmt.Errorf("%w: %w; and it could not be taken back: %w", brokers.ErrUncertain, err, gone)
	case class == brokers.ErrUncertain:
		class = brokers.ErrUnavailable // whatever was made is dead, and nobody ever had it
	}
	return fmt.Errorf("%w: %w", class, err)
}
