package azure

import (
	"context"
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
	maxToken  = 32 << 10 // bytes; tokens with many roles are long
)

// answer is a token of Entra (RFC 6749 section 5.1).
type answer struct {
	AccessToken string         `json:"access_token"`
	TokenType   string         `json:"token_type"`
	ExpiresIn   *int64         `json:"expires_in"`
	Error       jsontext.Value `json:"error"` // never beside a token
}

// Mint implements [brokers.Broker].
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	if b.settings.HandOver {
		return upstream.HandOver(ctx, b.deps, b.settings.Algorithm, b.target, b.audience, reasonHandedOver, o)
	}
	jwt, err := b.deps.Assertions.Sign(ctx, brokers.Header{Algorithm: b.settings.Algorithm, Type: "JWT"}, upstream.NewAssertion(b.deps, upstream.Subject(b.target), b.audience, o.Lease().ID))
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: signing the assertion for Entra: %w", brokers.ErrUnavailable, err)
	}
	form := url.Values{
		"client_id": {b.settings.Client}, "scope": {b.settings.Resource + "/.default"}, "grant_type": {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {jwt},
	}
	before := b.deps.Now()
	a, err := b.ask(ctx, form)
	if err != nil {
		return brokers.Credential{}, err
	}
	c := brokers.Credential{
		Type: Type, TokenType: "Bearer", Value: secret.New(a.AccessToken), Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(),
		Expires: before.Add(time.Duration(*a.ExpiresIn) * time.Second).Truncate(time.Second),
	}
	return upstream.Outlives(c, o), nil
}

// ask sends the one request.
func (b *Broker) ask(ctx context.Context, form url.Values) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, err := upstream.Do(ctx, b.http, req, maxAnswer)
	var a answer
	switch {
	case errors.Is(err, upstream.ErrNotSent):
		return answer{}, fmt.Errorf("%w: %w", brokers.ErrUnavailable, err)
	case err != nil:
		return answer{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	case res.Status != http.StatusOK:
		return answer{}, refusal(res)
	case json.Unmarshal(res.Body, &a) != nil: // its error may repeat the text
		return answer{}, fmt.Errorf("%w: Entra's answer is not the JSON of a token", brokers.ErrUncertain)
	case a.Error != nil || !strings.EqualFold(a.TokenType, "Bearer") || len(a.AccessToken) < 20 || !upstream.IsWord(a.AccessToken, maxToken):
		return answer{}, fmt.Errorf("%w: Entra's answer is not that of a token", brokers.ErrUncertain)
	case a.ExpiresIn == nil || *a.ExpiresIn < 1 || *a.ExpiresIn > int64((longestLife+clockSlack)/time.Second):
		return answer{}, fmt.Errorf("%w: Entra's answer does not say when the token ends", brokers.ErrUncertain)
	}
	return a, nil
}

// words are the errors of RFC 6749 section 5.2 and those that Entra adds. Anything else could be a word of ours, sent back.
var words = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_resource", "interaction_required", "temporarily_unavailable", "server_error"}

// hints are the AADSTS codes that tell an operator what to mend. Microsoft does not promise them, so nothing depends on them.
var hints = map[int64]string{
	70021:   mismatch,
	700211:  mismatch,
	700212:  mismatch,
	700213:  mismatch,
	700024:  "our assertion is too early or too late for Entra's clock; look at this host's clock",
	700016:  "the directory has no such application; look at tenant and client",
	7000215: "Entra took the assertion for a client secret; look at client",
	90002:   "there is no such directory; look at tenant",
	53003:   "a Conditional Access policy refuses it",
	500011:  "the directory knows no such resource; look at resource",
	7000112: "the application is disabled",
}

const mismatch = "no federated credential of the application has this issuer, subject and audience; see: sallyport trust azure TARGET. A new one takes some minutes to be everywhere"

// refusal reads an error. It repeats nothing of it but words of closed lists.
func refusal(res upstream.Answer) error {
	var e struct {
		Error string  `json:"error"`
		Codes []int64 `json:"error_codes"`
	}
	_ = json.Unmarshal(res.Body, &e) // a proxy in between answers in its own words
	if !slices.Contains(words, e.Error) {
		e.Error = ""
	}
	said := strings.TrimSpace(fmt.Sprintf("Entra answers %d %s", res.Status, e.Error))
	for _, code := range e.Codes {
		if hint, known := hints[code]; known {
			said += fmt.Sprintf(", AADSTS%d: %s", code, hint)
		}
	}
	switch {
	case e.Error == "temporarily_unavailable", res.Status == http.StatusTooManyRequests, res.Status == http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %s", brokers.ErrUnavailable, said)
	case res.Status >= 300 && res.Status < 500:
		return fmt.Errorf("%w: %s", brokers.ErrMisconfigured, said)
	default:
		return fmt.Errorf("%w: %s", brokers.ErrUncertain, said)
	}
}

// Reasons of receipts.
const (
	reasonAlive      = "Entra takes no token back. An administrator disables the service principal, which stops new ones, and those at resources that evaluate access continuously. What it made stays: look in the sign-in logs of the service principal"
	reasonHandedOver = "whoever has it exchanges it at Entra for tokens that nobody here knows of, which live up to a day"
)

// Revoke implements [brokers.Revoker]. It promises nothing: a token ends by itself.
func (b *Broker) Revoke(_ context.Context, h brokers.Handle) (brokers.Receipt, error) {
	reason := reasonAlive
	if b.settings.HandOver {
		reason = reasonHandedOver
	}
	return upstream.DiesAt(h, h.Expires.Add(longestLife), reason, b.deps.Now()), nil
}
