package upstream

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// AssertionType is the issued_token_type of an assertion that is handed over.
const AssertionType = "urn:ietf:params:oauth:token-type:jwt"

// handedLifetime bounds an assertion that is handed over: its holder needs it for one call, and asks for another then.
const handedLifetime = 5 * time.Minute

// HandOver makes the assertion itself the credential: for SDKs that want the token file. It is signed for the target and its audience
// alone; what its holder obtains with it is unknown here, and stays says until when that may live.
func HandOver(ctx context.Context, d brokers.Deps, algorithm, target, audience, stays string, o brokers.Order) (brokers.Credential, error) {
	a := NewAssertion(d, Subject(target), audience, o.Lease().ID)
	expires := d.Now().Add(handedLifetime).Truncate(time.Second)
	if o.Grant().Expires().Before(expires) {
		expires = o.Grant().Expires()
	}
	a.Expires = expires.Unix()
	jwt, err := d.Assertions.Sign(ctx, brokers.Header{Algorithm: algorithm, Type: "JWT"}, a)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: signing the assertion: %w", brokers.ErrUnavailable, err)
	}
	return brokers.Credential{
		Type: AssertionType, TokenType: brokers.NotApplicable, Value: secret.New(jwt), Audience: target, Scopes: o.Grant().Scopes(), Expires: expires, Stays: stays,
	}, nil
}
