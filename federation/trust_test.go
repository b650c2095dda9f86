package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// One issuer may speak for nobody but itself (RFC 8725 section 3.8, standards 4.2).
func TestIdentifyRejectsTokenSignedByAnotherTrustedIssuer(t *testing.T) {
	a := federationtest.NewNamed(t, "https://a.example", jose.ES256)
	b := federationtest.NewNamed(t, "https://b.example", jose.ES256)
	ea, eb := entry(a), entry(b)
	eb.Name = "b"
	_, err := identify(t, newTrust(t, ea, eb), a.Sign(a.Claims(noon, "api", audience), federationtest.WithKey(b.Key())))
	wantRejected(t, err, federation.ErrSignature)
}

// Records blot out what looks like a token: nobody may become unreadable by being named like one.
func TestIdentifyRefusesNamesInTheShapeOfAToken(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	hidden := "eyJ" + strings.Repeat("a", 45) + ".b"
	for _, claims := range []federationtest.Claims{
		iss.Claims(noon, hidden, audience),
		iss.Claims(noon, "api", audience).With("jti", hidden),
	} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims))
		wantRejected(t, err, federation.ErrNaming)
	}
}

// iss is compared byte for byte (standards 4.3).
func TestIdentifyComparesIssuerExactly(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	for _, url := range []string{
		"https://issuer.example/", "https://ISSUER.example", "HTTPS://issuer.example", "https://issuer.example:443",
		"https://issuer.ex%61mple", "https://issuer.example.", "http://issuer.example", "https://issuer.example/x/..",
		" https://issuer.example", "https://issuer.example\x00", "https://ıssuer.example", "https://issuer.example#",
	} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims.With("iss", url)))
		if r := wantRejected(t, err, federation.ErrUntrustedIssuer); r.Issuer != "" || !strings.Contains(r.Error(), strconv.QuoteToASCII(url)) {
			t.Errorf("iss %q: refusal %v names an issuer, or does not quote what the operator has to compare", url, r)
		}
	}
}

// The audience must be ours alone unless the entry says otherwise (standards 2.33 and 4.18).
func TestIdentifyRejectsTokenForAnotherAudience(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	for _, tc := range []struct {
		name string
		aud  any
		many bool
		ok   bool
	}{
		{"ours", audience, false, true},
		{"ours in a list", []string{audience}, false, true},
		{"ours twice", []string{audience, audience}, false, false},
		{"another", "https://other.example", false, false},
		{"another in a list", []string{"https://other.example"}, true, false},
		{"empty", "", false, false},
		{"trailing slash", audience + "/", false, false},
		{"other case", "https://STS.example", false, false},
		{"prefix of ours", audience[:10], false, false},
		{"separated by blank", audience + " https://other.example", false, false},
		{"ours and another", []string{audience, "https://other.example"}, false, false},
		{"ours and another, allowed", []string{"https://other.example", audience}, true, true},
		{"two others", []string{"https://x.example", "https://other.example"}, true, false},
	} {
		e := entry(iss)
		e.ManyAudiences = tc.many
		_, err := identify(t, newTrust(t, e), iss.Sign(iss.Claims(noon, "api", audience).With("aud", tc.aud)))
		if tc.ok {
			if err != nil {
				t.Errorf("%s: %v, want it accepted", tc.name, err)
			}
			continue
		}
		if r := wantRejected(t, err, federation.ErrAudience); r.Issuer != "ci" {
			t.Errorf("%s: refusal names issuer %q, want ci", tc.name, r.Issuer)
		}
	}
}

