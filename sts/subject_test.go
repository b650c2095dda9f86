package sts_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts"
)

// A header that picks its own algorithm, key or meaning, at the door. // standards 2.18, 2.20-2.28
func TestForgedHeadersAreRefused(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer trap.Close()
	d := deploy(t)
	now := d.clock.now()
	claims := d.cluster.Claims(now, "checkout/api", audience).With("team", "checkout")
	payload, _ := json.Marshal(claims)
	public, _ := json.Marshal(d.cluster.Key().Public())
	own, _ := json.Marshal(federationtest.NewKey(t, "key-1", jose.ES256).Public())
	header := func(name string, value any) string {
		return d.cluster.Sign(claims, federationtest.WithHeader(name, value)).Reveal()
	}
	good := d.cluster.Sign(claims).Reveal()
	parts := strings.Split(good, ".")
	raw := base64.RawURLEncoding
	tokens := map[string]string{
		"alg none, no signature": raw.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg none, signed":       header("alg", "none"), "alg None": header("alg", "None"), "alg noNE": header("alg", "noNE"),
		"alg with a blank": header("alg", "ES256 "), "alg in lower case": header("alg", "es256"), "alg of another curve": header("alg", "ES384"),
		"alg RS256": header("alg", "RS256"), "alg a number": header("alg", 256), "no alg": d.cluster.Sign(claims, federationtest.WithoutHeader("alg")).Reveal(),
		"HMAC with the public key":     federationtest.HMAC(t, public, []byte(`{"alg":"HS256","kid":"key-1","typ":"JWT"}`), payload).Reveal(),
		"HMAC claiming ES256":          federationtest.HMAC(t, public, []byte(`{"alg":"ES256","kid":"key-1","typ":"JWT"}`), payload).Reveal(),
		"crit unknown":                 header("crit", []string{"exp"}),
		"crit empty":                   header("crit", []string{}),
		"crit no list":                 header("crit", "exp"),
		"b64 false":                    header("b64", false),
		"jku":                          header("jku", trap.URL),
		"x5u":                          header("x5u", trap.URL),
		"jwk":                          header("jwk", json.RawMessage(own)),
		"x5c":                          header("x5c", []string{"AAAA"}),
		"kid a path":                   header("kid", "../../etc/passwd"),
		"kid SQL":                      header("kid", "' OR 1=1 --"),
		"kid NUL":                      header("kid", "key-1\x00"),
		"kid long":                     header("kid", strings.Repeat("k", 257)),
		"kid a number":                 header("kid", 1),
		"kid empty":                    header("kid", ""),
		"cty":                          header("cty", "JWT"),
		"zip":                          header("zip", "DEF"),
		"JSON serialization":           `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"five parts":                   good + ".AAAA.AAAA",
		"four parts":                   good + ".AAAA",
		"two parts":                    parts[0] + "." + parts[1],
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"padding":                      parts[0] + "." + parts[1] + "." + parts[2] + "==",
		"blank in it":                  parts[0] + ". " + parts[1] + "." + parts[2],
		"blank after it":               good + " ",
		"newline after it":             good + "\n",
		"signature one byte short":     parts[0] + "." + parts[1] + "." + parts[2][:len(parts[2])-2],
		"header twice alg":             federationtest.SignRaw(t, d.cluster.Key(), []byte(`{"alg":"ES256","kid":"key-1","alg":"ES256"}`), payload).Reveal(),
		"header ALG":                   federationtest.SignRaw(t, d.cluster.Key(), []byte(`{"ALG":"ES256","kid":"key-1"}`), payload).Reveal(),
		"16 KiB and more":              d.checkout(set("padding", strings.Repeat("x", 16<<10))),
		"nested too deep":              d.cluster.SignPayload([]byte(strings.Replace(string(payload), "{", `{"x":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`,`, 1))).Reveal(),
		"claims no object":             d.cluster.SignPayload([]byte(`["iss"]`)).Reveal(),
		"claims with invalid UTF-8":    d.cluster.SignPayload([]byte(strings.Replace(string(payload), "checkout/api", "checkout/\xff", 1))).Reveal(),
		"claims with a lone surrogate": d.cluster.SignPayload([]byte(strings.Replace(string(payload), "checkout/api", `checkout/\ud800`, 1))).Reveal(),
	}
	for _, typ := range []string{
		"dpop+jwt", "wpt+jwt", "wit+jwt", "secevent+jwt", "statuslist+jwt", "logout+jwt", "token-introspection+jwt", "txntoken+jwt", "at+jwt", "application/at+jwt", "",
	} { // standards 2.22
		tokens["typ "+typ] = header("typ", typ)
	}
	for name, token := range tokens {
		d.refused(name, 400, "invalid_request", func() answer { return d.exchange(te(token)) })
	}
	for name, token := range map[string]string{"as is": good, "typ application/JWT": header("typ", "application/JWT"), "no typ": d.cluster.Sign(claims, federationtest.WithoutHeader("typ")).Reveal()} { // standards 2.23
		if a := d.exchange(te(token)); a.status != 200 {
			t.Errorf("%s: %d, want 200: else the refusals above show nothing", name, a.status)
		}
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("a URL from a token was fetched %d times", n)
	}
}

