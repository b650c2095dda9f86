package operator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

func TestWideSelectorsNameNobody(t *testing.T) {
	t.Parallel()
	for sel, want := range map[string]bool{
		"target=t": true, "rule=r": true, "policy=p": true, "attr.team=x": true, "signing_key=k": true,
		"subject=spiffe://a/i/x": false, "trust_domain=a": false, "token=" + "00": false, "family=f": false, "issuer=a/i": false, "key=a/i/k": false, "jti=a/b": false, "lease=l": false, "actor=spiffe://a/i/x": false,
	} {
		if got := operator.Wide(revocation.Selector{sel}); got != want {
			t.Errorf("%s is wide: %v", sel, got)
		}
	}
}

// What takes two is what the configuration says, by what a selector names.
func TestSecondPersonByWhatIsNamed(t *testing.T) {
	t.Parallel()
	estate, domain := operator.Second{Estate: true}, operator.Second{Domain: true}
	for sel, want := range map[string][2]bool{ // of estate, of domain
		"target=t":                        {true, false},
		"trust_domain=a":                  {false, true},
		"issuer=a/i":                      {false, true},
		"key=a/i/k":                       {false, true},
		"trust_domain=a issuer=a/i":       {false, true},
		"trust_domain=a target=t":         {false, false},
		"trust_domain=a attr.team=x":      {false, false},
		"subject=spiffe://a/i/x":          {false, false},
		"issuer=a/i actor=spiffe://a/i/x": {false, false},
	} {
		terms := revocation.Selector(strings.Fields(sel))
		if got := [2]bool{estate.Needs(operator.Revoke, terms), domain.Needs(operator.Revoke, terms)}; got != want {
			t.Errorf("%s: %v, want %v", sel, got, want)
		}
		if estate.Needs(operator.Look, terms) || domain.Needs(operator.Unlock, terms) || (operator.Second{Unlock: true}).Needs(operator.Revoke, terms) {
			t.Errorf("%s: something takes two that was not asked to", sel)
		}
	}
	if !(operator.Second{Unlock: true}).Needs(operator.Unlock, nil) || estate.Needs(operator.Unlock, nil) {
		t.Error("the end of a lock")
	}
}

// Attack: one person approves what they asked for, with another credential of theirs.
func TestOnePersonWithTwoCredentialsIsNotTwoPeople(t *testing.T) {
	t.Parallel()
	cert, email := operator.Credential{Kind: operator.Certificate, ID: "spiffe://ops/alice"}, operator.Credential{Kind: operator.Certificate, ID: "alice@ops.example"}
	login := func(s string) operator.Credential {
		return operator.Credential{Kind: operator.Token, ID: "spiffe://operators/" + s}
	}
	root, user := operator.Credential{Kind: operator.User, ID: "uid=0"}, operator.Credential{Kind: operator.User, ID: "uid=1001"}
	a := operator.Authority{Same: []operator.Person{
		{Name: "alice", Credentials: []operator.Credential{cert, login("company/alice"), user}},
		{Name: "bob", Credentials: []operator.Credential{{Kind: operator.Certificate, ID: "bob@ops.example"}, {Kind: operator.User, ID: "uid=1002"}}},
	}}
	for _, tc := range []struct {
		x, y operator.Credential
		two  bool
	}{
		{cert, cert, false},
		{root, root, false},
		{cert, login("company/alice"), false},
		{cert, user, false},
		{cert, operator.Credential{Kind: operator.User, ID: "uid=1002"}, true},
		{login("company/alice"), operator.Credential{Kind: operator.Certificate, ID: "bob@ops.example"}, true},
		{cert, email, false},                  // not known to be somebody else's
		{root, user, false},                   //
		{root, cert, false},                   //
		{login("company/alice"), root, false}, //
		{login("company/carol"), cert, false}, //
		{login("company/carol"), login("company/dave"), true},
		{login("company/alice"), login("company/dave"), true},
		{login("company/carol"), login("companyb/carol"), false},
		{login("company/alice"), login("companyb/dave"), false},
		{operator.Credential{Kind: operator.Certificate, ID: "spiffe://operators/company/carol"}, login("company/carol"), false}, // a certificate that is named as a login
	} {
		for _, pair := range [][2]operator.Credential{{tc.x, tc.y}, {tc.y, tc.x}} {
			if err := a.TwoPeople(pair[0], pair[1]); (err == nil) != tc.two || err != nil && !errors.Is(err, operator.ErrOnePerson) {
				t.Errorf("%v and %v: %v, want two people: %v", pair[0], pair[1], err, tc.two)
			}
		}
	}
	if err := a.TwoPeople(cert, email); !strings.Contains(err.Error(), "same_person in operators.yaml") {
		t.Errorf("the message does not say what to do: %v", err)
	}
}

// Who asked has of the roles of then those that are left.
func TestStillHasWhatIsLeftOfItsRoles(t *testing.T) {
	t.Parallel()
	people := []policy.Workloads{{TrustDomain: "operators"}}
	a := operator.Authority{Roles: []operator.Role{
		{Name: "responders", May: operator.Actions(), Estate: true, People: people, Certificates: []string{"spiffe://ops/x"}},
		{Name: "prod", May: operator.Actions(), TrustDomains: []string{"a"}, People: people},
		{Name: "robots", May: operator.Actions(), Estate: true, Certificates: []string{"spiffe://ops/robot"}},
	}}
	cert, login := operator.Credential{Kind: operator.Certificate, ID: "spiffe://ops/x"}, operator.Credential{Kind: operator.Token, ID: "spiffe://operators/company/x"}
	for name, tc := range map[string]struct {
		shown operator.Credential
		then  []string
		now   []string
	}{
		"a certificate that is listed":           {cert, []string{"responders"}, []string{"responders"}},
		"one that is listed no more":             {cert, []string{"robots"}, nil},
		"one that is listed since":               {cert, []string{"another"}, nil},
		"a person":                               {login, []string{"responders", "gone"}, []string{"responders"}},
		"a role that people have no more":        {login, []string{"robots"}, nil},
		"a role that was not theirs":             {login, []string{"prod"}, []string{"prod"}},
		"a login that is named as a certificate": {operator.Credential{Kind: operator.Token, ID: "spiffe://ops/robot"}, []string{"robots"}, nil},
	} {
		if got := a.Still(tc.shown, tc.then).Roles(); !slices.Equal(got, tc.now) {
			t.Errorf("%s: %v, want %v", name, got, tc.now)
		}
	}
	if o := a.Still(operator.Credential{Kind: operator.User, ID: "uid=0"}, nil); !o.Everywhere(operator.Revoke) || o.Remote() {
		t.Error("a user of the socket lost its rights")
	}
}
