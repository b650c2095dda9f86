package sts_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// same checks that all answers are one, but for the decision id and the date: status, every header, every byte.
func same(t *testing.T, answers map[string]answer) {
	t.Helper()
	first, name := "", ""
	for n, a := range answers {
		header := a.header.Clone()
		header.Del("Date")
		header.Del("Sallyport-Decision")
		all := fmt.Sprint(a.status, mustJSON(header), withoutDecision(a))
		if name == "" {
			first, name = all, n
		}
		if all != first {
			t.Errorf("%s and %s are told apart:\n%s\n%s", n, name, all, first)
		}
	}
}

// A stranger learns nothing about issuers, keys and tokens from a refusal. // standards 1.39
func TestBadTokensAreNotToldApart(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	now, good := d.clock.now(), d.checkout()
	dead := d.mint(good, "orders").token
	d.killed(dead)
	stranger := federationtest.NewKey(t, "key-1", jose.ES256)
	claims := d.cluster.Claims(now, "checkout/api", audience).With("team", "checkout")
	same(t, map[string]answer{
		"unknown issuer": d.exchange(te(d.checkout(set("iss", "https://nobody.example")))),
		"unknown kid":    d.exchange(te(d.cluster.Sign(claims, federationtest.WithHeader("kid", "other")).Reveal())),
		"other key":      d.exchange(te(d.cluster.Sign(claims, federationtest.WithKey(stranger)).Reveal())),
		"bad signature":  d.exchange(te(good[:len(good)-8] + "AAAAAAAA")),
		"expired":        d.exchange(te(d.checkout(set("exp", now.Add(-time.Hour).Unix()), set("iat", now.Add(-2*time.Hour).Unix()), without("nbf")))),
		"not yet":        d.exchange(te(d.checkout(set("nbf", now.Add(5*time.Minute).Unix())))),
		"wrong audience": d.exchange(te(d.checkout(set("aud", "https://other.example")))),
		"no audience":    d.exchange(te(d.checkout(without("aud")))),
		"lives too long": d.exchange(te(d.checkout(set("exp", now.Add(25*time.Hour).Unix())))),
		"wrong typ":      d.exchange(te(d.cluster.Sign(claims, federationtest.WithHeader("typ", "at+jwt")).Reveal())),
		"no workload":    d.exchange(te(d.checkout(set("sub", "../x")))),
		"revoked":        d.exchange(te(dead, "audience", "billing")),
		"garbage":        d.exchange(te("garbage")),
		"wrong type":     d.exchange(te(good, "subject_token_type", accessType)),
		"missing token":  d.exchange(te("")),
	})
}

// Who is known learns nothing about targets and rules that are not theirs. // standards 1.37, 1.39
func TestTargetsAreNotToldApart(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	deep := d.mint(d.checkout(), "orders")
	for range 4 {
		deep = d.mint(deep.token, "orders")
	}
	same(t, map[string]answer{
		"unknown":               d.exchange(te(d.checkout(), "audience", "nowhere")),
		"no rule":               d.exchange(te(d.checkout(), "audience", "ledger")),
		"deny rule":             d.exchange(te(d.checkout(), "audience", "payroll")),
		"not grantable":         d.exchange(te(d.checkout(), "audience", "vault")),
		"no rule for own token": d.exchange(te(d.mint(d.checkout(), "plain").token)),
		"chain too long":        d.exchange(te(deep.token)),
		"unknown resource":      d.exchange(drop(te(d.checkout(), "resource", "https://nowhere.example/"), "audience")),
		"malformed resource":    d.exchange(drop(te(d.checkout(), "resource", "nowhere"), "audience")),
		"two":                   d.exchange(te(d.checkout(), "resource", "https://nowhere.example/")),
		"none":                  d.exchange(drop(te(d.checkout()), "audience")),
		"wrong team":            d.exchange(te(d.sign(d.cluster, "checkout/api", "interns"))),
		"unknown, with a scope": d.exchange(te(d.checkout(), "audience", "nowhere", "scope", "read")),
		"no rule, with a scope": d.exchange(te(d.checkout(), "audience", "ledger", "scope", "read")),
		"deny, with a scope":    d.exchange(te(d.checkout(), "audience", "payroll", "scope", "read")),
	})
	if a := d.exchange(te(d.checkout(), "scope", "admin")); withoutDecision(a) == withoutDecision(d.exchange(te(d.checkout(), "audience", "nowhere"))) {
		t.Error("a scope that is not granted at a target that is reads like an unknown target")
	}
}

// A stranger at /introspect, and one at /revoke, learns nothing about tokens. // standards 2.56, 2.61
func TestTokensOfOthersAreNotToldApart(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	alive, dead := d.mint(d.checkout(), "orders").token, d.mint(d.checkout(), "orders").token
	deadCaller := d.gateway()
	d.killed(dead)
	d.killed(deadCaller)
	answers, revoked := map[string]answer{}, map[string]answer{}
	for bearerName, bearer := range map[string]string{"alive": alive, "dead": dead, "dead caller": deadCaller, "garbage": "garbage", "platform": d.checkout()} {
		for name, token := range map[string]string{"alive": alive, "dead": dead, "garbage": "garbage"} {
			answers[bearerName+" asks about "+name] = d.ask(bearer, token)
		}
	}
	same(t, answers)
	for name, token := range map[string]string{"dead": dead, "garbage": "garbage", "malformed": "a.b.c", "alive": alive, "forged": d.checkout(set("iss", d.issuer))} {
		revoked[name] = d.post("/revoke", url.Values{"token": {token}})
	}
	same(t, revoked)
}