// Claims of the wrong value or type, at the door. // standards 2.30-2.33, 4.3, 4.17, 4.18, 4.20
func TestBadClaimsAreRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	now := d.clock.now()
	at := func(in time.Duration) int64 { return now.Add(in).Unix() }
	for name, value := range map[string]map[string]any{
		"iss": {
			"trailing slash": "https://cluster.example/", "upper case": "https://CLUSTER.example", "port": "https://cluster.example:443",
			"escaped": "https://cluster%2Eexample", "http": "http://cluster.example", "list": []string{"https://cluster.example"}, "null": nil, "number": 1, "empty": "",
			"other trusted issuer": "https://partner.example", "blank": " https://cluster.example",
		},
		"aud": {
			"other": "https://other.example", "ours and another's": []string{audience, "https://other.example"}, "trailing slash": audience + "/",
			"empty list": []string{}, "list of numbers": []int{1}, "object": map[string]string{"a": audience}, "null": nil, "empty": "",
			"prefix": audience[:len(audience)-1], "the token endpoint": "https://sts.example/token", "a cloud API": "sts.amazonaws.com",
		},
		"exp": {
			"expired": at(-31 * time.Second), "a string": fmt.Sprint(at(time.Minute)), "negative": -1, "null": nil, "huge": json.Number("1e400"),
			"over 2^53": json.Number("9007199254740993"), "ages ahead": at(25 * time.Hour), "over the ceiling": at(time.Hour + time.Second), "true": true,
		},
		"nbf": {"later": at(31 * time.Second), "a string": "0", "after exp": at(11 * time.Minute)},
		"iat": {"in the future": at(31 * time.Second), "a list": []int{1}, "after exp": at(11 * time.Minute)},
		"sub": {
			"empty": "", "number": 1, "null": nil, "list": []string{"x"}, "control character": "a\nb", "traversal": "checkout/../admin", "leading slash": "/checkout",
			"empty segment": "a//b", "long": strings.Repeat("a", 1025), "too long for an id": strings.Repeat("a", 110), "blank": "a b", "escape": "a%2fb",
		},
		"jti": {"number": 1, "empty": "", "control character": "a\x00b", "long": strings.Repeat("a", 1025)},
	} {
		for kind, v := range value {
			d.refused(name+" "+kind, 400, "invalid_request", func() answer { return d.exchange(te(d.checkout(set(name, v)))) })
		}
	}
	for _, name := range []string{"iss", "aud", "exp", "sub"} {
		d.refused("no "+name, 400, "invalid_request", func() answer { return d.exchange(te(d.checkout(without(name)))) })
	}
	payload, _ := json.Marshal(d.cluster.Claims(now, "checkout/api", audience).With("team", "checkout"))
	for name, more := range map[string]string{
		"sub twice": `{"sub":"admin",`, "iss twice": `{"iss":"https://evil.example",`, "exp twice": `{"exp":99999999999,`, "team twice": `{"team":"admin",`,
	} {
		token := d.cluster.SignPayload([]byte(strings.Replace(string(payload), "{", more, 1))).Reveal()
		d.refused(name, 400, "invalid_request", func() answer { return d.exchange(te(token)) })
	}
	m := d.mint(d.checkout(set("SUB", "admin"), set("Iss", "https://evil.example"), set("EXP", 1)), "orders")
	if m.claims["sub"] != "spiffe://prod.example/cluster/checkout/api" {
		t.Errorf("a claim in another case is read: sub %v", m.claims["sub"])
	}
	for name, change := range map[string]func(federationtest.Claims){
		"exp with a fraction": set("exp", float64(at(time.Minute))+0.5), "nbf within the skew": set("nbf", at(30*time.Second)),
		"iat within the skew": set("iat", at(30*time.Second)), "no iat, nbf, jti": func(c federationtest.Claims) { delete(c, "iat"); delete(c, "nbf"); delete(c, "jti") },
		"aud as list": set("aud", []string{audience}),
	} {
		if a := d.exchange(te(d.checkout(change))); a.status != 200 {
			t.Errorf("%s: %d, want 200", name, a.status)
		}
	}
}

