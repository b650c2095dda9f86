package operator_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
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
		"target=t":                                {true, true},
		"policy=p":                                {true, true},
		"trust_domain=a":                          {false, true},
		"issuer=a/i":                              {false, true},
		"key=a/i/k":                               {false, true},
		"trust_domain=a issuer=a/i":               {false, true},
		"trust_domain=a target=t":                 {false, true}, // attack: a term that all of the domain has
		"trust_domain=a policy=p":                 {false, true},
		"trust_domain=a signing_key=k":            {false, true},
		"trust_domain=a rule=r":                   {false, true},
		"trust_domain=a attr.cluster=one-for-all": {false, true},
		"subject=spiffe://a/i/x":                  {false, false},
		"family=f":                                {false, false},
		"jti=https://a/b":                         {false, false},
		"token=00":                                {false, false},
		"lease=l":                                 {false, false},
		"issuer=a/i actor=spiffe://a/i/x":         {false, false},
		"trust_domain=a subject=spiffe://a/i/x":   {false, false},
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

type byGroups struct{}

func (byGroups) Schema() federation.Schema {
	return federation.Schema{{Name: "groups", Type: federation.TypeStrings}}
}

func (byGroups) Name(c federation.Claims) (federation.Naming, error) {
	var claims struct {
		Subject string   `json:"sub"`
		Groups  []string `json:"groups"`
	}
	err := c.Decode(&claims)
	return federation.Naming{Path: claims.Subject, Attributes: federation.Attributes{"groups": federation.Strings(claims.Groups)}}, err
}

// Who asked has of the roles of then those that are left, each on the ground that it was given on: a role that is now for
// people of another issuer, or with another attribute, is none of theirs.
func TestStillHasWhatIsLeftOfItsRoles(t *testing.T) {
	t.Parallel()
	iss := federationtest.New(t)
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: operator.TrustDomain, Name: "company", URL: iss.URL(), Audiences: []string{"sallyport-operators"},
		Algorithms: iss.Algorithms(), Keys: iss.KeySet(), Adapter: byGroups{},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := func(issuer, group string) policy.Workloads {
		v := federation.String(group)
		return policy.Workloads{TrustDomain: operator.TrustDomain, Issuer: issuer, Where: map[string]policy.Matcher{"groups": {Contains: &v}}}
	}
	role := func(name string, who ...policy.Workloads) operator.Role {
		return operator.Role{Name: name, May: operator.Actions(), Estate: true, People: who}
	}
	robots := operator.Role{Name: "robots", May: operator.Actions(), Estate: true, Certificates: []string{"spiffe://ops/robot"}}
	then := operator.Authority{People: trust, Roles: []operator.Role{role("responders", in("company", "responders")), role("staff", in("company", "staff")), robots}}
	login, err := then.Authenticate(t.Context(), nil, iss.Sign(iss.Claims(now, "alice", "sallyport-operators").With("groups", []string{"responders"})), now)
	if err != nil {
		t.Fatal(err)
	}
	robot, err := then.Authenticate(t.Context(), leaf("spiffe://ops/robot"), secret.Value{}, now)
	if err != nil {
		t.Fatal(err)
	}
	named := robots
	named.Certificates = []string{login.By.ID}
	for name, tc := range map[string]struct {
		who   operator.Operator
		roles []operator.Role // that there are now
		may   bool
	}{
		"nothing changed":                          {login, then.Roles, true},
		"others may as well":                       {login, []operator.Role{role("responders", in("company", "others"), in("company", "responders"))}, true},
		"the role is gone":                         {login, []operator.Role{role("others", in("company", "responders"))}, false},
		"it is for another issuer's people":        {login, []operator.Role{role("responders", in("elsewhere", "responders"))}, false},
		"it is for others of them":                 {login, []operator.Role{role("responders", in("company", "others"))}, false},
		"for all of them, which was not the word":  {login, []operator.Role{role("responders", policy.Workloads{TrustDomain: operator.TrustDomain, Issuer: "company"})}, false},
		"it is for no people":                      {login, []operator.Role{role("responders")}, false},
		"a role that was not theirs":               {login, []operator.Role{role("staff", in("company", "staff"))}, false},
		"a certificate is named like the login":    {login, []operator.Role{named}, false},
		"a certificate that is listed":             {robot, then.Roles, true},
		"one that is listed no more":               {robot, []operator.Role{role("robots", in("company", "responders"))}, false},
		"one that is listed elsewhere, since then": {robot, []operator.Role{{Name: "new", May: operator.Actions(), Estate: true, Certificates: robots.Certificates}}, false},
	} {
		a := operator.Authority{Roles: tc.roles}
		if got := a.Still(tc.who.By, tc.who.Grounds()).May(operator.Revoke); (got == nil) != tc.may {
			t.Errorf("%s: %v, want %v", name, got, tc.may)
		}
	}
	if o := then.Still(operator.Credential{Kind: operator.User, ID: "uid=0"}, nil); !o.Everywhere(operator.Revoke) || o.Remote() {
		t.Error("a user of the socket lost its rights")
	}
}
