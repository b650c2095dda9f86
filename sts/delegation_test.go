package sts_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// What two tokens say of each other, before any rule is asked; a delegation that they allow still needs a rule.
// standards 1.14, 1.15, 1.45, 1.47, 2.70
func TestActorAndSubjectTokenMustFit(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	actor := func(change ...func(federationtest.Claims)) string {
		return d.sign(d.ci, "agent", "deploy", change...)
	}
	mayAct := func(iss, sub any) func(federationtest.Claims) {
		return set("may_act", map[string]any{"iss": iss, "sub": sub})
	}
	expired := actor(set("exp", d.clock.now().Unix()-60), set("iat", d.clock.now().Unix()-600), without("nbf"))
	for _, tc := range []struct{ name, subject, actor, code string }{
		{"no word on actors, and no rule", d.checkout(), actor(), "invalid_target"},
		{"may_act names the actor, and no rule", d.checkout(mayAct("https://ci.example", "agent")), actor(), "invalid_target"},
		{"may_act names its sub at another issuer", d.checkout(mayAct("https://partner.example", "agent")), actor(), "invalid_request"},
		{"may_act without iss is of the subject's issuer", d.checkout(set("may_act", map[string]any{"sub": "agent"})), actor(), "invalid_request"},
		{"may_act names another sub", d.checkout(mayAct("https://ci.example", "other")), actor(), "invalid_request"},
		{"may_act and nobody proves to be that party", d.checkout(mayAct("https://ci.example", "agent")), "", "invalid_request"},
		{"may_act is a string", d.checkout(set("may_act", "agent")), actor(), "invalid_request"},
		{"may_act is null", d.checkout(set("may_act", nil)), actor(), "invalid_request"},
		{"may_act without sub", d.checkout(set("may_act", map[string]any{"iss": "https://ci.example"})), actor(), "invalid_request"},
		{"actor token with act", d.checkout(), actor(set("act", map[string]any{"sub": "x"})), "invalid_request"},
		{"act is a string", d.checkout(set("act", "x")), "", "invalid_request"},
		{"act is a list", d.checkout(set("act", []string{"x"})), "", "invalid_request"},
		{"act is null", d.checkout(set("act", nil)), "", "invalid_request"},
		{"act in a circle", d.checkout(set("act", map[string]any{"sub": "x", "act": map[string]any{"sub": "y", "act": map[string]any{"sub": "x"}}})), "", "invalid_request"},
		{"act six deep", d.checkout(set("act", deep(6))), "", "invalid_request"},
		{"act of five parties is read, and no rule", d.sign(d.ci, "x", "x", set("act", deep(5))), "", "invalid_target"},
		{"act too large", d.checkout(set("act", map[string]any{"sub": "x", "more": strings.Repeat("x", 4<<10)})), "", "invalid_request"},
		{"act with a sub that is a list", d.checkout(set("act", map[string]any{"sub": []string{"x"}})), "", "invalid_request"},
		{"subject bound to a key", d.checkout(set("cnf", map[string]any{"jkt": "x"})), "", "invalid_request"},
		{"actor bound to a key", d.checkout(), actor(set("cnf", map[string]any{"jkt": "x"})), "invalid_request"},
		{"expired actor", d.checkout(), expired, "invalid_request"},
		{"actor of an unknown issuer", d.checkout(), actor(set("iss", "https://nobody.example")), "invalid_request"},
		{"actor token for another", d.checkout(), actor(set("aud", "https://other.example")), "invalid_request"},
	} {
		form := te(tc.subject)
		if tc.actor != "" {
			form = te(tc.subject, "actor_token", tc.actor, "actor_token_type", jwtType)
		}
		d.refused(tc.name, 400, tc.code, func() answer { return d.exchange(form) })
	}
}

// deep is an act claim that names n parties.
func deep(n int) (act map[string]any) {
	for i := range n {
		next := map[string]any{"sub": strconv.Itoa(i)}
		if act != nil {
			next["act"] = act
		}
		act = next
	}
	return act
}

// What a platform's token says of its own powers is not copied into ours. // standards 1.48
func TestForeignClaimsAreNotCopied(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for name, value := range map[string]any{
		"act": map[string]any{"iss": "https://cluster.example", "sub": "root"}, "scope": "admin", "client_id": "root", "status": map[string]any{"x": 1},
		"authorization_details": []any{map[string]any{"type": "all"}}, "sallyport": map[string]any{"family": "f", "depth": 1},
	} {
		m := d.mint(d.checkout(set(name, value)), "orders", "scope", "read")
		if m.claims["act"] != nil || m.claims["scope"] != "read" || m.claims["client_id"] != "workload" || m.claims["status"] != nil || m.claims["authorization_details"] != nil {
			t.Errorf("%s of a platform's token came through: %v", name, m.claims)
		}
		if family, ancestors := lineageOf(m); family != m.decision || ancestors != nil {
			t.Errorf("%s: family %s, ancestors %v", name, family, ancestors)
		}
	}
}

// Clusters that share an iss are told apart by audience. may_act has only iss and sub: it must not let the workload of
// one cluster pass for its namesake in the other. // standards 1.43, 1.47
func TestMayActDoesNotReachIntoAnotherCluster(t *testing.T) {
	t.Parallel()
	const shared, twinAudience = "https://kubernetes.default.svc", "https://sts.example/twin"
	var one, twin *federationtest.Issuer
	d := deploy(t, func(w *world) {
		one, twin = federationtest.NewNamed(t, shared, jose.ES256), federationtest.NewNamed(t, shared, jose.ES256)
		a, b := trusted("prod.example", "one", one), trusted("partner.example", "twin", twin)
		b.Audiences = []string{twinAudience}
		w.issuers = append(w.issuers, a, b)
	})
	mayAct := set("may_act", map[string]any{"iss": shared, "sub": "agent"})
	for _, tc := range []struct{ name, subject, actor, code string }{
		{"the namesake", d.sign(one, "user", "x", mayAct), d.sign(twin, "agent", "x", set("aud", twinAudience)), "invalid_request"},
		{"the namesake, named from elsewhere", d.checkout(mayAct), d.sign(twin, "agent", "x", set("aud", twinAudience)), "invalid_request"},
		{"the one that is meant, and no rule", d.sign(one, "user", "x", mayAct), d.sign(one, "agent", "x"), "invalid_target"},
	} {
		d.refused(tc.name, 400, tc.code, func() answer {
			return d.exchange(te(tc.subject, "actor_token", tc.actor, "actor_token_type", jwtType))
		})
	}
}