// One trusted issuer cannot speak for another, nor with another's key. // standards 4.2, 4.5
func TestIssuersCannotSpeakForEachOther(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	claims := d.cluster.Claims(d.clock.now(), "checkout/api", audience).With("team", "checkout")
	for name, token := range map[string]string{
		"partner's key":           d.cluster.Sign(claims, federationtest.WithKey(d.partner.Key())).Reveal(),
		"ci's key":                d.cluster.Sign(claims, federationtest.WithKey(d.ci.Key())).Reveal(),
		"an own token of theirs":  d.cluster.Sign(claims.With("iss", d.issuer), federationtest.WithHeader("typ", "at+jwt")).Reveal(),
		"subject of another's id": d.sign(d.partner, "spiffe://prod.example/cluster/checkout/api", "checkout"),
	} {
		d.refused(name, 400, "invalid_request", func() answer { return d.exchange(te(token)) })
	}
	// What a domain's issuer says of a trust domain is only data.
	m := d.mint(d.sign(d.partner, "checkout/api", "checkout", set("trust_domain", "prod.example")), "orders")
	if m.claims["sub"] != "spiffe://partner.example/cluster/checkout/api" {
		t.Errorf("sub %v, want the configured domain", m.claims["sub"])
	}
}

// Unknown issuers cost no network, and a flood of unknown kids at most one fetch. // standards 4.1, 4.13, failures 1, 29
func TestStrangersCannotMakeUsFetch(t *testing.T) {
	t.Parallel()
	remote := federationtest.New(t)
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	t.Cleanup(cache.Close)
	source, err := cache.Source(remote.KeySpec())
	if err != nil {
		t.Fatal(err)
	}
	d := deploy(t, func(w *world) {
		w.cluster = remote
		w.issuers[0] = trusted("prod.example", "cluster", remote)
		w.issuers[0].Keys = source
	})
	d.mint(d.checkout(), "orders")
	before, began := remote.Fetches()+remote.Discoveries(), time.Now()
	for range 50 {
		kid := federationtest.WithHeader("kid", fmt.Sprint(rand.Int64()))
		token := remote.Sign(remote.Claims(d.clock.now(), "x", audience), kid).Reveal()
		d.wantRefusal("unknown kid", d.exchange(te(token)), 400, "invalid_request")
		stranger := remote.Sign(remote.Claims(d.clock.now(), "x", audience).With("iss", remote.URL()+"/x"), kid).Reveal()
		d.wantRefusal("unknown issuer", d.exchange(te(stranger)), 400, "invalid_request")
	}
	refetches := 1 + int(time.Since(began)/(30*time.Second)) // of metadata and keys, in each cooldown
	if n := remote.Fetches() + remote.Discoveries() - before; n > 2*refetches {
		t.Errorf("100 forged tokens made %d requests, want %d refetches at most", n, refetches)
	}
}

// What a reload takes away is gone at once, for its tokens and for those minted from them; a reload that fails to
// compile never comes this far. // standards 4.26, 4.27
func TestRemovedIssuerIsGoneAtOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	ci, child := d.sign(d.ci, "deploy", "deploy"), d.mint(d.checkout(), "orders")
	d.mint(ci, "orders")
	d.world.issuers = d.world.issuers[2:]
	d.exchanger.Swap(d.build(d.world, "config-2"))
	d.refused("token of a removed issuer", 400, "invalid_request", func() answer { return d.exchange(te(ci)) })
	d.refused("own token of a removed issuer's workload", 400, "invalid_request", func() answer { return d.exchange(te(child.token, "audience", "billing")) })
	d.mint(d.sign(d.partner, "p", "checkout"), "orders")
}

// Our own tokens are subject tokens only where a rule says so. // standards 4.22, failures 14
func TestOwnTokenNeedsARuleOfItsOwn(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	plain, orders := d.mint(d.checkout(), "plain"), d.mint(d.checkout(), "orders")
	for name, try := range map[string][2]string{
		"target that the workload could have": {plain.token, "orders"},
		"target that no rule leads to":        {orders.token, "archive"},
		"introspection":                       {orders.token, sts.IntrospectionTarget},
	} {
		d.refused(name, 400, "invalid_target", func() answer { return d.exchange(te(try[0], "audience", try[1])) })
	}
	foreign := d.mint(d.sign(d.partner, "p", "checkout"), "orders").token
	d.refused("another domain's token", 400, "invalid_target", func() answer { return d.exchange(te(foreign, "audience", "billing")) })
}
