package gcp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Limits of answers.
const (
	maxAnswer = 64 << 10 // bytes
	maxToken  = 16 << 10 // bytes; Google promises 12,288 at most for a federated token, and less for others
)

const (
	cloudPlatform   = "https://www.googleapis.com/auth/cloud-platform"
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// Mint implements [brokers.Broker].
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	if b.settings.HandOver {
		return upstream.HandOver(ctx, b.deps, b.algorithm, b.target, b.audience, reasonHandedOver, o)
	}
	seconds := int64(min(o.Grant().Expires().Sub(b.deps.Now())-slack, mostLife) / time.Second)
	if seconds < 1 {
		return brokers.Credential{}, fmt.Errorf("%w: too little of it is left", brokers.ErrTooShort)
	}
	var made token
	var oauth []string
	var rules []Rule
	var err error
	if b.settings.IDAudience == "" {
		if oauth, rules, err = b.bounds(o.Grant().Scopes()); err != nil {
			return brokers.Credential{}, err
		}
	}
	scopes := oauth
	if b.settings.ServiceAccount != "" {
		scopes = []string{cloudPlatform} // of the federated token, which goes no further than the next call
	}
	if made, err = b.federate(ctx, o, scopes); err != nil {
		return brokers.Credential{}, err
	}
	switch {
	case b.settings.IDAudience != "":
		made, err = b.identify(ctx, made)
	case b.settings.ServiceAccount != "":
		made, err = b.impersonate(ctx, made, oauth, seconds)
	}
	if err == nil && len(rules) > 0 {
		made, err = b.narrow(ctx, made, rules)
	}
	if err != nil {
		return brokers.Credential{}, err
	}
	latest := o.Grant().Expires()
	if !b.settings.chosen() {
		latest = b.deps.Now().Add(fixedLife + clockSlack)
	}
	if !made.expires.After(b.deps.Now()) || made.expires.After(latest) {
		return brokers.Credential{}, nonsense("Google made a token, and it lives longer than was asked for, or not at all")
	}
	c := brokers.Credential{Type: made.kind, TokenType: "Bearer", Value: made.value, Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(), Expires: made.expires}
	return upstream.Outlives(c, o), nil
}

// token is one that Google made.
type token struct {
	kind    string
	value   secret.Value
	expires time.Time
}

// exchanged is the STS's answer (RFC 8693 section 2.2.1).
type exchanged struct {
	AccessToken     string         `json:"access_token"`
	IssuedTokenType string         `json:"issued_token_type"`
	TokenType       string         `json:"token_type"`
	ExpiresIn       *int64         `json:"expires_in"`
	Error           jsontext.Value `json:"error"` // never beside a token
}

// federate exchanges an assertion for a federated token.
func (b *Broker) federate(ctx context.Context, o brokers.Order, scopes []string) (token, error) {
	jwt, err := b.deps.Assertions.Sign(ctx, brokers.Header{Algorithm: b.algorithm, Type: "JWT"}, upstream.NewAssertion(b.deps, upstream.Subject(b.target), b.audience, o.Lease().ID))
	if err != nil {
		return token{}, fmt.Errorf("%w: signing the assertion for Google: %w", brokers.ErrUnavailable, err)
	}
	before := b.deps.Now()
	a, err := b.exchange(ctx, url.Values{
		"audience": {"//iam.googleapis.com/" + b.settings.Provider}, "scope": {strings.Join(scopes, " ")},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "subject_token": {jwt},
	})
	if err != nil {
		return token{}, err
	}
	if a.ExpiresIn == nil || *a.ExpiresIn < 1 || *a.ExpiresIn > int64(fixedLife/time.Second) {
		return token{}, nonsense("the STS does not say when a federated token ends")
	}
	return token{AccessTokenType, secret.New(a.AccessToken), before.Add(time.Duration(*a.ExpiresIn) * time.Second).Truncate(time.Second)}, nil
}

// narrow exchanges an access token for one within a boundary. The STS says when it ends only if it is the federated one's; it never
// outlives what it was made of.
func (b *Broker) narrow(ctx context.Context, wide token, rules []Rule) (token, error) {
	text, err := options(rules)
	if err != nil {
		return token{}, fmt.Errorf("%w: the boundary cannot be written as JSON", brokers.ErrMisconfigured)
	}
	a, err := b.exchange(ctx, url.Values{"subject_token_type": {accessTokenType}, "subject_token": {wide.value.Reveal()}, "options": {text}})
	if err != nil {
		return token{}, err
	}
	if a.AccessToken == wide.value.Reveal() {
		return token{}, nonsense("the STS gives the token back that was to be narrowed")
	}
	return token{AccessTokenType, secret.New(a.AccessToken), wide.expires}, nil
}

