package operator_test

import (
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

var now = time.Now()

func leaf(names ...string) []*x509.Certificate {
	c := &x509.Certificate{SerialNumber: big.NewInt(11), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	for _, n := range names {
		u, _ := url.Parse(n)
		c.URIs = append(c.URIs, u)
	}
	return []*x509.Certificate{c}
}

func as(t *testing.T, roles ...operator.Role) operator.Operator {
	t.Helper()
	for i := range roles {
		roles[i].Certificates = []string{"spiffe://ops/x"}
	}
	a := operator.Authority{Roles: roles}
	o, err := a.Authenticate(t.Context(), leaf("spiffe://ops/x"), secret.Value{}, now)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// What an operator of some trust domains asks for is confined to one of them, or refused: never wider than asked, never
// beyond its roles, and never silently about nothing.
func TestConfine(t *testing.T) {
	t.Parallel()
	one := operator.Role{May: []operator.Action{operator.Revoke}, TrustDomains: []string{"a"}}
	two := operator.Role{May: []operator.Action{operator.Revoke}, TrustDomains: []string{"a", "b"}}
	look := operator.Role{May: []operator.Action{operator.Look}, TrustDomains: []string{"c"}}
	all := operator.Role{May: []operator.Action{operator.Revoke}, Estate: true}
	for name, tc := range map[string]struct {
		roles []operator.Role
		ask   revocation.Selector
		want  revocation.Selector // nil: forbidden
	}{
		"its one domain is added":            {[]operator.Role{one}, revocation.Selector{"target=t"}, revocation.Selector{"target=t", "trust_domain=a"}},
		"to what names somebody":             {[]operator.Role{one}, revocation.Selector{"subject=spiffe://a/i/x"}, revocation.Selector{"subject=spiffe://a/i/x", "trust_domain=a"}},
		"of several it has to say which":     {[]operator.Role{two}, revocation.Selector{"target=t"}, nil},
		"as it may":                          {[]operator.Role{two}, revocation.Selector{"target=t", "trust_domain=b"}, revocation.Selector{"target=t", "trust_domain=b"}},
		"roles add up":                       {[]operator.Role{one, two}, revocation.Selector{"trust_domain=b"}, revocation.Selector{"trust_domain=b"}},
		"but not what they may do":           {[]operator.Role{one, look}, revocation.Selector{"trust_domain=c"}, nil},
		"another's":                          {[]operator.Role{one}, revocation.Selector{"trust_domain=b"}, nil},
		"another's subject":                  {[]operator.Role{one}, revocation.Selector{"subject=spiffe://b/i/x"}, nil},
		"another's subject, and its own":     {[]operator.Role{one}, revocation.Selector{"subject=spiffe://b/i/x", "trust_domain=a"}, nil},
		"another's issuer":                   {[]operator.Role{one}, revocation.Selector{"issuer=b/i"}, nil},
		"another's key":                      {[]operator.Role{one}, revocation.Selector{"key=b/i/k"}, nil},
		"a domain whose name begins as ours": {[]operator.Role{one}, revocation.Selector{"issuer=ab/i"}, nil},
		"a lease says not whose it is":       {[]operator.Role{one}, revocation.Selector{"lease=x"}, nil},
		"another domain's actor in its own":  {[]operator.Role{one}, revocation.Selector{"actor=spiffe://b/i/x"}, revocation.Selector{"actor=spiffe://b/i/x", "trust_domain=a"}},
		"the estate's asks for anything":     {[]operator.Role{one, all}, revocation.Selector{"lease=x"}, revocation.Selector{"lease=x"}},
		"who may only look":                  {[]operator.Role{look}, revocation.Selector{"target=t"}, nil},
	} {
		got, err := as(t, tc.roles...).Confine(operator.Revoke, tc.ask)
		if tc.want == nil && !errors.Is(err, operator.ErrForbidden) || tc.want != nil && (err != nil || !slices.Equal(got, tc.want)) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tc.want)
		}
	}
}

// A certificate is somebody by one name, while it is valid, with a role.
func TestCertificatesNameOneOperator(t *testing.T) {
	t.Parallel()
	a := operator.Authority{Roles: []operator.Role{{May: operator.Actions(), Estate: true, Certificates: []string{"spiffe://ops/x", "CN=x"}}}}
	for name, tc := range map[string]struct {
		chain []*x509.Certificate
		at    time.Time
		known bool
	}{
		"one name":           {leaf("spiffe://ops/x"), now, true},
		"none":               {leaf(), now, false},
		"two":                {leaf("spiffe://ops/x", "spiffe://ops/y"), now, false},
		"one without a role": {leaf("spiffe://ops/x/y"), now, false},
		"expired since":      {leaf("spiffe://ops/x"), now.Add(2 * time.Hour), false},
		"not yet":            {leaf("spiffe://ops/x"), now.Add(-2 * time.Hour), false},
		"no certificate":     {nil, now, false},
	} {
		o, err := a.Authenticate(t.Context(), tc.chain, secret.Value{}, tc.at)
		if (err == nil) != tc.known || tc.known && (o.By != operator.Credential{Kind: operator.Certificate, ID: "spiffe://ops/x"} || o.Name != "spiffe://ops/x certificate=b") || !tc.known && !errors.Is(err, operator.ErrUnknown) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	if _, err := a.Authenticate(t.Context(), leaf("spiffe://ops/x"), secret.New("eyJhbGciOiJub25lIn0.e30."), now); !errors.Is(err, operator.ErrUnknown) {
		t.Errorf("a token that nobody trusts beside a certificate: %v", err)
	}
}
