package federation_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const audience = "https://sts.example"

// noon is the time at which tests happen.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// nothing is an adapter that calls every workload the same.
type nothing struct{}

func (nothing) Schema() federation.Schema { return nil }
func (nothing) Name(federation.Claims) (federation.Naming, error) {
	return federation.Naming{Path: "someone"}, nil
}

// bySubject is an adapter that makes sub the path, and claim "team" an attribute.
type bySubject struct{}

func (bySubject) Schema() federation.Schema {
	return federation.Schema{{Name: "team", Type: federation.TypeString}, {Name: "wrong", Type: federation.TypeInt}}
}

func (bySubject) Name(c federation.Claims) (federation.Naming, error) {
	var t struct {
		Subject string `json:"sub"`
		Team    string `json:"team"`
	}
	if err := c.Decode(&t); err != nil {
		return federation.Naming{}, err
	}
	n := federation.Naming{Path: t.Subject, Attributes: federation.Attributes{}}
	if t.Team != "" {
		n.Attributes["team"] = federation.String(t.Team)
	}
	if t.Team == "undeclared" {
		n.Attributes["other"] = federation.Bool(true)
	}
	if t.Team == "mistyped" {
		n.Attributes["wrong"] = federation.String("1")
	}
	return n, nil
}

func newTrust(t testing.TB, issuers ...federation.Issuer) *federation.Trust {
	t.Helper()
	trust, err := federation.NewTrust(issuers, nil)
	if err != nil {
		t.Fatalf("NewTrust: %v", err)
	}
	return trust
}

// entry is the configuration of an issuer of federationtest.
func entry(iss *federationtest.Issuer) federation.Issuer {
	return federation.Issuer{
		TrustDomain: "prod.example", Name: "ci", URL: iss.URL(), Audiences: []string{audience},
		Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: bySubject{},
	}
}

// wantRejected checks that err is one refusal with exactly this reason, and returns it.
func wantRejected(t *testing.T, err, reason error) *federation.RejectedError {
	t.Helper()
	var r *federation.RejectedError
	if !errors.As(err, &r) {
		t.Fatalf("got error %v, want a RejectedError: %v", err, reason)
	}
	for _, sentinel := range reasons {
		if is := errors.Is(err, sentinel); is != (sentinel == reason) {
			t.Errorf("got %v, want exactly the reason: %v", err, reason)
		}
	}
	return r
}

// reasons is every sentinel.
var reasons = []error{
	federation.ErrMalformed, federation.ErrTokenType, federation.ErrUntrustedIssuer, federation.ErrAlgorithm,
	federation.ErrSignature, federation.ErrAudience, federation.ErrExpired, federation.ErrNotYetValid,
	federation.ErrLifetime, federation.ErrClaims, federation.ErrNaming, federation.ErrKeysUnavailable,
}

func identify(t *testing.T, trust *federation.Trust, raw secret.Value) (federation.Workload, error) {
	t.Helper()
	return trust.Identify(t.Context(), raw, noon)
}