func (b *Broker) exchange(ctx context.Context, form url.Values) (exchanged, error) {
	form.Set("grant_type", exchangeGrant)
	form.Set("requested_token_type", accessTokenType)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.sts+"/v1/token", strings.NewReader(form.Encode()))
	if err != nil {
		return exchanged{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var a exchanged
	if err := b.do(ctx, req, stsError, &a); err != nil {
		return exchanged{}, err
	}
	if a.Error != nil || a.IssuedTokenType != accessTokenType || a.TokenType != "Bearer" || !isToken(a.AccessToken) {
		return exchanged{}, nonsense("the STS's answer is not that of a token")
	}
	return a, nil
}

// impersonate makes an access token of the service account.
func (b *Broker) impersonate(ctx context.Context, by token, scopes []string, seconds int64) (token, error) {
	var a struct {
		AccessToken string         `json:"accessToken"`
		ExpireTime  string         `json:"expireTime"`
		Error       jsontext.Value `json:"error"`
	}
	err := b.call(ctx, by, "generateAccessToken", map[string]any{"scope": scopes, "lifetime": fmt.Sprintf("%ds", seconds)}, &a)
	if err != nil {
		return token{}, err
	}
	expires, err := time.Parse(time.RFC3339, a.ExpireTime)
	if err != nil || a.Error != nil || !isToken(a.AccessToken) {
		return token{}, nonsense("the API's answer is not that of an access token")
	}
	return token{AccessTokenType, secret.New(a.AccessToken), expires.UTC().Truncate(time.Second)}, nil
}

// identify makes an ID token of the service account. It says itself when it ends and whom it is for; it comes from Google over TLS, and
// its signature is for those who take it.
func (b *Broker) identify(ctx context.Context, by token) (token, error) {
	var a struct {
		Token string         `json:"token"`
		Error jsontext.Value `json:"error"`
	}
	if err := b.call(ctx, by, "generateIdToken", map[string]any{"audience": b.settings.IDAudience, "includeEmail": true}, &a); err != nil {
		return token{}, err
	}
	var claims struct {
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
	}
	parts := strings.Split(a.Token, ".")
	if a.Error != nil || !isToken(a.Token) || len(parts) != 3 {
		return token{}, nonsense("the API's answer is not that of an ID token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Audience != b.settings.IDAudience {
		return token{}, nonsense("the API made an ID token for another audience")
	}
	return token{IDTokenType, secret.New(a.Token), time.Unix(claims.Expires, 0)}, nil
}

// call calls the Service Account Credentials API.
func (b *Broker) call(ctx context.Context, by token, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%w: %w", brokers.ErrMisconfigured, err)
	}
	at := b.iam + "/v1/projects/-/serviceAccounts/" + url.PathEscape(b.settings.ServiceAccount) + ":" + method
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+by.value.Reveal())
	return b.do(ctx, req, iamError, out)
}

// do sends a request and decodes the answer. Errors are told by word, which returns one of a closed list: anything else could be a
// word of ours, sent back.
func (b *Broker) do(ctx context.Context, req *http.Request, word func([]byte) string, out any) error {
	req.Header.Set("Accept", "application/json")
	res, err := upstream.Do(ctx, b.http, req, maxAnswer)
	switch {
	case errors.Is(err, upstream.ErrNotSent):
		return fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	case err != nil:
		return fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	case res.Status != http.StatusOK:
		said := word(res.Body)
		return fmt.Errorf("%w: %s answers %d %s", classOf(res.Status, said), req.URL.Host, res.Status, said)
	case json.Unmarshal(res.Body, out) != nil: // its error may repeat the text
		return nonsense("the answer of " + req.URL.Host + " is not the JSON of such a call")
	}
	return nil
}

func nonsense(what string) error { return fmt.Errorf("%w: %s", brokers.ErrUncertain, what) }

// unreachable is how the STS says that it could not read our keys, by a code that it has for bad tokens as well.
const unreachable = "Error connecting to the given credential's issuer."

// stsError reads an error of the STS (RFC 6749 section 5.2).
func stsError(body []byte) string {
	var e struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(body, &e) // a proxy in between answers in its own words
	switch {
	case e.Error == "invalid_grant" && e.Description == unreachable:
		return "issuer_unreachable"
	case slices.Contains([]string{"invalid_request", "invalid_grant", "invalid_target", "invalid_scope", "invalid_client", "unauthorized_client", "unsupported_grant_type"}, e.Error):
		return e.Error
	}
	return ""
}

// iamError reads an error of the Service Account Credentials API (google.rpc.Status).
func iamError(body []byte) string {
	var e struct {
		Error struct {
			Status string `json:"status"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &e)
	if slices.Contains([]string{"INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"}, e.Error.Status) {
		return e.Error.Status
	}
	return ""
}

// classOf returns what an error means to callers of brokers.
func classOf(status int, word string) error {
	switch {
	case word == "issuer_unreachable", word == "RESOURCE_EXHAUSTED", word == "UNAVAILABLE", status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return brokers.ErrUnavailable
	case status >= 300 && status < 500:
		return brokers.ErrMisconfigured
	default:
		return brokers.ErrUncertain
	}
}

// isToken reports whether a text can stand in a header. More is not known of it.
func isToken(s string) bool { return len(s) >= 20 && upstream.IsWord(s, maxToken) }

// Reasons of receipts.
const (
	reasonAlive      = "Google takes no token back. An administrator stops new ones by disabling the provider, and some APIs refuse a service account's tokens once it is disabled: gcloud iam service-accounts disable. What it made stays: look in the audit logs for its principal"
	reasonHandedOver = "whoever has it exchanges it at Google for tokens that nobody here knows of, which live an hour"
)

// Revoke implements [brokers.Revoker]. It promises nothing: a token ends by itself.
func (b *Broker) Revoke(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
	switch {
	case b.settings.HandOver:
		return upstream.DiesAt(h, h.Expires.Add(fixedLife), reasonHandedOver, b.deps.Now()), nil
	case b.settings.chosen():
		return upstream.DiesAt(h, h.Expires, reasonAlive, b.deps.Now()), nil
	default:
		return upstream.DiesAt(h, h.Expires.Add(fixedLife+clockSlack), reasonAlive, b.deps.Now()), nil
	}
}
