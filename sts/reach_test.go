package sts_test

import (
	"crypto/x509"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// What a stolen token could obtain, onward too, and nothing once it is dead. The token is in no log.
func TestReachOfAToken(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	_, ask := d.adminListener("uid=0", append(d.exchanger.RevocationRoutes(d.recorder.scan), d.exchanger.ReachRoute())...)
	subject := d.checkout()
	targets := func(body string) string {
		t.Helper()
		a := ask("POST", "/admin/v1/reach", body)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		var out []string
		for _, r := range object(t, a.body)["reach"].([]any) {
			out = append(out, r.(map[string]any)["target"].(string))
		}
		return strings.Join(out, " ")
	}
	if got := targets(`{"token":"` + subject + `"}`); got != "orders plain orders billing archive" {
		t.Errorf("the token reaches %q", got)
	}
	m := d.mint(subject, "orders")
	if got := targets(`{"token":"` + m.token + `"}`); got != "orders billing archive" {
		t.Errorf("a token minted here reaches %q", got)
	}
	if got := targets(`{"selector":["attr.team=checkout","issuer=prod.example/cluster","target=plain"]}`); got != "plain" {
		t.Errorf("by a selector: %q", got)
	}
	for what, body := range map[string]string{
		"a token of nobody": `{"token":"x"}`, "a lease": `{"selector":["family=x"]}`, "two issuers": `{"selector":["issuer=a/b","subject=spiffe://a/c/d"]}`,
		"no workload id": `{"selector":["subject=x"]}`, "no issuer": `{"selector":["issuer=x"]}`, "both": `{"selector":["rule=x"],"token":"x"}`,
	} {
		if a := ask("POST", "/admin/v1/reach", body); a.status != 400 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	ask("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"]}`)
	if a := ask("POST", "/admin/v1/reach", `{"token":"`+subject+`"}`); a.status != 400 || !strings.Contains(a.body, "nothing can be obtained") {
		t.Errorf("a dead token: %d %s", a.status, a.body)
	}
}

// What a lock refuses for certain is marked; of what it may refuse nothing is said.
func TestReachSaysWhatALockRefuses(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o := operate(t, d)
	_, ask := d.adminListener("uid=0", d.exchanger.ReachRoute())
	subject := d.checkout()
	locked := func(body string) string {
		t.Helper()
		var out []string
		for _, r := range object(t, ask("POST", "/admin/v1/reach", body).body)["reach"].([]any) {
			if _, is := r.(map[string]any)["locked"]; is {
				out = append(out, r.(map[string]any)["rule"].(string))
			}
		}
		return strings.Join(out, " ")
	}
	token, selector := `{"token":"`+subject+`"}`, `{"selector":["attr.team=checkout"]}`
	if got := locked(token) + locked(selector); got != "" {
		t.Errorf("without a lock: %q", got)
	}
	o.does(`"lock":true`, "target=plain")
	o.does(`"lock":true`, "rule=orders-billing", "trust_domain=prod.example")
	if got := locked(token); got != "checkout-plain orders-billing" {
		t.Errorf("of a token: %q", got)
	}
	if got := locked(selector); got != "checkout-plain" {
		t.Errorf("of a team: %q", got)
	}
	if got := locked(`{"selector":["issuer=prod.example/cluster"]}`); got != "checkout-plain orders-billing" {
		t.Errorf("of an issuer: %q", got)
	}
	o.does(`"lock":true`, "attr.team=checkout", "target=orders")
	if got := locked(`{"selector":["issuer=prod.example/cluster","target=orders"]}`); got != "" {
		t.Errorf("of an issuer of which not all is locked: %q", got)
	}
}

// What no issuer names reaches nothing by its rules.
func TestReachOfAnAttributeThatAnIssuerDoesNotHave(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	_, ask := d.adminListener("uid=0", d.exchanger.ReachRoute())
	a := ask("POST", "/admin/v1/reach", `{"selector":["attr.nothing=x"]}`)
	if body := object(t, a.body); len(body["reach"].([]any)) != 0 || len(body["warnings"].([]any)) != 1 {
		t.Errorf("%s", a.body)
	}
}

// Attack: an operator of one trust domain asks about a token of another, or about one of its own that another's lock refuses. It
// learns nothing of either: not that the token is locked, nor the lock's id.
func TestReachTellsNothingOfOtherDomains(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	a := operator.Authority{Roles: []operator.Role{
		{Name: "prod", May: operator.Actions(), TrustDomains: []string{"prod.example"}, Certificates: []string{"spiffe://ops.example/prod"}},
		{Name: "partner", May: operator.Actions(), TrustDomains: []string{"partner.example"}, Certificates: []string{"spiffe://ops.example/partner"}},
	}}
	ask := func(who string) func(method, path string, body ...string) answer {
		u, _ := url.Parse(who)
		now := time.Now()
		o, err := a.Authenticate(t.Context(), []*x509.Certificate{{URIs: []*url.URL{u}, SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}}, secret.Value{}, now)
		if err != nil {
			t.Fatal(err)
		}
		_, f := d.adminListenerOf(o, append(d.exchanger.RevocationRoutes(d.recorder.scan), d.exchanger.ReachRoute())...)
		return f
	}
	prod, partner := ask("spiffe://ops.example/prod"), ask("spiffe://ops.example/partner")
	_, root := d.adminListener("uid=0", d.exchanger.RevocationRoutes(d.recorder.scan)...)
	locked := root("POST", "/admin/v1/revocations", `{"selector":["attr.team=checkout"],"lock":true}`)
	id := locked.decision()
	token := d.checkout()
	for name, tc := range map[string]struct {
		a      answer
		status int
	}{
		"another's token": {partner("POST", "/admin/v1/reach", `{"token":"`+token+`"}`), 403},
		"another's lock":  {prod("POST", "/admin/v1/reach", `{"token":"`+token+`"}`), 400},
	} {
		if tc.a.status != tc.status || id == "" || strings.Contains(tc.a.body, id) || tc.status == 403 && strings.Contains(tc.a.body, "lock") {
			t.Errorf("%s: %d %s", name, tc.a.status, tc.a.body)
		}
	}
}