// All default Kubernetes clusters share one iss. Each is found by its audience, and by it alone: keys are
// never tried across entries (standards 4.4).
func TestIssuersSharingURLAreToldApartByAudience(t *testing.T) {
	const url = "https://kubernetes.default.svc.cluster.local"
	one, two := federationtest.NewNamed(t, url, jose.ES256), federationtest.NewNamed(t, url, jose.ES256)
	e1, e2 := entry(one), entry(two)
	e1.Name, e1.Audiences = "cluster-1", []string{"https://sts.example/1"}
	e2.Name, e2.Audiences, e2.TrustDomain = "cluster-2", []string{"https://sts.example/2"}, "stage.example"
	e1.ManyAudiences, e2.ManyAudiences = true, true
	trust := newTrust(t, e1, e2)

	w, err := identify(t, trust, two.Sign(two.Claims(noon, "api", "https://sts.example/2")))
	if err != nil || w.ID() != "spiffe://stage.example/cluster-2/api" || w.TrustDomain() != "stage.example" || w.Issuer() != "cluster-2" {
		t.Errorf("token of cluster 2 names %q, %v", w.ID(), err)
	}
	_, err = identify(t, trust, two.Sign(two.Claims(noon, "api", "https://sts.example/1")))
	wantRejected(t, err, federation.ErrSignature)
	both := one.Claims(noon, "api", "").With("aud", []string{"https://sts.example/1", "https://sts.example/2"})
	_, err = identify(t, trust, one.Sign(both))
	wantRejected(t, err, federation.ErrAudience)
}

func TestUntrustedIssuerReachesNoKeySet(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	e.Keys = untouchableKeys{t}
	trust := newTrust(t, e)
	claims := iss.Claims(noon, "api", audience)
	for name, raw := range map[string]federationtest.Claims{
		"unknown iss": claims.With("iss", "https://evil.example"),
		"unknown aud": claims.With("aud", "https://evil.example"),
		"mistyped":    claims.With("exp", "soon"),
		"too deep":    claims.With("x", json.RawMessage(strings.Repeat("[", 8)+strings.Repeat("]", 8))),
	} {
		if _, err := identify(t, trust, iss.Sign(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, err := identify(t, trust, iss.Sign(claims, header("alg", "HS256")))
	wantRejected(t, err, federation.ErrAlgorithm)
}

// untouchableKeys fails the test when it is asked.
type untouchableKeys struct{ t *testing.T }

func (k untouchableKeys) VerifySignature(context.Context, *jose.JSONWebSignature) ([]byte, error) {
	k.t.Error("the key set was asked")
	return nil, errors.New("no")
}

// lyingKeys returns other bytes than the token's as verified.
type lyingKeys struct{ payload []byte }

func (k lyingKeys) VerifySignature(context.Context, *jose.JSONWebSignature) ([]byte, error) {
	return k.payload, nil
}

// Identity is read from the bytes that were verified (SPIRE 1.14.6 and 1.15.1 read it from others).
func TestIdentifyRejectsPayloadThatWasNotVerified(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	e.Keys = lyingKeys{[]byte(`{"sub":"someone"}`)}
	_, err := identify(t, newTrust(t, e), iss.Sign(iss.Claims(noon, "admin", audience)))
	wantRejected(t, err, federation.ErrSignature)
}

// chattyKeys puts secrets into its errors, as go-jose and zitadel do with answers of issuers.
type chattyKeys struct{}

func (chattyKeys) VerifySignature(context.Context, *jose.JSONWebSignature) ([]byte, error) {
	return nil, errors.New(federationtest.SecretBody)
}

func TestRejectedErrorDropsForeignText(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	e.Keys = chattyKeys{}
	_, err := identify(t, newTrust(t, e), iss.Sign(iss.Claims(noon, "api", audience)))
	if r := wantRejected(t, err, federation.ErrSignature); strings.Contains(r.Error()+r.Detail, federationtest.SecretBody) {
		t.Errorf("refusal %v repeats the key set's text", r)
	}
}

// Workload ids: SPIFFE path characters, 127 bytes, and the trust domain of configuration whatever the
// token says (SPIFFE-ID section 2, standards 4.5).
func TestIdentifyRejectsName(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	room := federation.MaxWorkloadID - len("spiffe://prod.example/ci/")
	for name, sub := range map[string]string{
		"leading slash": "/api", "trailing slash": "api/", "empty segment": "a//b", "dot": "a/./b", "dot dot": "../other",
		"percent": "a%2fb", "colon": "repo:org", "blank": "a b", "query": "a?b", "fragment": "a#b", "umlaut": "ä", "star": "*",
		"another domain": "spiffe://other.example/x", "too long": strings.Repeat("a", room+1),
	} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, sub, audience)))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if r := wantRejected(t, err, federation.ErrNaming); !r.Verified {
			t.Errorf("%s: named before the signature verified", name)
		}
	}
	w, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, strings.Repeat("a", room), audience)))
	if err != nil || len(w.ID()) != federation.MaxWorkloadID {
		t.Errorf("id of %d bytes: %v", len(w.ID()), err)
	}
}

