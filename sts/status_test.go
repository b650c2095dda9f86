package sts_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// listed mints a token that has a place in a status list: of archive, exchanged from billing, from orders.
func (d *deployment) listed(subject string) minted {
	d.t.Helper()
	root := d.mint(subject, "orders")
	return d.mint(d.mint(root.token, "billing").token, "archive")
}

// place is where a token stands.
func place(t testing.TB, m minted) (path string, index int64) {
	t.Helper()
	status, _ := m.claims["status"].(map[string]any)
	list, _ := status["status_list"].(map[string]any)
	uri, _ := list["uri"].(string)
	idx, ok := list["idx"].(float64)
	if !ok || uri == "" || len(status) != 1 || len(list) != 2 {
		t.Fatalf("the token says of its status %v", m.claims["status"])
	}
	return uri, int64(idx)
}

// status reads the list of a token, as a relying party does, and returns its value.
func (d *deployment) status(m minted) uint8 {
	d.t.Helper()
	uri, index := place(d.t, m)
	a := d.send("GET", strings.TrimPrefix(uri, d.issuer), "")
	if a.status != 200 || a.header.Get("Content-Type") != "application/statuslist+jwt" {
		d.t.Fatalf("the list is answered with %d %s", a.status, a.body)
	}
	jws, err := jose.ParseSignedCompact(a.body, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || jws.Signatures[0].Header.ExtraHeaders[jose.HeaderType] != "statuslist+jwt" {
		d.t.Fatalf("the list is no JWT of its type: %v", err)
	}
	payload, err := d.keys.Tokens().VerifySignature(d.t.Context(), jws)
	var list struct {
		Sub           string
		Iat, Exp, TTL int64
		List          statuslist.List `json:"status_list"`
	}
	if err != nil || json.Unmarshal(payload, &list) != nil || list.Sub != uri || list.TTL != 10 || list.Exp-list.Iat != 15 || list.List.Bits != 1 {
		d.t.Fatalf("the list says %s (%v)", payload, err)
	}
	all, err := statuslist.Decode(list.List)
	if err != nil {
		d.t.Fatal(err)
	}
	v, ok := all.At(index)
	if !ok {
		d.t.Fatalf("the list has no token %d", index)
	}
	return v
}

// A list says of each token what introspection says, whatever names it, and what it descends from; each has a place of its
// own. // standards 3.17
func TestStatusListSaysWhatIntrospectionSays(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	o, caller := operate(t, d), d.gateway()
	seen := map[int64]bool{}
	agree := func(what string, want uint8, m minted) {
		t.Helper()
		if got, active := d.status(m), d.active(caller, m.token); got != want || active != (want == 0) {
			t.Errorf("%s: the list says %d, introspection that it is active: %v; want %d", what, got, active, want)
		}
	}
	other := d.listed(d.checkout())
	for name, of := range map[string]func(minted) string{
		"its lease":                func(m minted) string { return "lease=" + m.claims["jti"].(string) },
		"its id":                   func(m minted) string { return "jti=" + d.issuer + "/" + m.claims["jti"].(string) },
		"its fingerprint":          func(m minted) string { return "token=" + fingerprint(t, m.token) },
		"what it was exchanged of": func(m minted) string { return "lease=" + ancestors(m)[0] },
		"its family":               func(m minted) string { return "family=" + m.claims["sallyport"].(map[string]any)["family"].(string) },
	} {
		m := d.listed(d.checkout())
		_, index := place(t, m)
		if seen[index] {
			t.Errorf("two tokens have the place %d", index)
		}
		seen[index] = true
		agree("before, "+name, 0, m)
		o.revokes(of(m))
		agree("after, "+name, 1, m)
	}
	agree("another token", 0, other)
	o.revokes("rule=billing-archive")
	agree("by its rule", 1, other)
	if _, ok := d.mint(d.sign(d.ci, "x", "deploy"), "orders").claims["status"]; ok {
		t.Error("a token of a target that has no list carries a status")
	}
	locked := d.listed(d.checkout())
	o.does(`"lock":true`, "target=archive")
	agree("by a lock", 1, locked)
}

func ancestors(m minted) []string {
	var out []string
	for _, a := range m.claims["sallyport"].(map[string]any)["ancestors"].([]any) {
		out = append(out, a.(string))
	}
	return out
}

// A list that cannot be told truthfully is not told. // standards 3.20
func TestStatusListIsTrueOrNotThere(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	uri, _ := place(t, d.listed(d.checkout()))
	path := strings.TrimPrefix(uri, d.issuer)
	if a := d.send("GET", path+"?time=1", ""); a.status != 501 {
		t.Errorf("a list of another time is answered with %d", a.status)
	}
	for _, other := range []string{path + "0", "/status/x-1", "/status/" + strings.Split(path, "-")[1], "/status/" + strings.Repeat("a", 100)} {
		if a := d.send("GET", other, ""); a.status != 404 {
			t.Errorf("%s is answered with %d", other, a.status)
		}
	}
	away := new(others)
	d.revocations.Share(away)
	away.gone.Store(true)
	if a := d.send("GET", path, ""); a.status != 503 {
		t.Errorf("a replica that may have missed something answers %d", a.status)
	}
}