func TestIdentifyHoldsAdapterToItsSchema(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	for _, team := range []string{"undeclared", "mistyped"} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, "api", audience).With("team", team)))
		wantRejected(t, err, federation.ErrNaming)
	}
}

func TestPlatformTokenCannotClaimLineage(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience).With("sallyport", map[string]any{"family": "f", "ancestors": []string{"a"}, "position": "1.1", "target": "orders"})
	w, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims))
	if err != nil || !w.Token().Lineage().IsZero() {
		t.Errorf("lineage %+v, %v; want none", w.Token().Lineage(), err)
	}
}

// Every unsafe entry is refused, and all problems are reported at once (design section 4).
func TestNewTrustRefusesIssuer(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	for _, tc := range []struct {
		field string
		name  string
		spoil func(*federation.Issuer)
	}{
		{"TrustDomain", "empty", func(e *federation.Issuer) { e.TrustDomain = "" }},
		{"TrustDomain", "upper case", func(e *federation.Issuer) { e.TrustDomain = "Prod.example" }},
		{"TrustDomain", "with port", func(e *federation.Issuer) { e.TrustDomain = "prod.example:443" }},
		{"TrustDomain", "with slash", func(e *federation.Issuer) { e.TrustDomain = "prod/example" }},
		{"TrustDomain", "with user", func(e *federation.Issuer) { e.TrustDomain = "a@prod" }},
		{"TrustDomain", "percent", func(e *federation.Issuer) { e.TrustDomain = "prod%2e" }},
		{"TrustDomain", "too long", func(e *federation.Issuer) { e.TrustDomain = strings.Repeat("a", 256) }},
		{"Name", "empty", func(e *federation.Issuer) { e.Name = "" }},
		{"Name", "dot dot", func(e *federation.Issuer) { e.Name = ".." }},
		{"Name", "slash", func(e *federation.Issuer) { e.Name = "a/b" }},
		{"Name", "blank", func(e *federation.Issuer) { e.Name = "a b" }},
		{"Name", "no room for a path", func(e *federation.Issuer) { e.Name = strings.Repeat("a", 110) }},
		{"URL", "empty", func(e *federation.Issuer) { e.URL = "" }},
		{"URL", "query", func(e *federation.Issuer) { e.URL = "https://issuer.example?x" }},
		{"URL", "fragment", func(e *federation.Issuer) { e.URL = "https://issuer.example#x" }},
		{"URL", "user", func(e *federation.Issuer) { e.URL = "https://u:p@issuer.example" }},
		{"URL", "control", func(e *federation.Issuer) { e.URL = "https://issuer.example\n" }},
		{"Audiences", "none", func(e *federation.Issuer) { e.Audiences = nil }},
		{"Audiences", "empty", func(e *federation.Issuer) { e.Audiences = []string{""} }},
		{"Audiences", "twice", func(e *federation.Issuer) { e.Audiences = []string{"a", "a"} }},
		{"Algorithms", "none listed", func(e *federation.Issuer) { e.Algorithms = nil }},
		{"Algorithms", "none", func(e *federation.Issuer) { e.Algorithms = []jose.SignatureAlgorithm{"none"} }},
		{"Algorithms", "HS256", func(e *federation.Issuer) { e.Algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.HS256} }},
		{"Algorithms", "unknown", func(e *federation.Issuer) { e.Algorithms = []jose.SignatureAlgorithm{"rs256"} }},
		{"Algorithms", "twice", func(e *federation.Issuer) { e.Algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS256} }},
		{"Types", "empty", func(e *federation.Issuer) { e.Types = []string{} }},
		{"Types", "a proof", func(e *federation.Issuer) { e.Types = []string{"JWT", "application/DPoP+jwt"} }},
		{"Keys", "missing", func(e *federation.Issuer) { e.Keys = nil }},
		{"Adapter", "missing", func(e *federation.Issuer) { e.Adapter = nil }},
		{"Adapter", "attribute name", func(e *federation.Issuer) { e.Adapter = schemaOnly{{Name: "a-b", Type: federation.TypeString}} }},
		{"Adapter", "attribute type", func(e *federation.Issuer) { e.Adapter = schemaOnly{{Name: "a"}} }},
		{"Adapter", "attribute twice", func(e *federation.Issuer) { e.Adapter = schemaOnly{{Name: "a", Type: 1}, {Name: "a", Type: 2}} }},
		{"Skew", "negative", func(e *federation.Issuer) { e.Skew = -1 }},
		{"Skew", "beyond bound", func(e *federation.Issuer) { e.Skew = federation.MaxSkew + 1 }},
		{"MaxLifetime", "negative", func(e *federation.Issuer) { e.MaxLifetime = -1 }},
		{"MaxLifetime", "beyond bound", func(e *federation.Issuer) { e.MaxLifetime = federation.MaxMaxLifetime + 1 }},
	} {
		e := entry(iss)
		tc.spoil(&e)
		trust, err := federation.NewTrust([]federation.Issuer{e}, nil)
		var problem *federation.IssuerError
		if trust != nil || !errors.As(err, &problem) || problem.Field != tc.field {
			t.Errorf("%s %s: got %v, want a problem with that field", tc.field, tc.name, err)
		}
	}
	_, err := federation.NewTrust(make([]federation.Issuer, 2), &federation.Own{})
	for _, field := range []string{"TrustDomain", "Name", "URL", "Audiences", "Algorithms", "Keys", "Adapter", "own issuer"} {
		if err == nil || strings.Count(err.Error(), field) < 1 {
			t.Errorf("empty entries: %v, want %s among the problems", err, field)
		}
	}
}

type schemaOnly federation.Schema

func (s schemaOnly) Schema() federation.Schema { return federation.Schema(s) }
func (schemaOnly) Name(federation.Claims) (federation.Naming, error) {
	return federation.Naming{}, errors.New("no")
}

func TestNewTrustRefusesAmbiguousSet(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	own := &federation.Own{URL: "https://sts.example", Keys: iss.KeySet(), Algorithms: iss.Algorithms()}
	for name, change := range map[string]func(*federation.Issuer){
		"same (iss, aud)":          func(e *federation.Issuer) { e.Name = "other" },
		"same (iss, aud), domains": func(e *federation.Issuer) { e.TrustDomain = "stage.example" },
		"same name":                func(e *federation.Issuer) { e.URL = "https://b.example" },
		"our own URL":              func(e *federation.Issuer) { e.Name, e.URL = "other", own.URL },
	} {
		second := entry(iss)
		change(&second)
		if _, err := federation.NewTrust([]federation.Issuer{entry(iss), second}, own); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	second := entry(iss)
	second.Name, second.Audiences = "other", []string{"https://sts.example/other"}
	if _, err := federation.NewTrust([]federation.Issuer{entry(iss), second}, own); err != nil {
		t.Errorf("one iss with two audiences: %v", err)
	}
}

func TestTrustKeepsNoReferenceToItsInput(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	e.Audiences, e.Algorithms = []string{audience}, []jose.SignatureAlgorithm{jose.ES256}
	trust := newTrust(t, e)
	e.Audiences[0], e.Algorithms[0] = "https://evil.example", jose.RS256
	if _, err := identify(t, trust, iss.Sign(iss.Claims(noon, "api", audience))); err != nil {
		t.Errorf("changing the input changed the trust: %v", err)
	}
}

func TestZeroTrustTrustsNobody(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	var trust federation.Trust
	_, err := trust.Identify(t.Context(), iss.Sign(iss.Claims(noon, "api", audience)), time.Now())
	wantRejected(t, err, federation.ErrUntrustedIssuer)
}
